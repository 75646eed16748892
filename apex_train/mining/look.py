"""One image of a data set as the model fares on it: its loss, what it misses, how it wavers, and what its router passed over.

Legend: N tiles, K of a choice, G objects, n detections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import FiniteFloat

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import DataError, UsageError
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_train.config import LossConfig
from apex_train.engine.evaluate import whole_pictures
from apex_train.engine.tile_truth import TileTruth
from apex_train.predictor import TorchSession
from apex_train.pseudo.choose import Judged, Limits
from apex_train.pseudo.judge import judge
from apex_train.pseudo.quality import mask_iou
from apex_train.pseudo.views import View

SIGNALS = ("loss", "disagreement", "regret")
CLAIM = 0.3  # what scores less is nothing that a user would be shown
_MIN_IOU = 0.5  # of an object that counts as found


@dataclass(frozen=True)
class Hard:
    """An object, or a claim that is none: ``kind`` is missed, loose or false; ``difficulty`` in 0..1.

    ``annotation`` is the place of the object in its image, -1 of a false claim; ``box`` xywh in pixels.
    """

    kind: Literal["missed", "loose", "false"]
    difficulty: FiniteFloat
    annotation: int
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


@dataclass(frozen=True)
class Fared:
    """An image by its place in the set. A signal is None where it says nothing; higher is worse.

    ``loss`` per object with all tiles; ``disagreement`` 1 minus the consistency of the detections, weighted by their scores;
    ``regret`` per object: the gain of the best K tiles minus that of the K tiles that the router chose.
    """

    place: int
    loss: FiniteFloat
    disagreement: FiniteFloat | None
    regret: FiniteFloat | None
    instances: tuple[Hard, ...]


class Look:
    """Looks at the images of ``dataset`` with a checkpoint of one level. Raises UsageError for another, or other classes."""

    def __init__(
        self, session: TorchSession, dataset: InstanceDataset, views: tuple[View, ...], budget: str, config: LossConfig
    ) -> None:
        if session.model.config.depth != 1:
            raise UsageError("mine: the gain of a tile is measured on one level.", "Give a checkpoint with model.depth 1.")
        names = [[each.name for each in classes] for classes in (session.info.classes, dataset.categories)]
        if names[0] != names[1]:
            message = f"{dataset.source}: its classes ({', '.join(names[1][:5])}) are not those of the checkpoint."
            raise UsageError(message, f"It knows, in this order: {', '.join(names[0][:5])}.", path=dataset.source)
        self._session, self._dataset, self._views, self._config = session, dataset, views, config
        self._predictor, self._budget = Predictor(session), parse_budget(budget)

    def at(self, place: int) -> Fared:
        """How the model fares on one image. Raises what the data set's readers raise, and DataError for a loss that is none."""
        image_hw3 = self._dataset.read_image(place)
        seen = judge(self._predictor, image_hw3, Limits(score=CLAIM, unsure=CLAIM, in_views=CLAIM / 2), self._views)
        loss, regret = self._losses(place, image_hw3)
        if not math.isfinite(loss) or (regret is not None and not math.isfinite(regret)):
            path = self._dataset.records[place].path
            raise DataError(f"{path}: the loss of the model is not finite here.", "Was its training finite?", path=path)
        return Fared(place, loss, _disagreement(seen) if self._views else None, regret, tuple(self._instances(place, seen)))

    def _losses(self, place: int, image_hw3: np.ndarray) -> tuple[float, float | None]:
        info = self._session.info
        prepared = self._predictor.prepare(image_hw3, self._budget)
        batch = whole_pictures(self._dataset, range(place, place + 1), (info.input.height, info.input.width))
        content_N = content_tiles(prepared.letterbox, info.tiles)
        truth = TileTruth(self._session.model, batch, self._config, content_N)
        tiles = np.flatnonzero(content_N).tolist()
        loss = float(truth.losses([tiles])[0])
        count = sum(prepared.tiles) if isinstance(prepared.tiles, tuple) else prepared.tiles
        chosen = truth.router_choice(count)
        return loss, missed_gain(truth.gains(chosen, tiles), chosen)

    def _instances(self, place: int, seen: Judged) -> list[Hard]:
        """Objects that are missed or loosely outlined, then claims that are no object; those that are right are left out."""
        truth, found = self._dataset.instances(place), seen.found
        size = found.letterbox.source_height, found.letterbox.source_width
        drawn = [g for g in range(len(truth)) if truth.masks[g] is not None and not truth.crowd[g]]
        iou_Gn = mask_iou([mask for g in drawn if (mask := truth.masks[g]) is not None], found.masks, *size)
        same_Gn = truth.labels[drawn][:, None] == found.labels[None, :]
        iou_Gn = np.where(same_Gn, iou_Gn, 0.0)
        hard = [_object(g, best, truth.boxes[g]) for g, best in zip(drawn, iou_Gn.max(axis=1, initial=0.0).tolist(), strict=True)]
        false_n = iou_Gn.max(axis=0, initial=0.0) < _MIN_IOU
        claims = zip(found.boxes[false_n], found.scores[false_n].tolist(), strict=True)
        return [*hard, *(Hard("false", round(score, 4), -1, _xywh(box)) for box, score in claims)]


def missed_gain(gains_N: np.ndarray, chosen: list[int]) -> float:
    """What the best ``len(chosen)`` tiles would have gained more than the chosen ones; NaN gains are of tiles without content."""
    known = gains_N[~np.isnan(gains_N)]
    best = np.sort(known)[::-1][: len(chosen)]
    return float(best.sum() - np.nansum(gains_N[chosen]))


def _disagreement(seen: Judged) -> float:
    weights_n = seen.found.scores.astype(np.float64)
    if not weights_n.sum():
        return 0.0
    return float(1 - np.average(seen.quality.consistency_n, weights=weights_n))


def _object(place: int, overlap: float, box: np.ndarray) -> Hard:
    return Hard("missed" if overlap < _MIN_IOU else "loose", round(1 - overlap, 4), place, _xywh(box))


def _xywh(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)
