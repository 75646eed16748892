"""What a build asks of the passes: which regions of the graph are rounded to eight bits, and what the others compute in.

The profiles: quality is fp16; balanced has the foveal stream in FP8 and the rest in fp16; edge has both backbones in INT8.
INT8 has two flavours, because ONNX Runtime's CPU kernels want unsigned activations and TensorRT wants symmetric ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from apex_runtime.errors import UsageError
from apex_runtime.precision.number_formats import FORMATS, NumberFormat

Precision = Literal["fp32", "fp16", "int8", "fp8"]
Profile = Literal["quality", "balanced", "edge"]
PROFILES: dict[Profile, Precision] = {"quality": "fp16", "balanced": "fp8", "edge": "int8"}

BACKBONES = frozenset({"peripheral", "foveal"})
_CPU = "ort-cpu"


@dataclass(frozen=True)
class Plan:
    """``number_format``: of the products in ``regions``, None for none. ``half``: whether everything else that fits computes in
    float16. ``pins``: regions and modules that match one of these stay float32."""

    number_format: NumberFormat | None = None
    regions: frozenset[str] = frozenset()
    half: bool = False
    pins: tuple[re.Pattern[str], ...] = ()
    result_too: bool = False

    @property
    def sixteens(self) -> bool:
        """Whether products need channels in sixteens."""
        return self.number_format is not None and self.number_format.name == "fp8"

    def is_pinned(self, region: str, module: str) -> bool:
        """Whether the user wants a node of this region and module left alone."""
        return any(pattern.search(word) for pattern in self.pins for word in (region, module))


def plan_for(
    precision: Precision,
    backend: str,
    profile: Profile | None = None,
    pins: Sequence[str] = (),
    regions: Collection[str] | None = None,
) -> Plan | None:
    """The plan of a precision, or of a ``profile``, whose precision it then is; None for fp32, which changes nothing.

    ``regions``: rounded to eight bits in place of those of the profile. Raises UsageError for a pattern that is none.
    """
    patterns = tuple(map(_pattern, pins))
    if precision == "fp32":
        return None
    if precision == "fp16":
        return Plan(half=True, pins=patterns)
    on_cpu = backend == _CPU
    number_format = FORMATS["fp8" if precision == "fp8" else "uint8" if on_cpu else "int8"]
    chosen = frozenset({"foveal"}) if profile == "balanced" else BACKBONES
    # On a CPU float16 is slower than float32, so edge leaves the rest as it is there.
    half = profile == "balanced" or (profile == "edge" and not on_cpu)
    result_too = precision == "int8" and on_cpu
    return Plan(number_format, frozenset(chosen if regions is None else regions), half, patterns, result_too)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--pin {text}: not a regular expression ({error}).", "Name a region, say --pin foveal.") from error
