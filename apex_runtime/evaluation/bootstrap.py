"""How far a COCO figure could have been off by luck of the images: bootstrap over images (Efron 1979), of one or of two models.

Matching detections to objects does not depend on which images are drawn, so it is done once; a resample only changes how often
each image counts. Legend: I images, D detections of a class in order of score, T overlap thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.evaluation.coco_matching import CocoEvaluation, ImageMatches

_FIGURES = {"mAP": None, "AP50": 0.5, "AP75": 0.75}


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """One class: per detection its image (int64 [D]) and per threshold whether it is a hit or counts as a miss (bool [T,D]).

    ``objects`` int64 [I] counts the objects to be found in each image.
    """

    image_D: np.ndarray
    hit_TD: np.ndarray
    miss_TD: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True, eq=False)
class Matches:
    """All classes of one evaluation, over all object sizes, with the images in ascending order of id."""

    image_ids: tuple[int, ...]
    thresholds: np.ndarray
    recalls: np.ndarray
    classes: tuple[ClassMatches, ...]


@dataclass(frozen=True)
class Interval:
    """A figure and the 2.5 % and 97.5 % quantiles of its resamples."""

    low: float
    value: float
    high: float


def matches_of(evaluation: CocoEvaluation) -> Matches:
    """What an evaluation found, in the form that can be resampled."""
    thresholds = len(evaluation.thresholds)
    classes = tuple(_class_matches(images, thresholds) for images in evaluation.matches())
    return Matches(evaluation.image_ids, evaluation.thresholds, evaluation.recalls, classes)


def _class_matches(images: list[ImageMatches | None], thresholds: int) -> ClassMatches:
    present = [(index, image) for index, image in enumerate(images) if image is not None]
    found = [(index, image) for index, image in present if image.scores_D.size]
    objects = np.zeros(len(images), np.int64)
    for index, image in present:
        objects[index] = np.count_nonzero(~image.ignored_G)
    scores = np.concatenate([np.zeros(0), *(image.scores_D for _, image in found)])
    image_D = np.repeat([index for index, _ in found], [image.scores_D.size for _, image in found]).astype(np.int64)
    empty = np.zeros((thresholds, 0), bool)
    matched = np.concatenate([empty, *(image.matched_TD for _, image in found)], axis=1)
    ignored = np.concatenate([empty, *(image.ignored_TD for _, image in found)], axis=1)
    order = np.argsort(-scores, kind="mergesort")
    hit, miss = (matched & ~ignored)[:, order], (~matched & ~ignored)[:, order]
    # What scores below the last hit changes no precision at any recall that is reached.
    end = int(np.flatnonzero(hit.any(axis=0)).max(initial=-1)) + 1
    return ClassMatches(image_D[order][:end], hit[:, :end], miss[:, :end], objects)


def average_precision(matches: Matches, counts_I: np.ndarray) -> np.ndarray:
    """AP per threshold, float64 [T], mean over classes, when image i counts ``counts_I[i]`` times; NaN without any object."""
    per_class = [_class_precision(entry, matches.recalls, counts_I) for entry in matches.classes]
    defined = [entry for entry in per_class if entry is not None]
    return np.mean(defined, axis=0) if defined else np.full(len(matches.thresholds), np.nan)


def _class_precision(entry: ClassMatches, recalls: np.ndarray, counts_I: np.ndarray) -> np.ndarray | None:
    objects = int(entry.objects @ counts_I)
    if objects == 0:
        return None
    weight_D = counts_I[entry.image_D]
    hits = np.cumsum(entry.hit_TD * weight_D, axis=1, dtype=np.float64)
    total = hits + np.cumsum(entry.miss_TD * weight_D, axis=1)
    precision = hits / np.maximum(total, np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)  # beyond the last recall
    at = np.stack([row.searchsorted(recalls, side="left") for row in hits / objects])
    return np.take_along_axis(envelope, at, axis=1).mean(axis=1)


def bootstrap_interval(matches: Matches, figure: str = "mAP", *, samples: int = 1000, seed: int = 0) -> Interval:
    """The 95 % interval of mAP, AP50 or AP75 over resampled images."""
    value = _figure(matches, figure, np.ones(len(matches.image_ids), np.int64))
    return _interval(value, [_figure(matches, figure, counts) for counts in _resamples(matches, samples, seed)])


def paired_bootstrap(first: Matches, second: Matches, figure: str = "mAP", *, samples: int = 1000, seed: int = 0) -> Interval:
    """The 95 % interval of ``second`` minus ``first``, on the same resamples. Raises ValueError when their images differ."""
    if first.image_ids != second.image_ids:
        raise ValueError("the two evaluations are not of the same images")
    ones = np.ones(len(first.image_ids), np.int64)
    value = _figure(second, figure, ones) - _figure(first, figure, ones)
    drawn = _resamples(first, samples, seed)
    return _interval(value, [_figure(second, figure, counts) - _figure(first, figure, counts) for counts in drawn])


def _resamples(matches: Matches, samples: int, seed: int) -> np.ndarray:
    images = len(matches.image_ids)
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)


def _figure(matches: Matches, figure: str, counts_I: np.ndarray) -> float:
    precision_T = average_precision(matches, counts_I)
    threshold = _FIGURES[figure]
    return float(precision_T.mean() if threshold is None else precision_T[np.isclose(matches.thresholds, threshold)][0])


def _interval(value: float, drawn: list[float]) -> Interval:
    low, high = np.nanquantile(drawn, [0.025, 0.975])  # a resample without any object of any class says nothing
    return Interval(float(low), value, float(high))
