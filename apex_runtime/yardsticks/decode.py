"""The outputs of other projects' graphs, whatever their form, as candidates: boxes, scores and classes in pixels of the input.

Legend: N places of the graph, C columns of scores, n candidates, M mask coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from apex_runtime.errors import ModelError
from apex_runtime.yardsticks.description import REMEDY, Description, EndToEnd, Joined, ScoreForm, Separate


@dataclass(frozen=True, eq=False)
class Places:
    """What a graph says of one image: boxes [N,4] as they come, scores [N,C], or [N] with ``labels`` [N]; coefficients [N,M]."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None
    coefficients: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Candidates:
    """n places that were scored high enough, best first: boxes float32 [n,4] xyxy in input pixels, scores float32 [n], labels
    int64 [n] (positions in ``Description.names``), and which of the N places each is, int64 [n]. Two may be of one place."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    places: np.ndarray

    def at(self, index: np.ndarray) -> Candidates:
        """Those at these positions."""
        return Candidates(self.boxes[index], self.scores[index], self.labels[index], self.places[index])


def places_of(outputs: Mapping[str, np.ndarray], description: Description) -> Places:
    """The outputs of one image, without their batch axis and of shapes that fit (``OutputCheck``), taken apart."""
    wanted = description.outputs
    if isinstance(wanted, Separate):
        labels = None if wanted.labels is None else outputs[wanted.labels]
        coefficients = None if wanted.coefficients is None else outputs[wanted.coefficients]
        return Places(outputs[wanted.boxes], outputs[wanted.scores], labels, coefficients)
    rows = outputs[wanted.tensor]
    if isinstance(wanted, EndToEnd):
        return Places(rows[:, :4], rows[:, 4], rows[:, 5], rows[:, 6:] if wanted.prototypes else None)
    rows = rows.T if wanted.places == "last" else rows
    end = rows.shape[1] - (len(outputs[wanted.prototypes]) if wanted.prototypes else 0)
    return Places(rows[:, :4], rows[:, 4:end], None, rows[:, end:] if wanted.prototypes else None)


def candidates_of(places: Places, description: Description, size: tuple[int, int], min_score: float) -> Candidates:
    """At most ``max_candidates`` with a score of at least ``min_score``; ``size``: height and width of the input.

    Raises ModelError for a label that no class has.
    """
    scores, labels, index = _scored(places, description, min_score)
    order = np.argsort(-scores, kind="stable")[: description.max_candidates]
    boxes = corners(places.boxes[index[order]], description, size)
    return Candidates(boxes, scores[order].astype(np.float32), labels[order], index[order])


def corners(boxes_n4: np.ndarray, description: Description, size: tuple[int, int]) -> np.ndarray:
    """Boxes of the described form as float32 [n,4] xyxy in pixels of an input of ``size``, height and width."""
    boxes = np.asarray(boxes_n4, np.float32)
    if description.outputs.box == "cxcywh":
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    if description.outputs.unit == "normalised":
        boxes = boxes * np.array([size[1], size[0]] * 2, np.float32)
    return boxes


def _scored(places: Places, description: Description, min_score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """score, label and place of whatever has at least ``min_score``, [n] each, in the order of the places."""
    wanted = description.outputs
    scores = probabilities(places.scores, "probability" if isinstance(wanted, EndToEnd) else wanted.score)
    if places.labels is not None:
        index = np.flatnonzero(scores >= min_score)
        labels, known = _positions(places.labels[index], description)
        return scores[index][known], labels, index[known]
    scores = scores[:, list(description.columns)]
    if isinstance(wanted, Joined | Separate) and wanted.pick == "best":
        labels = scores.argmax(axis=1)
        best = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        index = np.flatnonzero(best >= min_score)
        return best[index], labels[index], index
    index, labels = np.nonzero(scores >= min_score)
    return scores[index, labels], labels, index


def _positions(numbers: np.ndarray, description: Description) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the classes with these numbers, int64, and which of the numbers are of a class, bool [n].

    A mapping says which numbers are a class, and the others are left out; with a list of all classes another one is an error.
    """
    columns = np.array(description.columns)
    found = np.rint(numbers).astype(np.int64)
    known = np.isin(found, columns)
    if not known.all() and not isinstance(description.classes, dict):
        message = f"{description.title}: the graph gave class {found[~known][0]}, and the description has {len(columns)} classes."
        raise ModelError(message, f"Complete classes in the description. {REMEDY}")
    return np.searchsorted(columns, found[known]), known


def probabilities(scores: np.ndarray, form: ScoreForm) -> np.ndarray:
    """Scores [N,C] or [N] as probabilities, float32."""
    scores = np.asarray(scores, np.float32)
    if form == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))), np.float32)
    if form == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
    return scores
