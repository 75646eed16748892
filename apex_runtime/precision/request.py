"""What a build asks for in matters of precision, from flags or a recipe, and which of that goes together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from apex_runtime.errors import UsageError
from apex_runtime.precision.data import IMAGES
from apex_runtime.precision.plan import PROFILES, Precision, Profile
from apex_runtime.precision.ranges import Method

# Shows (what is being done, steps done, steps in all) and says whether to go on.
Step = Callable[[str, int, int], bool]


@dataclass(frozen=True)
class PrecisionRequest:
    """``profile``, if any, decides the precision. ``pins``: patterns of regions and modules that stay float32.

    ``method``: how the range of a rounded tensor follows from its numbers. ``data``: a labelled set or images, None for the
    shipped samples, of which at most ``calibration_images`` are looked at; ``calibration_cache``: None for a file in this user's
    cache folder. ``max_drop``: points of AP that may be lost, by which regions are then chosen. ``report``: whether the graph is
    compared with fp32.
    """

    precision: Precision = "fp32"
    profile: Profile | None = None
    pins: tuple[str, ...] = ()
    method: Method = "minmax"
    data: Path | None = None
    calibration_images: int = IMAGES
    calibration_cache: Path | None = None
    max_drop: float | None = None
    report: bool = True

    @property
    def wanted(self) -> Precision:
        """The precision, by itself or by the profile."""
        return PROFILES[self.profile] if self.profile else self.precision

    @property
    def name(self) -> str:
        """The profile, or else the precision."""
        return self.profile or self.precision

    def check(self) -> None:
        """Raises UsageError for what has no meaning together."""
        if self.profile and self.precision != "fp32":
            message = f"--profile {self.profile} and --precision {self.precision}: a profile decides the precision."
            raise UsageError(message, "Leave one of them out.")
        if self.wanted == "fp32":
            self._check_unused(
                "the precision fp32 calibrates nothing",
                {"--data": self.data, "--pin": self.pins, "--calibration-cache": self.calibration_cache},
            )
        if self.wanted in ("fp32", "fp16"):
            chosen = self.method if self.method != "minmax" else None
            self._check_unused(f"{self.name} rounds nothing to eight bits", {"--method": chosen, "--max-drop": self.max_drop})
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(f"--max-drop {self.max_drop}: expected 0 to 100 points of AP.", "Half a point: --max-drop 0.5.")

    def words(self) -> Iterator[str]:
        """The flags that ask for this, without the folders of this machine."""
        if self.wanted == "fp32":
            return
        yield from ("--profile", self.profile) if self.profile else ("--precision", self.precision)
        for pin in self.pins:
            yield from ("--pin", shlex.quote(pin))
        if self.method != "minmax":
            yield from ("--method", self.method)
        if self.data is not None:
            yield from ("--data", shlex.quote(self.data.name or self.data.resolve().name))
        if self.calibration_images != IMAGES:
            yield from ("--calibration-images", str(self.calibration_images))
        if self.max_drop is not None:
            yield from ("--max-drop", f"{self.max_drop:g}")
        if not self.report:
            yield "--no-report"

    def _check_unused(self, reason: str, given: dict[str, object]) -> None:
        for option, value in given.items():
            if value is not None and value != ():
                raise UsageError(
                    f"{option} has no meaning: {reason}.",
                    "Leave it out, or give --precision int8." if "eight" in reason else "Leave it out, or give --precision fp16.",
                )
