"""What the ops are compared on: seeded inputs, in float64, by op and kind; the same on every machine.

Kinds: ``random`` (sizes and values drawn), ``odd`` (one row or column, K of 1 and of all, sizes that no vector instruction
likes), ``constant`` (every value the same, so that everything ties), ``extreme`` (numbers near the ends of what a type holds; of
the scan decays of 0 and of 1). What DecodeNMS decides by lies mostly on a grid that float16 holds exactly, so that float64
decides as any narrower type does, also where scores and IoUs tie; elsewhere no IoU lies within rounding of the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_plugins.decode_nms.reference import STRIDES
from apex_plugins.spec import MAX_DEPTH, TILE_CELL

KINDS = {"random": 6, "odd": 3, "constant": 2, "extreme": 3}  # how many of each
_SMALLEST, _LARGEST = 2.0**-14, 6.0e4  # normal numbers that float16 holds
Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class OpCase:
    """Inputs of one call in the order of the op's description, floats in float64, and its attributes."""

    name: str
    inputs: dict[str, np.ndarray]
    attributes: dict[str, Any]


def op_cases(folder: str) -> Iterator[OpCase]:
    """The cases of an op, named by its folder."""
    for kind, count in KINDS.items():
        for number in range(count):
            rng = np.random.default_rng([number, *kind.encode()])
            yield OpCase(f"{kind}-{number}", *_MAKERS[folder](rng, kind))


def _grid(rng: Rng, kind: str) -> tuple[int, int, int, int]:
    """Batch, rows, columns, K."""
    if kind == "odd":
        rows, cols = ((1, 5), (5, 1), (1, 1))[int(rng.integers(3))]
        return 1, rows, cols, int(rng.choice([1, rows * cols]))
    batch, rows, cols = int(rng.integers(1, 3)), int(rng.integers(2, 4)), int(rng.integers(2, 5))
    return batch, rows, cols, int(rng.integers(1, rows * cols + 1))


def _ids(rng: Rng, batch: int, count: int, tiles: int) -> dict[str, np.ndarray]:
    """Different tiles of one level, whichever it is: it changes nothing."""
    ids = np.stack([rng.permutation(count)[:tiles] for _ in range(batch)]).astype(np.int64)
    return {"ids": ids, "levels": np.full_like(ids, rng.integers(0, MAX_DEPTH))}


def _values(rng: Rng, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "constant":
        return np.full(shape, rng.standard_normal())
    values = rng.standard_normal(shape)
    if kind != "extreme":
        return values
    return np.sign(values) * rng.choice([0.0, _SMALLEST, 1.0, _LARGEST], shape)


def _tile_pack(rng: Rng, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    batch, rows, cols, tiles = _grid(rng, kind)
    tile, halo = int(rng.choice([8, 24])), int(rng.choice([0, 8, 32]))
    image = _values(rng, kind, (batch, 3, rows * tile, cols * tile))
    return {"image": image, **_ids(rng, batch, rows * cols, tiles)}, {"tile": tile, "halo": halo}


def _tile_unpack_fusion(rng: Rng, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    batch, rows, cols, tiles = _grid(rng, kind)
    cells, channels = (1, 3) if kind == "odd" else (int(rng.integers(1, 4)), int(rng.integers(1, 5)))
    gate = (batch, tiles, 1, cells, cells)
    inputs = {
        "base": _values(rng, kind, (batch, channels, rows * cells, cols * cells)) / 2,  # so that a difference fits as well
        "tiles": _values(rng, kind, (batch, tiles, channels, cells, cells)) / 2,
        **_ids(rng, batch, rows * cols, tiles),
        "alpha": rng.choice([0.0, 1.0], gate) if kind == "extreme" else rng.random(gate),
    }
    return inputs, {"tile": TILE_CELL * cells}


def _tile_ssm_scan(rng: Rng, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    batch, tokens, heads, channels, state = (int(rng.integers(1, top)) for top in (3, 40, 4, 9, 9))
    if kind == "odd":
        batch, tokens, channels, state = 1, int(rng.choice([1, 33])), 5, 3
    plain = "random" if kind == "extreme" else kind  # of the scan the decays are what is extreme
    steps = (batch, tokens, heads)
    inputs = {
        "x": _values(rng, plain, (*steps, channels)),
        "dt": rng.choice([0.0, 1e-3, 20.0], steps) if kind == "extreme" else np.abs(_values(rng, plain, steps)),
        "A": rng.uniform(-8, 5, heads) if kind == "extreme" else _values(rng, plain, (heads,)),
        "Bm": _values(rng, plain, (batch, tokens, state)),
        "Cm": _values(rng, plain, (batch, tokens, state)),
        "D": _values(rng, plain, (heads,)),
    }
    return inputs, {"reverse": int(rng.integers(0, 2))}


def _decode_nms(rng: Rng, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Scores in sixteenths and boxes on whole pixels, so that scores and IoUs tie; some random cases are of any numbers."""
    side = 32 if kind == "odd" else 64
    strides = np.concatenate([np.full((side // s) ** 2, s) for s in STRIDES]).astype(np.float64)
    batch, anchors, classes = int(rng.integers(1, 3)), len(strides), int(rng.integers(1, 4))
    scores, ltrb = rng.integers(0, 17, (batch, anchors, classes)) / 16, rng.integers(0, 5, (batch, anchors, 4)).astype(np.float64)
    if kind == "random" and rng.random() < 0.5:
        scores, ltrb = rng.random(scores.shape), rng.exponential(2.0, ltrb.shape)
    if kind == "constant":
        scores, ltrb = np.full_like(scores, 0.5), np.full_like(ltrb, 2.0)
    if kind == "extreme":  # boxes without area, and boxes far larger than the image
        scores, ltrb = rng.choice([0.0, _SMALLEST, 1.0], scores.shape), rng.choice([0.0, 1.0, 64.0], ltrb.shape)
    centres = rng.integers(0, side, (anchors, 2)).astype(np.float64)
    attributes = {
        "max_detections": int(rng.choice([1, 10, 100])),
        "pre_nms": int(rng.choice([1, 20, 333])),
        "score": float(rng.choice([0.0, 0.25])),
        "iou": 0.5,
    }
    return {"scores": scores, "ltrb": ltrb, "centres": centres, "strides": strides}, attributes


_MAKERS: dict[str, Callable[[Rng, str], tuple[dict[str, np.ndarray], dict[str, Any]]]] = {
    "tile_pack": _tile_pack,
    "tile_ssm_scan": _tile_ssm_scan,
    "tile_unpack_fusion": _tile_unpack_fusion,
    "decode_nms": _decode_nms,
}
