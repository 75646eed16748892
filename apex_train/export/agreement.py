"""Post-condition of an export that needs running it: ONNX Runtime gives what torch gives, at three budgets (as many as
there are tiles, where these are fewer), batch 1 and 2. With several levels of tiles the first budget is one tile of level 0
alone.

The tiles are forced by ``tile_bonus`` to be the same on both sides; detections are aligned by anchor (DESIGN section 11).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.backends.session import Session, Tiles, per_level
from apex_runtime.model_info import ModelInfo, TileInfo
from apex_runtime.parity.align import align
from apex_runtime.parity.suppression import Kept, Slack, explain_suppression
from apex_runtime.parity.tolerance import Tolerance
from apex_runtime.routing.quadtree import CHILDREN, children, flat_ids, flat_utilities
from apex_train.export.structure import ExportError

SCORE = Tolerance(atol=1e-4, rtol=0.0)
LIMITS = {
    "scores": SCORE,
    "boxes": Tolerance(atol=0.05, rtol=0.0),  # input pixels
    "mask_coefficients": Tolerance(atol=1e-3, rtol=1e-3),
    "mask_prototypes": Tolerance(atol=1e-3, rtol=1e-3),
    "utilities": Tolerance(atol=1e-3, rtol=1e-3),
}
ALIGNED = ("scores", "boxes", "mask_coefficients", "labels")
LABEL_SHARE = 0.005  # two classes of one anchor may be equal to the last bit, and then either may win
FORCED = 24.0


def check_agreement(
    reference: Session, candidate: Session, info: ModelInfo, images: Sequence[np.ndarray] = ()
) -> dict[str, float]:
    """Largest absolute difference of every output over all runs. Raises ExportError where a limit is passed.

    ``images``: real ones, uint8 [H,W,3] of the export size, checked in addition to two random ones.
    """
    rng = np.random.default_rng(0)
    pool = [*(_random_image(rng, info) for _ in range(2)), *images]
    worst, compared = dict.fromkeys((*LIMITS, "labels"), 0.0), False
    for batch in (np.stack(pool[start : start + size]) for size in (1, 2) for start in range(0, len(pool) - size + 1, size)):
        for tiles in level_budgets(info.tiles):
            bonus = _forced(rng, len(batch), tiles, info.tiles)
            wanted, got = (side.run(batch, tiles, bonus) for side in (reference, candidate))
            where = f"at K = {tiles}, batch {len(batch)}"
            found = _compare(wanted, got, bonus, info, where)
            compared |= "scores" in found
            for name, difference in found.items():
                worst[name] = max(worst[name], difference)
    if not compared:
        raise ExportError("agreement", "nothing was detected in any image, so nothing was compared: give --check-images")
    return worst


def budgets(count: int) -> tuple[int, ...]:
    """One tile, half of them (rounded up), all: three budgets from three tiles on, below that every number of tiles."""
    return tuple(sorted({1, (count + 1) // 2, count}))


def level_budgets(tiles: TileInfo) -> tuple[Tiles, ...]:
    """``budgets``; with several levels one tile and none below, half of level 0 and half of the children of what is chosen, and
    all of all levels."""
    if tiles.depth == 1:
        return budgets(tiles.count)
    half = [(tiles.levels[0].count + 1) // 2]
    for _ in range(1, tiles.depth):
        half.append(half[-1] * CHILDREN // 2)
    return ((1, *(0,) * (tiles.depth - 1)), tuple(half), tuple(grid.count for grid in tiles.levels))


def _random_image(rng: np.random.Generator, info: ModelInfo) -> np.ndarray:
    """Noise with bright and dark rectangles: something for every stage to react to."""
    height, width = info.input.height, info.input.width
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for _ in range(20):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        image[y : y + int(rng.integers(4, 80)), x : x + int(rng.integers(4, 80))] = rng.integers(0, 256, 3)
    return image


def _forced(rng: np.random.Generator, batch: int, tiles: Tiles, grid: TileInfo) -> np.ndarray:
    """tile_bonus [B,N] that forces ``tiles`` random tiles of each image, below level 0 among the children of those, and forbids
    the others."""
    bonus = np.full((batch, grid.count), -FORCED, np.float32)
    for row in bonus:
        candidates = np.arange(grid.levels[0].count)
        for level, count in zip(grid.levels, per_level(tiles), strict=True):
            chosen = candidates[rng.permutation(len(candidates))[:count]]
            row[level.first + chosen] = FORCED
            candidates = children(chosen, level.cols).reshape(-1)
    return bonus


def _compare(
    wanted: dict[str, np.ndarray], got: dict[str, np.ndarray], bonus: np.ndarray, info: ModelInfo, where: str
) -> dict[str, float]:
    for name, reference in wanted.items():
        if got[name].shape != reference.shape or got[name].dtype != reference.dtype:
            raise ExportError(
                "agreement",
                f"{name} is {got[name].dtype} {got[name].shape}, torch has {reference.dtype} {reference.shape} {where}",
            )
        if not np.isfinite(got[name]).all() or not np.isfinite(reference).all():
            raise ExportError("agreement", f"{name} holds NaN or Inf {where}")
    for name in ("tile_ids", "tile_levels"):
        if not np.array_equal(wanted[name], got[name]):
            raise ExportError("agreement", f"{name} differ {where}, though the tiles were forced")
    if not (np.take_along_axis(bonus, flat_ids(got["tile_ids"], got["tile_levels"], info.tiles), 1) > 0).all():
        raise ExportError("agreement", f"tile_bonus did not force the tiles {where}")
    result = {"mask_prototypes": _difference("mask_prototypes", wanted["mask_prototypes"], got["mask_prototypes"], where)}
    first, second = (flat_utilities(side, info.tiles) for side in (wanted, got))
    result["utilities"] = _difference("utilities", first, second, where)
    for image in range(len(bonus)):
        for name, difference in _compare_detections(wanted, got, image, info, where).items():
            result[name] = max(result.get(name, 0.0), difference)
    return result


def _compare_detections(
    wanted: dict[str, np.ndarray], got: dict[str, np.ndarray], image: int, info: ModelInfo, where: str
) -> dict[str, float]:
    """Differences of the aligned rows of one image; none when NMS left nothing on either side."""
    reference, candidate = ((item["candidate_ids"][image], item["scores"][image]) for item in (wanted, got))
    pairs = align(*reference, *candidate, SCORE)
    if info.decode == "nms":
        pairs = explain_suppression(pairs, Kept.of(wanted, image), Kept.of(got, image), Slack(SCORE, LIMITS["boxes"]), info)
    _check_padding({name: got[name][image] for name in (*ALIGNED, "candidate_ids")}, info, where)
    if pairs.problems or pairs.missing or (len(pairs.reference_rows) == 0 and info.decode == "topk"):
        problem = "; ".join(pairs.problems) or f"{pairs.missing} detections have no partner"
        raise ExportError("agreement", f"{problem} {where}")
    if (np.diff(got["scores"][image]) > 0).any():
        raise ExportError("agreement", f"scores do not descend {where}")
    if len(pairs.reference_rows) == 0:
        return {}
    rows = {name: (wanted[name][image][pairs.reference_rows], got[name][image][pairs.candidate_rows]) for name in ALIGNED}
    return {name: _difference(name, *both, where) for name, both in rows.items()}


def _check_padding(rows: dict[str, np.ndarray], info: ModelInfo, where: str) -> None:
    """Empty places come last, are all 0 and -1, and exist only behind NMS."""
    empty = rows["candidate_ids"] < 0
    if info.decode == "topk" and empty.any():
        raise ExportError(
            "agreement", f"candidate_ids holds {rows['candidate_ids'].min()}, and without NMS no place is empty, {where}"
        )
    clean = all((rows[name][empty] == (-1 if name in ("labels", "candidate_ids") else 0)).all() for name in rows)
    if not clean or (np.diff(empty.astype(np.int8)) < 0).any():
        raise ExportError("agreement", f"empty places are not all at the end, 0 and -1, {where}")


def _difference(name: str, wanted: np.ndarray, got: np.ndarray, where: str) -> float:
    if name == "labels":
        share = float(np.mean(wanted != got))
        if share > LABEL_SHARE:
            raise ExportError("agreement", f"{share:.1%} of the labels differ {where}")
        return share
    difference = np.abs(wanted.astype(np.float64) - got)
    limit = LIMITS[name].atol + LIMITS[name].rtol * np.abs(wanted)
    if (difference > limit).any():
        raise ExportError("agreement", f"{name} differ from torch by up to {difference.max():.3g} {where}")
    return float(difference.max())
