"""Named memory on a device: reused for what fits, grown for what does not, all given back in the end."""

from __future__ import annotations

from collections.abc import Mapping

from apex_runtime.backends.device import Device


class DeviceBuffers:
    """One buffer per name."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._addresses: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        """The address of a buffer that was reserved."""
        return self._addresses[name]

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether every buffer exists with at least so many bytes."""
        return all(self._sizes.get(name, -1) >= size for name, size in sizes.items())

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """Make every buffer at least so many bytes; what grows moves, and loses its content.

        Raises DeviceFailure; then buffers may be missing, and the next call makes them.
        """
        for name, size in sizes.items():
            if self._sizes.get(name, -1) < size:
                self._free(name)  # first, so that old and new need not fit side by side
                self._addresses[name] = self._device.allocate(max(1, size))
                self._sizes[name] = size

    def close(self) -> None:
        """Free everything."""
        for name in list(self._addresses):
            self._free(name)

    def _free(self, name: str) -> None:
        self._sizes.pop(name, None)
        if name in self._addresses:
            self._device.free(self._addresses.pop(name))
