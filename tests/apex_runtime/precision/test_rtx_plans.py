"""TensorRT for RTX takes every graph that the passes make, for every compute capability that has its number format; no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.backends.tensorrt_builder import FIRST_WITH_FP8, build_plans
from apex_runtime.precision.convert import Conversion
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.plan import Plan, Precision, Profile, plan_for
from apex_runtime.precision.ranges import Calibration, calibration_feeds, collect_ranges

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason='TensorRT for RTX is not installed: pip install ".[rtx]"',
)

ASKED: dict[str, tuple[Precision, Profile | None]] = {
    "fp16": ("fp16", None),
    "int8": ("int8", None),
    "fp8": ("fp8", None),
    "balanced": ("fp8", "balanced"),
    "edge": ("int8", "edge"),
}
OTHERS = (75, 86, 120, 121)  # beside 89, which comes first and for all of them


def plan(name: str) -> Plan:
    precision, profile = ASKED[name]
    found = plan_for(precision, "tensorrt-rtx", profile)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def calibration(shipped: OnnxFile, repo_root: Path) -> Calibration:
    images = precision_data(repo_root / "engines" / "samples").calibration[:1]
    conversions = [Conversion(shipped.model, plan(name)) for name in ASKED]
    watched = dict.fromkeys(tensor for item in conversions for tensor in item.watched)
    rounded = dict.fromkeys(tensor for item in conversions for tensor in item.placement.tensors)
    return collect_ranges(shipped.model, watched, calibration_feeds(images, shipped.info), rounded)


def built(shipped: OnnxFile, calibration: Calibration, name: str, capabilities: tuple[int, ...]) -> dict[int, int]:
    """Bytes of the plans by compute capability."""
    model = Conversion(shipped.model, plan(name)).finish(calibration).model
    file = OnnxFile(shipped.path, model.SerializeToString(deterministic=True), model, shipped.info)
    return {item.compute_capability: len(item.data) for item in build_plans(file, "tensorrt-rtx", capabilities)}


@pytest.mark.parametrize("name", sorted(ASKED))
def test_a_plan_for_sm89_is_built(shipped: OnnxFile, calibration: Calibration, name: str) -> None:
    assert built(shipped, calibration, name, (89,))[89] > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ASKED))
def test_plans_for_the_other_capabilities_are_built(shipped: OnnxFile, calibration: Calibration, name: str) -> None:
    wanted = tuple(number for number in OTHERS if number >= FIRST_WITH_FP8 or ASKED[name][0] != "fp8")
    found = built(shipped, calibration, name, wanted)
    assert tuple(found) == wanted and all(size > 1_000_000 for size in found.values())
