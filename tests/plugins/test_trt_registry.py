"""The TensorRT plugins against NVIDIA's own bindings and registry, and every fault that the contract is there for.

TensorRT's template asks a plugin here what it asks while it builds: types, shapes, type combinations, the launch. The answers are
held against the references, against the launches of the torch binding, and against the parameters of the compiled kernel.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tensorrt_stub import registry

from apex_plugins.catalogue import FOLDERS, specs
from apex_plugins.decode_nms import launch as nms
from apex_plugins.kernels.launch import Launch
from apex_plugins.kernels.nvcc import find_toolkit
from apex_plugins.kernels.reasons import KernelError
from apex_plugins.tile_pack import launch as pack
from apex_plugins.tile_ssm_scan import launch as scan
from apex_plugins.tile_unpack_fusion import launch as unpack

pytestmark = pytest.mark.skipif(bool(registry.why_not()), reason=registry.why_not() or "nothing is missing")

B, K = 3, 5  # known at run time only
ADDRESS = 1 << 20  # TensorRT aligns its tensors
LETTERS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
Case = tuple[str, str, list[list[int]], dict[str, Any]]

CASES: list[Case] = [
    *(
        ("tile_pack", dtype, [[B, 3, 64, 96], [B, tiles], [B, tiles]], {"tile": 32, "halo": halo})
        for dtype, tiles, halo in (("float32", K, 8), ("float16", 1, 0), ("bfloat16", K, 16), ("float32", 0, 8))
    ),
    *(
        ("tile_ssm_scan", dtype, [[B, K, 2, p], [B, K, 2], [2], [B, K, s], [B, K, s], [2]], {"reverse": reverse})
        for dtype, p, s, reverse in (("float32", 32, 16, 0), ("float16", 30, 7, 1), ("bfloat16", 8, 128, 1))
    ),
    *(
        (
            "tile_unpack_fusion",
            dtype,
            [[B, c, 2 * n, 3 * n], [B, tiles, c, n, n], [B, tiles], [B, tiles], [B, tiles, 1, n, n]],
            {"tile": 8 * n},
        )
        for dtype, tiles, c, n in (("float32", K, 16, 16), ("float16", K, 3, 6), ("bfloat16", 0, 8, 1))
    ),
    *(
        (
            "decode_nms",
            dtype,
            [[B, 84, classes], [B, 84, 4], [84, 2], [84]],
            {"max_detections": 300, "pre_nms": 333, "score": 0.001, "iou": 0.6},
        )
        for dtype, classes in (("float32", 1), ("float16", 80))
    ),
]


def name_of(case: Case) -> str:
    return f"{case[0]}-{case[1]}-{'x'.join(map(str, case[2][0]))}"


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensorrt-stubs")
    registry.build_stubs(folder)
    return folder


@pytest.fixture(scope="session")
def told(stubs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``describe.py`` printed of all cases."""
    try:
        find_toolkit()
    except KernelError as error:
        pytest.skip(f"{error.reason}: {error.message}")
    path = tmp_path_factory.mktemp("cases") / "cases.json"
    path.write_text(json.dumps([_symbolic(case) for case in CASES]), encoding="utf-8")
    return json.loads(registry.run(stubs, "describe.py", str(path)))


def input_types(case: Case) -> list[str]:
    """The type of every input: boxes are decoded in float32 whatever the scores are in."""
    types = ["int64" if kind == "int64" else case[1] for kind in specs()[case[0]].inputs.values()]
    return types if case[0] != "decode_nms" else [types[0], "float32", "float32", "float32"]


# How many leading axes of an input are known at run time only, where not the batch alone: the number of tiles, or none at all.
_RUN_TIME_AXES = dict.fromkeys(("x", "dt", "Bm", "Cm", "tiles", "ids", "levels", "alpha"), 2)
_RUN_TIME_AXES |= dict.fromkeys(("A", "D", "centres", "strides"), 0)


def _symbolic(case: Case) -> dict[str, Any]:
    folder, _, shapes, attributes = case
    inputs = [
        [[size, axis >= _RUN_TIME_AXES.get(name, 1)] for axis, size in enumerate(shape)]
        for name, shape in zip(specs()[folder].inputs, shapes, strict=True)
    ]
    return {"folder": folder, "types": input_types(case), "inputs": inputs, "attributes": attributes}


def test_every_op_is_registered_as_it_describes_itself(told: dict[str, Any]) -> None:
    ours = [creator for creator in told["creators"] if creator["namespace"] == "apex"]
    kinds = {int: "INT64", float: "FLOAT64"}
    wanted = [
        {
            "name": spec.name,
            "namespace": "apex",
            "version": "1",
            "fields": {name: kinds[kind] for name, kind in spec.attributes.items()},
        }
        for spec in specs().values()
    ]
    assert sorted(ours, key=lambda item: item["name"]) == sorted(wanted, key=lambda item: item["name"])
    assert told["implementations"] == dict.fromkeys(FOLDERS, "plan")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_shapes_and_types_are_those_of_the_reference(told: dict[str, Any], case: Case) -> None:
    folder, dtype, shapes, attributes = case
    answer = told["answers"][CASES.index(case)]
    reference = importlib.import_module(f"apex_plugins.{folder}.reference")
    said = {"tile_pack": (tuple(shapes[1]), attributes.get("tile"), attributes.get("halo"))}
    said["decode_nms"] = (attributes.get("max_detections"),)
    wanted = reference.output_shape(tuple(shapes[0]), *said.get(folder, ()))
    assert [tuple(shape) for shape in answer["shapes"]] == list(wanted if isinstance(wanted[0], tuple) else (wanted,))
    assert answer["types"] == (["float32", dtype, "int64", "int64"] if folder == "decode_nms" else [dtype])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_types_of_a_case_are_a_combination_that_is_offered(told: dict[str, Any], case: Case) -> None:
    answer = told["answers"][CASES.index(case)]
    assert [*input_types(case), *answer["types"]] in answer["combinations"]
    kinds = [*specs()[case[0]].inputs.values(), *specs()[case[0]].outputs.values()]
    for row in answer["combinations"]:
        assert [kind == "int64" for kind in row] == [kind == "int64" for kind in kinds]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_launch_is_that_of_the_torch_binding(told: dict[str, Any], case: Case) -> None:
    said, wanted = told["answers"][CASES.index(case)]["launch"], EXPECTED[case[0]](case)
    assert (said["kernel"], said["shared"], tuple(said["block"])) == (wanted.kernel, wanted.shared_bytes, wanted.block)
    assert tuple(said["grid"]) == tuple(max(side, 1) for side in wanted.grid)
    assert said["extra"] == numbers(wanted)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_compiled_kernel_takes_what_tensorrt_passes(told: dict[str, Any], case: Case) -> None:
    """A pointer per input, 32-bit numbers, a pointer per output: one too many and a kernel reads what is not there."""
    spec, said = specs()[case[0]], told["answers"][CASES.index(case)]["launch"]
    count = len(said["extra"])
    floats = sum(kind is float for kind in spec.attributes.values())
    between = ["u32"] * (count - floats) + ["f32"] * floats
    assert said["parameters"] == ["u64"] * len(spec.inputs) + between + ["u64"] * len(spec.outputs)


def numbers(launch: Launch) -> list[int]:
    """The scalars of a launch, floats as their bits."""
    bits = [struct.unpack("<i", bytes(item))[0] for item in launch.arguments if not isinstance(item, ctypes.c_void_p)]
    return list(bits)


def _pack(case: Case) -> Launch:
    kind, (image, ids, _) = LETTERS[case[1]], case[2]
    return pack.launch(*[ADDRESS] * 4, types=(kind, kind), shape=tuple(image), tiles=ids[1], **case[3])  # type: ignore[arg-type]


def _scan(case: Case) -> Launch:
    x, bm = case[2][0], case[2][3]
    kind, shape = LETTERS[case[1]], tuple(x)
    return scan.launch([ADDRESS] * 6, ADDRESS, kind=kind, shape=shape, states=bm[2], reverse=bool(case[3]["reverse"]))  # type: ignore[arg-type]


def _unpack(case: Case) -> Launch:
    """The kernel for whole maps takes what the other takes; its grid counts all tiles and not only the chosen ones."""
    base, ids, kind, cells = case[2][0], case[2][2], LETTERS[case[1]], case[3]["tile"] // 8
    chosen = unpack.launch(*[ADDRESS] * 6, kind=kind, shape=tuple(base), tiles=ids[1], cells=cells)  # type: ignore[arg-type]
    every = unpack.launch(*[ADDRESS] * 6, kind=kind, shape=tuple(base), tiles=6, cells=cells)  # type: ignore[arg-type]
    return Launch(unpack.whole_kernel_name(kind), every.grid, chosen.block, chosen.shared_bytes, chosen.arguments)


def _nms(case: Case) -> Launch:
    geometry = nms.Geometry(ADDRESS, ADDRESS, ADDRESS)
    shape = tuple(case[2][0])
    return nms.launch_alone(
        ADDRESS,
        geometry,
        [ADDRESS] * 4,
        kind=LETTERS[case[1]],
        shape=shape,
        settings=nms.Settings(**case[3]),  # type: ignore[arg-type]
    )


EXPECTED: dict[str, Callable[[Case], Launch]] = {
    "tile_pack": _pack,
    "tile_ssm_scan": _scan,
    "tile_unpack_fusion": _unpack,
    "decode_nms": _nms,
}


@pytest.fixture(scope="session")
def tile_pack_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that calls TilePack, with a body for it."""
    node = helper.make_node(
        "TilePack", ["image"], ["tiles"], domain="apex", tile=16, halo=8, plugin_namespace="apex", plugin_version="1"
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("apex", 1)]
    copy = helper.make_node("Identity", ["image"], ["tiles"])
    body = helper.make_function("apex", "TilePack", ["image"], ["tiles"], [copy], opsets[:1], ["tile", "halo"])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])
    tiles = helper.make_tensor_value_info("tiles", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "one", [image], [tiles]), opset_imports=opsets, functions=[body])
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("fault", "build", "load", "words"),
    [
        ("none", [["body", "nvcc_not_found"]], "plugin_not_registered", "no plugin of that name"),
        ("fits", [["registry", ""]], None, ""),
        ("version", "plugin_version_mismatch", "plugin_version_mismatch", "registered as version 2, expected 1"),
        ("namespace", "plugin_namespace_mismatch", "plugin_namespace_mismatch", "in the namespace 'else', not in 'apex'"),
        ("missing field", "plugin_fields_mismatch", "plugin_fields_mismatch", "halo is missing"),
        ("foreign field", "plugin_fields_mismatch", "plugin_fields_mismatch", "pad is not of the op"),
        ("type of a field", "plugin_fields_mismatch", "plugin_fields_mismatch", "halo is float, expected int"),
    ],
)
def test_a_planted_fault_is_refused_with_its_code(
    stubs: Path, tile_pack_model: Path, tmp_path: Path, fault: str, build: Any, load: str | None, words: str
) -> None:
    """Without nvcc, so that no plugin of ours stands beside the planted one."""
    told = json.loads(registry.run(stubs, "faults.py", fault, str(tile_pack_model), CUDA_HOME=str(tmp_path)))
    assert told["build"] == build or told["build"]["code"] == build
    assert told["load"] == [None] if load is None else told["load"]["code"] == load
    refusals = [answer for answer in told.values() if isinstance(answer, dict)]
    assert all(words in answer["message"] and answer["remedy"] for answer in refusals)
    assert len(refusals) == 2 or fault in ("none", "fits")


def test_the_default_engine_is_built_from_plugins_alone(told: dict[str, Any], stubs: Path, repo_root: Path) -> None:
    """What the exporter writes on a node is what the plugin of that name takes; ``told`` says that there is a compiler."""
    answers = json.loads(registry.run(stubs, "faults.py", "none", str(repo_root / "engines" / "nuclei-nano" / "model.onnx")))
    assert set(map(tuple, answers["build"])) == {("plan", "")} and len(answers["build"]) >= 3
    assert set(answers["load"]) == {None}
