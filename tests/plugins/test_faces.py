"""Every op through every face that this machine can run: NumPy reference, torch formula, torch custom op, ONNX body, kernel.

The kernels run on this processor by their host faces, and on a GPU; what is missing here is skipped with its reason code.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from kernel_faces import HOST_FACES, NUMPY_TYPES, TOLERANCES, cuda_face, host_decode_nms

from apex_plugins.spec import DOMAIN
from apex_train.export.ops import FOLDERS, load_ops

# Gathers copy numbers and must be exact; the others compute in float32 in another order than the float64 reference.
TOLERANCE = {"tile_pack": 0.0, "tile_ssm_scan": 3e-5, "tile_unpack_fusion": 1e-6, "decode_nms": 0.0}
SEEDS = range(25)
# onnx's own evaluator is slow, and its GatherElements fails beyond 64 columns: for it the smallest cases only.
SMALL_SEEDS = {folder: SEEDS[:4] for folder in FOLDERS} | {"decode_nms": (2, 3, 5, 18, 27)}


def run_face(face, folder, inputs, attributes, run_body):
    if face.startswith("body"):
        return run_body(folder, inputs, attributes, engine=face.split("-")[1])
    tensors = [torch.from_numpy(v.astype(np.float32) if v.dtype.kind == "f" else v) for v in inputs.values()]
    op = load_ops()[folder].overload if face == "torch-op" else getattr(module(folder, "torch_op"), folder)
    result = op(*tensors, *attributes.values())
    return [item.numpy() for item in (result if isinstance(result, tuple) else (result,))]


def module(folder, face):
    return importlib.import_module(f"apex_plugins.{folder}.{face}")


def single(inputs):
    """Inputs rounded to float32, in float64: what the other faces see, computed without their rounding."""
    return {k: v.astype(np.float32).astype(np.float64) if v.dtype.kind == "f" else v for k, v in inputs.items()}


@pytest.mark.parametrize("face", ["torch", "torch-op", "body-ort", "body-onnx"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_face_equals_the_reference(folder, face, make_case, run_body):
    for seed in SEEDS if face != "body-onnx" else SMALL_SEEDS[folder]:
        inputs, attributes = make_case(folder, seed)
        if folder == "decode_nms":
            # Its comparisons (score and IoU > threshold) are part of the result, so the reference makes them in float32 too.
            inputs = {k: v.astype(np.float32) for k, v in inputs.items()}
            expected = module(folder, "reference").decode_nms(*inputs.values(), **attributes)
        else:
            expected = (getattr(module(folder, "reference"), folder)(*single(inputs).values(), **attributes),)
        for wanted, got in zip(expected, run_face(face, folder, inputs, attributes, run_body), strict=True):
            assert got.shape == wanted.shape, (seed, attributes)
            assert got.dtype == (np.int64 if wanted.dtype == np.int64 else np.float32)
            scale = max(1.0, float(np.abs(wanted).max(initial=0)))
            np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[folder] * scale, err_msg=f"seed {seed} {attributes}")


@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("face", ["host", "cuda"])
@pytest.mark.parametrize("folder", HOST_FACES)
def test_kernel_equals_the_reference(folder, face, kind, make_case):
    for seed in SEEDS:
        inputs, attributes = make_case(folder, seed)
        narrow = {k: v.astype(NUMPY_TYPES[kind]) if v.dtype.kind == "f" else v for k, v in inputs.items()}
        wide = {k: v.astype(np.float64) if v.dtype == NUMPY_TYPES[kind] else v for k, v in narrow.items()}
        expected = getattr(module(folder, "reference"), folder)(*wide.values(), **attributes)
        found = cuda_face(folder, narrow, attributes) if face == "cuda" else HOST_FACES[folder](narrow, attributes)
        got = (found[0] if isinstance(found, tuple) else found).astype(np.float64)
        largest = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES[kind] * largest, err_msg=f"seed {seed} {attributes}")


@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("face", ["host", "cuda"])
def test_detections_of_the_kernels_equal_those_of_the_reference(face, kind, make_case):
    for seed in SEEDS:
        inputs, attributes = make_case("decode_nms", seed)
        inputs = {k: v.astype(NUMPY_TYPES[kind] if k == "scores" else np.float32) for k, v in inputs.items()}
        expected = module("decode_nms", "reference").decode_nms(*inputs.values(), **attributes)
        got = cuda_face("decode_nms", inputs, attributes) if face == "cuda" else host_decode_nms(inputs, attributes)
        for wanted, found in zip(expected, got, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=f"seed {seed} {attributes}")


@pytest.mark.parametrize("folder", FOLDERS)
def test_descriptions_agree(folder):
    op = load_ops()[folder]
    assert op.function.domain == DOMAIN and op.function.name == op.spec.name
    assert list(op.function.input) == list(op.spec.inputs) and len(op.function.output) == len(op.spec.outputs)
    assert list(op.function.attribute) == list(op.spec.attributes)
    assert [(o.domain, o.version) for o in op.function.opset_import] == [("", 20)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_bodies_use_allowed_ops_only(folder):
    forbidden = {"NonZero", "If", "Loop", "Unique", "Compress", "NonMaxSuppression", "RoiAlign"}
    used = [node.op_type for node in load_ops()[folder].function.node]
    assert not forbidden & set(used)
    assert used.count("Scan") == (1 if folder == "decode_nms" else 0)


@pytest.mark.parametrize("folder", FOLDERS)
def test_custom_op_is_well_formed(folder, make_case):
    """torch's own check: the fake kernel gives the shapes and types of the real one, also for symbolic sizes."""
    inputs, attributes = make_case(folder, 3)
    tensors = [torch.from_numpy(v.astype(np.float32) if v.dtype.kind == "f" else v) for v in inputs.values()]
    torch.library.opcheck(
        load_ops()[folder].overload, (*tensors, *attributes.values()), test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_stated_output_shapes(folder, make_case):
    inputs, attributes = make_case(folder, 7)
    reference = module(folder, "reference")
    shapes = {name: value.shape for name, value in inputs.items()}
    result = getattr(reference, folder)(*inputs.values(), **attributes)
    stated = {
        "tile_pack": lambda: reference.output_shape(shapes["image"], shapes["ids"], **attributes),
        "tile_ssm_scan": lambda: reference.output_shape(shapes["x"]),
        "tile_unpack_fusion": lambda: reference.output_shape(shapes["base"]),
        "decode_nms": lambda: reference.output_shape(shapes["scores"], attributes["max_detections"]),
    }[folder]()
    assert stated == (tuple(item.shape for item in result) if isinstance(result, tuple) else result.shape)


@pytest.mark.parametrize("face", ["torch", "torch-op", "body-ort"])
@pytest.mark.parametrize("folder", ["tile_pack", "tile_unpack_fusion"])
def test_a_level_may_have_no_tiles(folder, face, make_case, run_body):
    """K = 0 is what ``tiles_1 = 0`` asks of the finer levels."""
    inputs, attributes = make_case(folder, 5)
    inputs |= {name: inputs[name][:, :0] for name in ("ids", "levels", "tiles", "alpha") if name in inputs}
    expected = getattr(module(folder, "reference"), folder)(*single(inputs).values(), **attributes)
    (got,) = run_face(face, folder, inputs, attributes, run_body)
    np.testing.assert_array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize("depth", [2, 3])
def test_levels_cut_the_same_pixels(depth):
    """The definition of ids per level: the four children of a tile, put together, are the pixels of the tile."""
    pack = module("tile_pack", "reference").tile_pack
    image = np.random.default_rng(0).random((1, 3, 128, 192))
    for level in range(depth - 1):
        side, cols = 16 << (depth - 1 - level), 192 // (16 << (depth - 1 - level))
        row, col = 1, 2
        here = np.array([[row * cols + col]])
        kids = np.array([[(2 * row + i) * 2 * cols + 2 * col + j for i in (0, 1) for j in (0, 1)]])
        whole = pack(image, here, np.full_like(here, level), tile=side, halo=0)[0, 0]
        parts = pack(image, kids, np.full_like(kids, level + 1), tile=side // 2, halo=0)[0]
        top, bottom = np.concatenate(parts[:2], axis=2), np.concatenate(parts[2:], axis=2)
        np.testing.assert_array_equal(whole, np.concatenate([top, bottom], axis=1))


def test_finer_overrides_coarser_on_unpack():
    fuse = module("tile_unpack_fusion", "reference").tile_unpack_fusion
    base = np.zeros((1, 1, 4, 8))
    coarse = fuse(base, np.full((1, 1, 1, 4, 4), 1.0), np.array([[1]]), np.array([[0]]), np.ones((1, 1, 1, 4, 4)), tile=32)
    merged = fuse(coarse, np.full((1, 1, 1, 2, 2), 5.0), np.array([[2]]), np.array([[1]]), np.ones((1, 1, 1, 2, 2)), tile=16)
    expected = np.zeros((4, 8))
    expected[:, 4:] = 1
    expected[:2, 4:6] = 5
    np.testing.assert_array_equal(merged[0, 0], expected)
