"""What was made ready for one request shape, a bounded number of them: the one used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

# A captured graph holds for one batch size and one number of tiles of every level.
RequestShape = tuple[int, tuple[int, ...]]
Held = TypeVar("Held")

MAX_REQUEST_SHAPES = 16  # a program uses few budgets; each holds a graph and what belongs to it


class RequestShapes(Generic[Held]):
    """Values by request shape, at most ``limit``; ``release`` is called once for each that leaves."""

    def __init__(self, release: Callable[[Held], None], limit: int = MAX_REQUEST_SHAPES) -> None:
        self._release = release
        self._limit = limit
        self._held: OrderedDict[RequestShape, Held] = OrderedDict()

    def get(self, shape: RequestShape) -> Held | None:
        """The value, which now counts as used last; None when there is none."""
        if shape in self._held:
            self._held.move_to_end(shape)
        return self._held.get(shape)

    def make_room(self) -> None:
        """Release so many that one more fits: before the next is made, so that never more than ``limit`` exist."""
        while len(self._held) >= self._limit:
            self._release(self._held.popitem(last=False)[1])

    def put(self, shape: RequestShape, value: Held) -> None:
        """Keep a value under a shape that has none."""
        self.make_room()
        self._held[shape] = value

    def drop(self, shape: RequestShape) -> None:
        """Release the value of a shape, if there is one."""
        if shape in self._held:
            self._release(self._held.pop(shape))

    def clear(self) -> None:
        """Release all."""
        while self._held:
            self._release(self._held.popitem()[1])
