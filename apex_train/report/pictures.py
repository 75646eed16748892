"""The images a model did best and worst on: truth beside prediction, and the tiles that were looked at.

Green is what agrees, red what does not: an object that was missed, a detection that is wrong. Blue counts neither way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset, Instances
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.files import write_atomically
from apex_runtime.pipeline.annotate import Picture, Shape, draw
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.records import tile_boxes
from apex_runtime.postprocess.tiles import tile_records
from apex_train.report.matching import MIN_SCORE, ImageMatch, match_image

BUDGET = "0.5"  # of the pictures: what is left out shows too
SHOWN = 3  # best, and as many worst
SIDE, WIDE_SIDE = 900, 1400  # px of the longer side of one half, at most; of halves that lie one above the other
_WIDE = 1.6  # width over height from which they do
_GOOD, _BAD, _NEITHER = 0, 1, 2  # colours of annotate.py: green, red, blue
_NAMED = 40  # objects in a picture, above which labels would hide what they name
_GAP = 10
_QUALITY = 90


@dataclass(frozen=True)
class Ranked:
    """An image of the set by its position, with the counts its score is made of."""

    index: int
    file_name: str
    objects: int
    hits: int
    false: int
    f1: float

    def entry(self, file: str) -> dict[str, Any]:
        """For report.json."""
        counts = {"objects": self.objects, "found": self.hits, "missed": self.objects - self.hits, "false": self.false}
        return {"file": file, "image": self.file_name, "f1": round(self.f1, 4)} | counts


class Judge:
    """A predictor with a budget and a data set, and how their images match."""

    def __init__(self, predictor: Predictor, dataset: InstanceDataset, by_mask: bool, budget: str = BUDGET) -> None:
        self._budget = budget
        labels = {category.name: label for label, category in enumerate(dataset.categories)}
        known = enumerate(predictor.info.classes)
        self.predictor, self.dataset, self.by_mask = predictor, dataset, by_mask
        self.label_of = {label: labels[category.name] for label, category in known if category.name in labels}

    def look(self, index: int) -> tuple[np.ndarray, Detections, Instances, ImageMatch]:
        """Image ``index`` (uint8 [h,w,3]), its detections above ``MIN_SCORE``, its objects, and how they match."""
        image, truth = self.dataset.read_image(index), self.dataset.instances(index)
        (found,) = self.predictor.predict([image], self._budget, min_score=MIN_SCORE)
        return image, found, truth, match_image(found, truth, self.label_of, self.by_mask)

    def rank(self) -> Iterator[Ranked]:
        """Every image of the set in its order."""
        for index, record in enumerate(self.dataset.records):
            match = self.look(index)[3]
            yield Ranked(index, record.file_name, match.objects, match.hits, match.false, match.f1)


def choose(ranked: Sequence[Ranked]) -> tuple[list[Ranked], list[Ranked]]:
    """The best and the worst, at most ``SHOWN`` each, none in both. Of equal ones those with more to find, or more faults."""
    best = sorted(ranked, key=lambda item: (-item.f1, -item.objects, item.file_name))[: min(SHOWN, (len(ranked) + 1) // 2)]
    rest = [item for item in ranked if item not in best]
    worst = sorted(rest, key=lambda item: (item.f1, -(item.objects - item.hits + item.false), item.file_name))[:SHOWN]
    return best, worst


def write_pictures(judge: Judge, ranked: Sequence[Ranked], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """``best`` and ``worst`` as JPEG files in ``folder``, those of an earlier report removed; their entries. Raises OSError."""
    for stale in (*folder.glob("best-*.jpg"), *folder.glob("worst-*.jpg")):
        stale.unlink()
    entries: dict[str, list[dict[str, Any]]] = {}
    for kind, items in zip(("best", "worst"), choose(ranked), strict=True):
        entries[kind] = []
        for place, item in enumerate(items, start=1):
            path = folder / f"{kind}-{place}.jpg"
            _write_jpeg(path, render(judge, item.index))
            entries[kind].append(item.entry(f"{folder.name}/{path.name}"))
    return entries


def render(judge: Judge, index: int) -> np.ndarray:
    """Truth beside prediction, uint8 RGB; wide images one above the other."""
    image, found, truth, match = judge.look(index)
    tiles = tile_records(found.tile_ids, found.tile_levels, judge.predictor.info.tiles, found.letterbox)
    everywhere = [[0, 0, image.shape[1], image.shape[0]]]
    names = [category.name for category in judge.dataset.categories]
    left = draw(_paper(image), _truth_shapes(_paper(image), truth, match, names), everywhere, _truth_legend(match))
    first, *finer = tile_boxes(tiles)
    seen = f"looked closely at {len(tiles)} of {found.n_content} tiles"
    right = draw(
        _paper(image),
        _found_shapes(_paper(image), found, match, [category.name for category in judge.predictor.info.classes], judge.by_mask),
        first,
        f"predicted: {match.hits} right, {match.false} wrong; {seen}",
        finer=finer,
    )
    return _joined(left, right, beside=not _is_wide(image))


def _truth_legend(match: ImageMatch) -> str:
    return f"truth: {match.objects} object{'' if match.objects == 1 else 's'}, {match.objects - match.hits} missed"


def _is_wide(image: np.ndarray) -> bool:
    return bool(image.shape[1] >= _WIDE * image.shape[0])


def _paper(image: np.ndarray) -> Picture:
    """The image to draw on: enlarged when small, reduced when large."""
    import cv2

    height, width = image.shape[:2]
    side = WIDE_SIDE if _is_wide(image) else SIDE
    if max(height, width) <= side:
        return Picture.of(image)
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return Picture(cv2.resize(image, size, interpolation=cv2.INTER_AREA), size[1] / height, size[0] / width)


def _truth_shapes(paper: Picture, truth: Instances, match: ImageMatch, names: Sequence[str]) -> list[Shape]:
    shapes = []
    quiet = len(names) == 1 or len(truth) > _NAMED
    for n, box in enumerate(truth.boxes):
        colour = _NEITHER if not match.judged[n] else _GOOD if match.found[n] else _BAD
        text = "" if quiet else names[int(truth.labels[n])]
        shapes.append(paper.shape(box, truth.masks[n] or _no_mask(box), text, colour))
    return shapes


def _found_shapes(paper: Picture, found: Detections, match: ImageMatch, names: Sequence[str], by_mask: bool) -> list[Shape]:
    """Without masks to learn from, those of the model mean nothing: boxes alone."""
    shapes = []
    for n, box in enumerate(found.boxes):
        colour = _NEITHER if match.ignored[n] else _GOOD if match.hit[n] else _BAD
        text = f"{found.scores[n]:.2f}" if len(names) == 1 else f"{names[int(found.labels[n])]} {found.scores[n]:.2f}"
        mask = found.masks[n] if by_mask else _no_mask(box)
        shapes.append(paper.shape(box, mask, "" if len(found) > _NAMED else text, colour))
    return shapes


def _no_mask(box_4: np.ndarray) -> RoiMask:
    return RoiMask(int(box_4[0]), int(box_4[1]), np.zeros((1, 1), np.uint8))


def _joined(left: np.ndarray, right: np.ndarray, beside: bool) -> np.ndarray:
    """Two pictures of one size with a white gap."""
    axis = 1 if beside else 0
    height, width = (max(item.shape[side] for item in (left, right)) for side in (0, 1))
    left, right = (
        np.pad(item, ((0, height - item.shape[0]), (0, width - item.shape[1]), (0, 0)), constant_values=255)
        for item in (left, right)
    )
    gap = np.full((height, _GAP, 3) if beside else (_GAP, width, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=axis)


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    import cv2

    ok, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise OSError(f"{path}: JPEG encoding failed")
    write_atomically(path, data.tobytes())
