"""Random cases for every op, and a runner of function bodies, shared by the tests of the plugins."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from apex_plugins.spec import DOMAIN, MAX_DEPTH
from apex_train.export.ops import load_ops

Case = tuple[dict[str, np.ndarray], dict[str, Any]]


def _ids(rng: np.random.Generator, batch: int, tiles: int, count: int) -> np.ndarray:
    return np.stack([rng.permutation(count)[:tiles] for _ in range(batch)]).astype(np.int64)


def _levels(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """A call is of one level, whichever it is."""
    return np.full_like(ids, rng.integers(0, MAX_DEPTH))


def _grid(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """batch, rows, cols (rarely square) and K, which is often 1 or all."""
    batch, rows, cols = (int(rng.integers(1, top)) for top in (4, 5, 6))
    tiles = int(rng.choice([1, rows * cols, rng.integers(1, rows * cols + 1)]))
    return batch, rows, cols, tiles


def tile_pack_case(rng: np.random.Generator) -> Case:
    batch, rows, cols, tiles = _grid(rng)
    tile, halo = int(rng.choice([8, 16, 24])), int(rng.choice([0, 8, 16, 32]))
    image = rng.standard_normal((batch, 3, rows * tile, cols * tile))
    ids = _ids(rng, batch, tiles, rows * cols)
    return {"image": image, "ids": ids, "levels": _levels(rng, ids)}, {"tile": tile, "halo": halo}


def tile_ssm_scan_case(rng: np.random.Generator) -> Case:
    batch, tokens, heads, channels, state = (int(rng.integers(1, top)) for top in (4, 40, 4, 6, 6))
    inputs = {
        "x": rng.standard_normal((batch, tokens, heads, channels)),
        "dt": rng.exponential(1.0, (batch, tokens, heads)) * rng.choice([0.01, 1.0, 20.0]),
        "A": rng.standard_normal(heads),
        "Bm": rng.standard_normal((batch, tokens, state)),
        "Cm": rng.standard_normal((batch, tokens, state)),
        "D": rng.standard_normal(heads),
    }
    return inputs, {"reverse": int(rng.integers(0, 2))}


def tile_unpack_fusion_case(rng: np.random.Generator) -> Case:
    batch, rows, cols, tiles = _grid(rng)
    n, channels = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    ids = _ids(rng, batch, tiles, rows * cols)
    inputs = {
        "base": rng.standard_normal((batch, channels, rows * n, cols * n)),
        "tiles": rng.standard_normal((batch, tiles, channels, n, n)),
        "ids": ids,
        "levels": _levels(rng, ids),
        "alpha": rng.random((batch, tiles, 1, n, n)),
    }
    return inputs, {"tile": 8 * n}


def decode_nms_case(rng: np.random.Generator) -> Case:
    """Scores from a coarse grid (many ties) and boxes on integer corners (IoU ties), so that every rule of order is met."""
    batch, classes, side = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.choice([32, 64, 96]))
    strides = np.concatenate([np.full((side // s) ** 2, s) for s in (8, 16, 32)]).astype(np.float64)
    anchors = len(strides)
    inputs = {
        "scores": rng.integers(0, 12, (batch, anchors, classes)) / 12,
        "ltrb": rng.integers(0, 5, (batch, anchors, 4)).astype(np.float64),
        "centres": rng.integers(0, side, (anchors, 2)).astype(np.float64),
        "strides": strides,
    }
    attributes = {
        "max_detections": int(rng.choice([1, 10, 300])),
        "pre_nms": int(rng.choice([1, 20, 333])),
        "score": float(rng.choice([0.0, 0.3, 0.96])),
        "iou": float(rng.choice([0.0, 0.5, 0.7])),
    }
    return inputs, attributes


MAKERS: dict[str, Callable[[np.random.Generator], Case]] = {
    "tile_pack": tile_pack_case,
    "tile_ssm_scan": tile_ssm_scan_case,
    "tile_unpack_fusion": tile_unpack_fusion_case,
    "decode_nms": decode_nms_case,
}


@pytest.fixture(scope="session")
def make_case() -> Callable[[str, int], Case]:
    """make_case(folder, seed) -> (inputs float64 / int64, attributes)."""
    return lambda folder, seed: MAKERS[folder](np.random.default_rng(seed))


RANKS = {"image": 4, "ids": 2, "levels": 2, "tiles": 5, "x": 4, "dt": 3, "A": 1, "Bm": 3, "Cm": 3, "D": 1, "y": 4, "base": 4}
RANKS |= {"alpha": 5, "merged": 4, "scores": 3, "ltrb": 3, "centres": 2, "strides": 1, "boxes": 3, "best_scores": 2}
RANKS |= {"labels": 2, "candidate_ids": 2}


@cache
def _one_node_model(folder: str, attributes: tuple[tuple[str, Any], ...]) -> onnx.ModelProto:
    op = load_ops()[folder]
    kinds = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64}

    def infos(of: dict[str, str], prefix: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(prefix + name, kinds[kind], [None] * RANKS[name]) for name, kind in of.items()]

    names = [f"in_{name}" for name in op.spec.inputs], [f"out_{name}" for name in op.spec.outputs]
    node = helper.make_node(op.spec.name, *names, domain=DOMAIN, **dict(attributes), plugin_namespace=DOMAIN, plugin_version="1")
    graph = helper.make_graph([node], "one", infos(op.spec.inputs, "in_"), infos(op.spec.outputs, "out_"))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[op.function], ir_version=10)
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="session")
def run_body() -> Callable[..., list[np.ndarray]]:
    """run_body(folder, inputs, attributes, engine="ort" | "onnx") -> outputs of the function body, computed in float32."""
    import onnxruntime

    @cache
    def session(folder: str, attributes: tuple[tuple[str, Any], ...]) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        data = _one_node_model(folder, attributes).SerializeToString()
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(folder: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any], engine: str = "ort") -> list[np.ndarray]:
        key = tuple(attributes.items())
        feeds = {f"in_{name}": value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in inputs.items()}
        if engine == "onnx":
            return onnx.reference.ReferenceEvaluator(_one_node_model(folder, key)).run(None, feeds)
        return session(folder, key).run(None, feeds)

    return run
