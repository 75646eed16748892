"""What precisions and profiles ask of the passes, on which backend."""

from __future__ import annotations

import pytest

from apex_runtime.errors import UsageError
from apex_runtime.precision.number_formats import FORMATS
from apex_runtime.precision.plan import BACKBONES, PROFILES, Plan, Precision, Profile, plan_for


@pytest.mark.parametrize("backend", ["ort-cpu", "ort-cuda", "tensorrt", "tensorrt-rtx"])
def test_fp32_changes_nothing_and_fp16_rounds_nothing(backend: str) -> None:
    assert plan_for("fp32", backend) is None
    assert plan_for("fp16", backend) == plan_for("fp16", backend, "quality") == Plan(half=True)


@pytest.mark.parametrize(
    ("precision", "profile", "backend", "number_format", "regions", "half", "result_too"),
    [
        ("int8", None, "ort-cpu", "uint8", BACKBONES, False, True),
        ("int8", None, "ort-cuda", "int8", BACKBONES, False, False),
        ("int8", None, "tensorrt", "int8", BACKBONES, False, False),
        ("fp8", None, "ort-cpu", "fp8", BACKBONES, False, False),
        ("fp8", None, "tensorrt-rtx", "fp8", BACKBONES, False, False),
        ("fp8", "balanced", "ort-cpu", "fp8", {"foveal"}, True, False),
        ("fp8", "balanced", "tensorrt", "fp8", {"foveal"}, True, False),
        ("int8", "edge", "ort-cpu", "uint8", BACKBONES, False, True),
        ("int8", "edge", "tensorrt-rtx", "int8", BACKBONES, True, False),
    ],
)
def test_each_backend_gets_the_flavour_that_it_is_fast_in(
    precision: Precision,
    profile: Profile | None,
    backend: str,
    number_format: str,
    regions: frozenset[str],
    half: bool,
    result_too: bool,
) -> None:
    plan = plan_for(precision, backend, profile)
    assert plan is not None and plan.number_format is not None
    assert (plan.number_format.name, plan.regions, plan.half, plan.result_too) == (number_format, regions, half, result_too)
    assert plan.sixteens == (number_format == "fp8") and plan.pins == ()


def test_profiles_name_their_precision() -> None:
    assert PROFILES == {"quality": "fp16", "balanced": "fp8", "edge": "int8"}


def test_regions_may_be_chosen() -> None:
    plan = plan_for("int8", "tensorrt", "edge", regions=["neck"])
    assert plan == Plan(FORMATS["int8"], frozenset(["neck"]), half=True)
    nothing = plan_for("int8", "tensorrt", regions=[])
    assert nothing is not None and nothing.regions == frozenset(), "none is a choice, too"


def test_pins_match_regions_and_modules_anywhere_in_the_name() -> None:
    plan = plan_for("fp16", "ort-cpu", pins=["^neck$", r"foveal\.middle"])
    assert plan is not None
    assert plan.is_pinned("neck", "") and plan.is_pinned("foveal", "detector.foveal.middle.0")
    assert not plan.is_pinned("necks", "detector.foveal.project")
    assert not Plan(half=True).is_pinned("neck", "detector.neck")


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--pin \(neck: not a regular expression"):
        plan_for("int8", "ort-cpu", pins=["foveal", "(neck"])
