"""The passes int8 and fp8 on the shipped model, in every flavour: what was promised, read off the graphs that they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.backends.ort import OrtSession, open_session, session_options
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.parity.outputs import forcing_bonus
from apex_runtime.precision import convert as convert_module
from apex_runtime.precision.convert import Conversion, Converted, convert
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.pinned import PINNED
from apex_runtime.precision.plan import Plan, Precision, Profile, plan_for
from apex_runtime.precision.ranges import Calibration, Feeds, calibration_feeds, collect_ranges
from apex_runtime.precision.regions import NO_SCOPE, members, regions_of
from apex_runtime.precision.tensor_types import tensor_types

ASKED: dict[str, tuple[Precision, str, Profile | None]] = {
    "int8-cpu": ("int8", "ort-cpu", None),
    "int8-tensorrt": ("int8", "tensorrt", None),
    "fp8": ("fp8", "tensorrt", None),
    "balanced": ("fp8", "tensorrt-rtx", "balanced"),
    "edge-cpu": ("int8", "ort-cpu", "edge"),
    "edge-tensorrt": ("int8", "tensorrt", "edge"),
}
CODES = {"int8": TensorProto.INT8, "float8_e4m3fn": TensorProto.FLOAT8E4M3FN}
PRODUCTS = {"int8-cpu": 18, "int8-tensorrt": 22, "fp8": 22, "balanced": 11, "edge-cpu": 18, "edge-tensorrt": 22}


def plan(name: str, *pins: str) -> Plan:
    precision, backend, profile = ASKED[name]
    found = plan_for(precision, backend, profile, pins)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def feeds(shipped: OnnxFile, repo_root: Path) -> list[Feeds]:
    """Two of the samples; others are looked at."""
    images = precision_data(repo_root / "engines" / "samples").calibration
    return list(calibration_feeds(images[::3], shipped.info))


@pytest.fixture(scope="module")
def calibration(shipped: OnnxFile, feeds: list[Feeds]) -> Calibration:
    """Of everything that any of the plans asks for, in one go."""
    conversions = [Conversion(shipped.model, plan(name)) for name in ASKED]
    watched = dict.fromkeys(tensor for item in conversions for tensor in item.watched)
    rounded = dict.fromkeys(tensor for item in conversions for tensor in item.placement.tensors)
    return collect_ranges(shipped.model, watched, feeds, rounded)


@pytest.fixture(scope="module")
def results(shipped: OnnxFile, calibration: Calibration) -> dict[str, Converted]:
    return {name: Conversion(shipped.model, plan(name)).finish(calibration) for name in ASKED}


@pytest.fixture(params=sorted(ASKED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def converted(results: dict[str, Converted], name: str) -> Converted:
    return results[name]


def test_functions_inputs_outputs_and_metadata_are_those_of_before(converted: Converted, shipped: OnnxFile) -> None:
    before, after = shipped.model, converted.model
    onnx.checker.check_model(after, full_check=True)
    assert [item.SerializeToString(deterministic=True) for item in before.functions] == [
        item.SerializeToString(deterministic=True) for item in after.functions
    ]
    assert len(after.functions) == 3 and {node.op_type for node in after.graph.node} >= {item.name for item in after.functions}
    for field in ("input", "output"):
        assert list(getattr(before.graph, field)) == list(getattr(after.graph, field))
    assert before.metadata_props == after.metadata_props and before.opset_import == after.opset_import


def test_names_are_unique_and_nobody_reads_what_is_not_there(converted: Converted) -> None:
    graph = converted.model.graph
    names = [node.name for node in graph.node]
    tensors = [output for node in graph.node for output in node.output] + [item.name for item in graph.initializer]
    assert all(len(items) == len(set(items)) for items in (names, [item for item in tensors if item]))


def test_each_tensor_is_rounded_at_most_once(converted: Converted) -> None:
    rounders = [node for node in converted.model.graph.node if node.op_type == "QuantizeLinear"]
    assert len({node.input[0] for node in rounders}) == len(rounders) > 10
    made = {output: node.op_type for node in converted.model.graph.node for output in node.output}
    assert not [node for node in rounders if made[node.input[0]] == "DequantizeLinear"], "nor rounded anew behind a rounding"


def test_pinned_regions_are_untouched_bit_for_bit(converted: Converted, shipped: OnnxFile) -> None:
    """Node by node with its weights, here by plain comparison; casts back to float32 are all that may stand before them."""
    check_equal(shipped.model, converted.model, [name for name, region in regions_of(shipped.model).items() if _is_full(region)])


def _is_full(region: str) -> bool:
    return PINNED.get(region) == "float32" or region == NO_SCOPE


def check_equal(before: onnx.ModelProto, after: onnx.ModelProto, names: Sequence[str]) -> None:
    nodes = {node.name: node for node in after.graph.node}
    weights = [{item.name: item for item in model.graph.initializer} for model in (before, after)]
    made = {output: node for node in after.graph.node for output in node.output}
    old = {node.name for node in before.graph.node}
    assert names
    for node in before.graph.node:
        if node.name not in names:
            continue
        twin = nodes[node.name]
        assert (node.op_type, list(node.attribute), list(node.output)) == (twin.op_type, list(twin.attribute), list(twin.output))
        for first, second in zip(node.input, twin.input, strict=True):
            if first in weights[0]:
                assert weights[0][first].SerializeToString() == weights[1][second].SerializeToString()
            elif first != second:
                cast = made[second]
                assert cast.op_type == "Cast" and cast.name not in old and cast.attribute[0].i == TensorProto.FLOAT
                assert cast.input[0].removesuffix(".float16") == first


def test_every_decision_is_borne_out_by_the_graph(converted: Converted, shipped: OnnxFile, name: str) -> None:
    assert [item.node for item in converted.decisions] == [node.name for node in shipped.model.graph.node]
    types = tensor_types(converted.model)
    nodes = {node.name: node for node in converted.model.graph.node}
    made = {output: node for node in converted.model.graph.node for output in node.output}
    for item in converted.decisions:
        node = nodes[item.node]
        behind = [made[name] for name in node.input if name in made and made[name].op_type == "DequantizeLinear"]
        assert bool(behind) == ("rounded, " in item.reason), item
        if item.precision in CODES:
            dynamic = [tensor for tensor in node.input if tensor in made]
            assert len(behind) == len(dynamic) >= (2 if item.op in ("Conv", "Add") else 1), item
            allowed = {CODES[item.precision]} | ({TensorProto.UINT8} if name.endswith("cpu") else set())
            assert {types[rounder.input[0]] for rounder in behind} <= allowed, item
            assert all(types[tensor] in allowed for rounder in behind for tensor in rounder.input[2:])
            continue
        found = {types.get(tensor) for tensor in (*node.input, *node.output)}
        assert (TensorProto.FLOAT16 in found) == (item.precision == "float16"), item
        assert (TensorProto.FLOAT in found) <= (item.precision == "float32" or item.op == "Resize"), item
    counts = Counter(item.precision for item in converted.decisions if item.op == "Conv")
    assert counts[{"fp8": "float8_e4m3fn", "balanced": "float8_e4m3fn"}.get(name, "int8")] == PRODUCTS[name]
    rounded = {item.region for item in converted.decisions if item.precision in CODES}
    assert rounded == ({"foveal"} if name == "balanced" else {"peripheral", "foveal"})
    assert (counts["float16"] > 20) == (name in ("balanced", "edge-tensorrt"))


def test_nothing_that_looks_at_all_of_its_input_in_eight_bits_is_called_float(converted: Converted, shipped: OnnxFile) -> None:
    """A product with rounded weights is always reported."""
    rounded = {
        node.name
        for node in converted.model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1].endswith(".rounded")
    }
    assert rounded == {
        item.node for item in converted.decisions if item.op in ("Conv", "Gemm", "MatMul") and item.precision in CODES
    }


def test_the_graph_runs_and_says_almost_the_same_on_the_same_tiles(
    converted: Converted, name: str, shipped_path: Path, shipped: OnnxFile, repo_root: Path, tmp_path: Path
) -> None:
    """An image that was not calibrated on, ten forced tiles of 16 or more."""
    onnx.save(converted.model, tmp_path / "m.onnx")
    before, after = OrtSession(shipped_path, 1), OrtSession(tmp_path / "m.onnx", 1)
    image = precision_data(repo_root / "engines" / "samples").calibration[1:2]
    images = next(iter(calibration_feeds(image, shipped.info)))["images"]
    count = shipped.info.tiles.count
    chosen = np.arange(0, count, max(1, count // 10))
    bonus = forcing_bonus(chosen, count)
    first, second = (session.run(images, len(chosen), bonus) for session in (before, after))
    for key in ("tile_ids", "tile_levels"):
        np.testing.assert_array_equal(first[key], second[key])
    np.testing.assert_array_equal(np.sort(first["tile_ids"][0]), chosen)
    for key in ("utilities", "mask_prototypes"):
        error = np.linalg.norm(second[key] - first[key]) / np.linalg.norm(first[key])
        assert error < 0.1, (key, error)
        if key == "mask_prototypes":
            assert error > 1e-3, "something was rounded"
    assert np.abs(np.sort(second["scores"]) - np.sort(first["scores"])).mean() < 0.03


def executed(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    open_session(folder, model.SerializeToString(), options, ["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def test_onnxruntime_computes_every_product_and_sum_in_eight_bits(results: dict[str, Converted], tmp_path: Path) -> None:
    """In the graph that it makes of ours, node for node: none fell back to float."""
    converted = results["int8-cpu"]
    nodes = executed(converted.model, tmp_path).graph.node
    for op, kernel in (("Conv", "QLinearConv"), ("Add", "QLinearAdd")):
        wanted = {item.node for item in converted.decisions if item.op == op and item.precision == "int8"}
        found = {node.name.split("_token_")[0] for node in nodes if node.op_type == kernel}  # it numbers what it replaces
        assert found == wanted and len(wanted) >= 5


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        ("int8-cpu", "peripheral"),
        ("int8-tensorrt", r"^detector\.foveal\.middle\.0\b"),
        ("fp8", "peripheral"),
        ("balanced", r"^detector\.foveal\.middle\.0\b"),
        ("edge-cpu", "foveal|neck"),
        ("edge-tensorrt", "peripheral"),
    ],
)
def test_what_the_user_pins_stays_bit_for_bit(shipped: OnnxFile, calibration: Calibration, name: str, pin: str) -> None:
    conversion = Conversion(shipped.model, plan(name, pin))
    missing = set(conversion.placement.tensors) - calibration.quantised.keys()
    assert not missing, "a pin only takes away"
    converted = conversion.finish(calibration)
    check_equal(shipped.model, converted.model, list(conversion.pinned))
    kept = {item.precision for item in converted.decisions if item.node in conversion.pinned}
    assert kept <= {"float32", "integer"}
    assert any(item.precision in CODES for item in converted.decisions), "and the rest is rounded as before"
    floats = [item for item in converted.decisions if item.node in conversion.pinned and item.precision == "float32"]
    assert "pinned by --pin" in {item.reason for item in floats} and all("pinned" in item.reason for item in floats)


def test_a_pin_that_matches_nothing_lists_the_regions(shipped: OnnxFile) -> None:
    with pytest.raises(UsageError, match=r"--pin fovael: no region and no module matches") as caught:
        Conversion(shipped.model, plan("int8-cpu", "foveal", "fovael"))
    for region in members(regions_of(shipped.model)):
        assert region in caught.value.remedy


Fault = Callable[[onnx.ModelProto, onnx.ModelProto], None]


def round_the_router(_original: onnx.ModelProto, changed: onnx.ModelProto) -> None:
    node = next(item for item in changed.graph.node if "log" in item.output)
    constants = (("s", np.float32(0.1)), ("z", np.int8(0)))
    changed.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), key) for key, value in constants)
    place = [item.name for item in changed.graph.node].index(node.name)
    source = node.input[0]
    node.input[0] = "dq"
    changed.graph.node.insert(place, helper.make_node("QuantizeLinear", [source, "s", "z"], ["q"], name="q"))
    changed.graph.node.insert(place + 1, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], name="dq"))


def scale_a_pinned_weight(original: onnx.ModelProto, changed: onnx.ModelProto) -> None:
    foveal = members(regions_of(original))["foveal"]
    pinned = next(item for item in original.graph.node if item.op_type == "Conv" and item.name in foveal)
    weight = next(item for item in changed.graph.initializer if item.name == pinned.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))


@pytest.mark.parametrize(("fault", "words"), [(round_the_router, "router"), (scale_a_pinned_weight, "foveal.*another weight")])
def test_a_pass_that_touches_a_pin_fails(
    shipped: OnnxFile, calibration: Calibration, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: str
) -> None:
    honest = convert_module.with_rounded_nodes

    def faulty(model: onnx.ModelProto, original: onnx.ModelProto, *rest: object) -> onnx.ModelProto:
        changed = honest(model, original, *rest)  # type: ignore[arg-type]
        fault(original, changed)
        return changed

    conversion = Conversion(shipped.model, plan("int8-tensorrt", "foveal"))
    conversion.finish(calibration)
    monkeypatch.setattr(convert_module, "with_rounded_nodes", faulty)
    with pytest.raises(ModelError, match=words) as caught:
        conversion.finish(calibration)
    assert caught.value.code == "pinned_region_touched"


def test_another_method_cuts_ranges(shipped: OnnxFile, feeds: list[Feeds]) -> None:
    found = convert(shipped.model, plan("int8-cpu"), feeds[:1], "percentile").calibration
    assert found.method == "percentile"
    whole = collect_ranges(shipped.model, [], feeds[:1], list(found.quantised)).quantised
    cut = [key for key, item in found.quantised.items() if item.magnitude < 0.999 * whole[key].magnitude]
    assert len(cut) > 3, "else the method did nothing"


def test_without_an_image_there_is_nothing_to_go_by(shipped: OnnxFile) -> None:
    with pytest.raises(UsageError, match="no images"):
        convert(shipped.model, plan("int8-cpu"), [])
