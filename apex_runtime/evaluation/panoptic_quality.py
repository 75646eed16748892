"""Panoptic quality (Kirillov et al. 2019, https://arxiv.org/abs/1801.00868) by the rules of COCO's panopticapi.

That library is the reference but no package: it exists as a repository only, so that nothing can depend on it. A test holds these
figures equal to what it says.

Legend: T segments of the truth and P of the prediction of one image; place 0 of either is void, the pixels of no segment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apex_runtime.data.findings import shown
from apex_runtime.errors import DataError

if TYPE_CHECKING:
    from apex_runtime.data.coco.panoptic import PanopticCategory, PanopticDataset, Segment

_MATCH = 0.5  # of the union: above it no two segments can claim the same one
_IGNORED = 0.5  # share of void and crowd from which on a predicted segment is no false one


class PanopticImage(NamedTuple):
    """The segment of every pixel, int32 [h,w] with 0 for void, and what the segments are."""

    ids_hw: np.ndarray
    segments: tuple[Segment, ...]


@dataclass
class Tally:
    """One class over all images: segments matched, wrongly predicted and missed, and the sum of the overlaps of the matched."""

    matched: int = 0
    false: int = 0
    missed: int = 0
    overlap: float = 0.0

    @property
    def figures(self) -> dict[str, float] | None:
        """pq, sq and rq; None where there is no segment on either side."""
        total = self.matched + 0.5 * self.false + 0.5 * self.missed
        if total == 0:
            return None
        quality = self.overlap / self.matched if self.matched else 0.0
        return {"pq": self.overlap / total, "sq": quality, "rq": self.matched / total}


def panoptic_quality(
    truth: PanopticDataset, predicted: Callable[[int, int, int], PanopticImage], on_images: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """PQ, SQ and RQ of predicted panoptic images: ``all``, ``things``, ``stuff`` and a row ``per_class``, as fractions.

    ``predicted(image_id, height, width)`` gives the prediction of an image of the truth. An average is over its ``n`` classes
    that have a segment on either side; it is None where n is 0, and so are the figures of a class that has none. Raises DataError
    for pixels of no segment, classes that the truth does not have, and pictures of another size.
    """
    tallies: dict[int, Tally] = defaultdict(Tally)
    known = {category.category_id for category in truth.panoptic_categories}
    for index, record in enumerate(truth.records):
        try:
            count_image(
                PanopticImage(truth.segment_map(index), truth.segments(index)),
                predicted(record.image_id, record.height, record.width),
                known,
                tallies,
            )
        except DataError as error:
            raise DataError(f"image {record.image_id}: {error.message}", error.remedy, path=error.path or truth.source) from error
        if on_images is not None:
            on_images(index + 1)
    return _report(truth.panoptic_categories, tallies)


def count_image(truth: PanopticImage, found: PanopticImage, known: set[int], tallies: dict[int, Tally]) -> None:
    """Match the segments of one image and add them to the tallies of their classes. Raises DataError."""
    if truth.ids_hw.shape != found.ids_hw.shape:
        (rows, cols), (height, width) = found.ids_hw.shape, truth.ids_hw.shape
        raise DataError(f"the prediction is {cols}x{rows}, the truth {width}x{height}.", "Predict at the size of the image.")
    strange = {segment.category_id for segment in found.segments} - known
    if strange:
        raise DataError(f"predicted segments are of unknown categories {shown(sorted(strange))}.", "Use the ids of the truth.")
    pixels_TP = _confusion(truth, found)
    empty = [s.segment_id for s, area in zip(found.segments, pixels_TP[:, 1:].sum(axis=0), strict=True) if area == 0]
    if empty:
        raise DataError(f"predicted segments {shown(empty)} have no pixel in the PNG.", "Write JSON and PNG together.")
    pairs = _matches(truth.segments, found.segments, pixels_TP)
    for target, _, overlap in pairs:
        tally = tallies[truth.segments[target].category_id]
        tally.matched += 1
        tally.overlap += overlap
    _count_missed(truth.segments, {target for target, _, _ in pairs}, tallies)
    _count_false(truth.segments, found.segments, pixels_TP, {guess for _, guess, _ in pairs}, tallies)


def _confusion(truth: PanopticImage, found: PanopticImage) -> np.ndarray:
    """Pixels that the segments share, int64 [T+1,P+1]."""
    rows = _places(truth, "the truth")
    columns = _places(found, "the prediction")
    width = len(found.segments) + 1
    return np.bincount((rows * width + columns).ravel(), minlength=(len(truth.segments) + 1) * width).reshape(-1, width)


def _places(image: PanopticImage, whose: str) -> np.ndarray:
    """The place of every pixel's segment in the list, from 1, int64 [h,w]."""
    ids = np.array([0, *(segment.segment_id for segment in image.segments)], np.int64)
    order = np.argsort(ids)
    at = np.minimum(np.searchsorted(ids, image.ids_hw, sorter=order), ids.size - 1)
    places: np.ndarray = order[at]
    strange = np.unique(image.ids_hw[ids[places] != image.ids_hw])
    if strange.size:
        message = f"the PNG of {whose} has pixels of segments that are not in its JSON: {shown(strange.tolist())}."
        raise DataError(message, "Write JSON and PNG together.")
    return places


def _matches(targets: Sequence[Segment], guesses: Sequence[Segment], pixels_TP: np.ndarray) -> list[tuple[int, int, float]]:
    """(place in the truth, place in the prediction, overlap) of the pairs of one class that share more than half of their union.

    What a predicted segment has in void is not held against it. The area of a true segment is the one that its file declares.
    """
    pairs = []
    areas_P = pixels_TP.sum(axis=0)
    for row, column in np.argwhere(pixels_TP[1:, 1:]).tolist():
        target, guess = targets[row], guesses[column]
        if target.is_crowd or target.category_id != guess.category_id:
            continue
        shared = int(pixels_TP[row + 1, column + 1])
        area = target.area if target.area > 0 else int(pixels_TP[row + 1].sum())
        if area < shared:
            message = f"segment {target.segment_id} of the truth has more pixels than the area {area:g} that its JSON declares."
            raise DataError(message, "Write the area of each segment as its number of pixels, or leave it out.")
        overlap = shared / (int(areas_P[column + 1]) + area - shared - int(pixels_TP[0, column + 1]))
        if overlap > _MATCH:
            pairs.append((row, column, float(overlap)))
    return pairs


def _count_missed(targets: Sequence[Segment], matched: set[int], tallies: dict[int, Tally]) -> None:
    for place, target in enumerate(targets):
        if place not in matched and not target.is_crowd:
            tallies[target.category_id].missed += 1


def _count_false(
    targets: Sequence[Segment], guesses: Sequence[Segment], pixels_TP: np.ndarray, matched: set[int], tallies: dict[int, Tally]
) -> None:
    """A predicted segment of which more than half lies in void or in the crowd of its class is not counted.

    Of several crowds of one class the last counts, as in panopticapi.
    """
    crowds = {target.category_id: row for row, target in enumerate(targets, start=1) if target.is_crowd}
    for column, guess in enumerate(guesses, start=1):
        if column - 1 in matched:
            continue
        ignored = pixels_TP[0, column]
        if guess.category_id in crowds:
            ignored += pixels_TP[crowds[guess.category_id], column]
        if ignored / pixels_TP[:, column].sum() <= _IGNORED:
            tallies[guess.category_id].false += 1


def _report(categories: Sequence[PanopticCategory], tallies: dict[int, Tally]) -> dict[str, Any]:
    rows = []
    for category in categories:
        tally = tallies[category.category_id]
        counts = {"matched": tally.matched, "false": tally.false, "missed": tally.missed}
        figures = tally.figures or dict.fromkeys(("pq", "sq", "rq"))
        rows.append({"category_id": category.category_id, "name": category.name, "thing": category.is_thing} | figures | counts)
    return {
        "all": _average(rows),
        "things": _average(row for row in rows if row["thing"]),
        "stuff": _average(row for row in rows if not row["thing"]),
        "per_class": rows,
    }


def _average(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Means over the classes that have figures, and their number n."""
    defined = [row for row in rows if row["pq"] is not None]
    means = {key: float(np.mean([row[key] for row in defined])) if defined else None for key in ("pq", "sq", "rq")}
    return means | {"n": len(defined)}
