"""The limits, and precision and recall of what passes them, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made_detections import made

from apex_runtime.data.dataset import Instances
from apex_runtime.errors import UsageError
from apex_train.pseudo.against_truth import Tally, ratio_interval
from apex_train.pseudo.choose import Judged, Limits
from apex_train.pseudo.quality import Quality

BOXES = [(0, 0, 20, 20), (30, 0, 50, 20), (60, 0, 80, 20), (0, 50, 20, 70)]


def judged() -> Judged:
    found = made([(score, box, 0) for score, box in zip((0.9, 0.8, 0.6, 0.2), BOXES, strict=True)])
    figures = ([0.9, 0.7, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9], [0.9, 0.9, 0.4, 0.9])
    return Judged(found, Quality(*(np.array(each) for each in figures)))


def test_each_limit_takes_away_from_what_the_one_before_left() -> None:
    passed = judged().passed(Limits(score=0.5, stability=0.8, agreement=0.7, consistency=0.5))
    assert passed.astype(int).tolist() == [[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]]


def test_unsure_is_below_sure() -> None:
    with pytest.raises(UsageError, match="--unsure-score"):
        Limits(score=0.3, unsure=0.4)


def test_precision_and_recall_of_every_step() -> None:
    """Three claims, of which the first two are right; a third object is not found."""
    boxes = np.array([*BOXES[:2], (0, 80, 20, 99)], np.float32)
    truth = Instances(boxes, np.zeros(3, np.int64), [None] * 3, np.zeros(3, bool), np.full(3, 400, np.float32))
    tally = Tally(Limits(stability=0.8), {0: 0}, by_mask=False)
    tally.add(judged(), truth)
    report = tally.report()
    rows = [(row["labels"], row["hits"], row["precision"]["value"], row["recall"]["value"]) for row in report["steps"]]
    third, two_thirds = round(1 / 3, 4), round(2 / 3, 4)
    assert rows == [(3, 2, two_thirds, two_thirds), (2, 1, 0.5, third), (2, 1, 0.5, third), (1, 1, 1.0, third)]
    assert (report["objects"], report["images"], report["overlap"]) == (3, 1, "box")


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(60):
        whole = rng.integers(1, 20, 80)
        found = ratio_interval(rng.binomial(whole, 0.7), whole, seed)
        assert found is not None and found["low"] <= found["value"] <= found["high"]
        covered += found["low"] <= 0.7 <= found["high"]
    assert 51 <= covered <= 60  # 57 are expected; fewer than 51 come once in 400 times
    assert ratio_interval(np.zeros(3, int), np.zeros(3, int)) is None
