"""The task level on detections made by hand: what counts, what is forgiven, what fails."""

from __future__ import annotations

import numpy as np
import pytest
from made_detections import made

from apex_runtime.parity.average_precision import ApPair, AveragePrecision
from apex_runtime.parity.task import compare_detections, score_reach
from apex_runtime.parity.task_stats import TaskStats
from apex_runtime.parity.tolerance import PROFILE_NAMES, Precision, Rules, load_profile

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
FP32, INT8 = (Rules(load_profile("quality"), precision) for precision in ("fp32", "int8"))
A, B, C = (0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 20, 60)


def moved(box: tuple[int, ...], right: float) -> tuple[float, ...]:
    return box[0] + right, box[1], box[2] + right, box[3]


def test_statistics_of_one_image() -> None:
    reference = made([(0.9, A, 0), (0.8, B, 0), (0.7, C, 0)])
    candidate = made([(0.85, moved(A, 5), 0), (0.6, C, 0), (0.5, (70, 70, 90, 90), 0)])
    found = compare_detections(reference, candidate, FP32)
    assert (found.images, found.matched, found.reference_only, found.candidate_only, found.exempt) == (1, 2, 1, 1, 0)
    assert found.match_rate == pytest.approx(4 / 6)
    assert found.box_ious == pytest.approx([15 / 25, 1])
    assert found.mask_ious == pytest.approx([5 / 15, 1]), "left halves, 10 pixels wide, 5 apart"
    assert found.score_differences == pytest.approx([0.05, 0.1], abs=1e-6)


def test_images_add_up() -> None:
    whole = TaskStats()
    for rows in ([(0.9, A, 0)], [(0.9, A, 0), (0.8, B, 0)], []):
        whole.add(compare_detections(made(rows), made(rows[:1]), FP32))
    whole.add(TaskStats(images=1, set_aside=1))
    assert (whole.images, whole.set_aside, whole.matched, whole.reference_only) == (4, 1, 2, 1)
    assert whole.match_rate == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("score", "partner", "matched", "alone", "exempt"),
    [
        (0.5, None, 0, 1, 0),
        (0.311, None, 0, 0, 1),  # within 0.02 of the level: rounding may have dropped the other one
        (0.33, None, 0, 1, 0),
        (0.29, None, 0, 0, 0),
        (0.31, 0.285, 1, 0, 0),
        (0.29, 0.285, 0, 0, 0),  # a pair that neither side shows
    ],
)
def test_around_the_level(score: float, partner: float | None, matched: int, alone: int, exempt: int) -> None:
    assert score_reach(INT8) == pytest.approx(0.02)
    first, second = made([(score, A, 0)]), made([] if partner is None else [(partner, A, 0)])
    for sides, counts in (((first, second), (alone, 0)), ((second, first), (0, alone))):
        found = compare_detections(*sides, INT8)
        assert (found.matched, found.exempt) == (matched, exempt)
        assert (found.reference_only, found.candidate_only) == counts


def test_another_class_is_alone_on_both_sides() -> None:
    found = compare_detections(made([(0.9, A, 0)]), made([(0.9, A, 1)]), FP32)
    assert (found.matched, found.reference_only, found.candidate_only) == (0, 1, 1)
    assert found.reasons(FP32.task_limits) == [
        "match rate 0.0000, below 1 (0 pairs, 1 only in the reference, 1 only in the candidate)"
    ]


def rows(count: int, shift: float = 0.0, score: float = 0.9) -> list[tuple[float, tuple[float, ...], int]]:
    return [(score, moved((0, 4 * n, 20, 4 * n + 20), shift), n % 3) for n in range(0, 5 * count, 5)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_every_limit_can_be_missed(name: str, precision: Precision) -> None:
    rules = Rules(load_profile(name), precision)
    limits, good = rules.task_limits, made(rows(4))
    assert compare_detections(good, good, rules).reasons(limits) == []
    for other, words in (
        (made(rows(3)), "match rate"),
        (made(rows(4, shift=3)), "mean box IoU"),
        (made(rows(4), inverted=True), "mean mask IoU 0.0000"),
        (made(rows(4, score=0.8)), "mean |score difference| 0.1"),
    ):
        found = compare_detections(good, other, rules)
        assert any(why.startswith(words) for why in found.reasons(limits)), words
        assert found.verdict(limits) == "fail"


def test_nothing_compared_fails_and_nothing_found_is_empty() -> None:
    limits = FP32.task_limits
    assert TaskStats().reasons(limits) == ["nothing was compared"]
    blank = compare_detections(made([]), made([]), FP32)
    assert (blank.reasons(limits), blank.verdict(limits)) == ([], "empty")
    assert blank.notes(0.3) == ["neither side has a detection of 0.3 or more on 1 images: nothing was matched"]
    blank.add(TaskStats(images=1, set_aside=1))
    assert "2 images, 1 of them set aside" in blank.notes(0.3)[0]
    assert compare_detections(made([(0.9, A, 0)]), made([]), FP32).verdict(limits) == "fail"
    assert TaskStats(images=1, problems=["broken"]).verdict(limits) == "fail"


def test_labels_say_whether_images_are_blank_on_purpose() -> None:
    limits = FP32.task_limits
    for objects, verdict in ((0, "empty"), (3, "fail")):
        blank = TaskStats(images=2, precision=AveragePrecision(2, objects, None, None))
        assert blank.verdict(limits) == verdict
    assert blank.reasons(limits) == ["the labels have 3 objects, and neither side detects anything"]


def test_a_drop_of_average_precision() -> None:
    limits = INT8.task_limits
    assert limits.max_ap_drop == 1.0
    good = compare_detections(made([(0.9, A, 0)]), made([(0.9, A, 0)]), INT8)
    good.precision = AveragePrecision(1, 1, ApPair(0.5, 0.491), ApPair(0.5, 0.6))
    assert good.reasons(limits) == []
    good.precision = AveragePrecision(1, 1, ApPair(0.5, 0.45), ApPair(0.5, 0.489))
    assert good.reasons(limits) == [
        "box AP drops by 5.00 points, from 50.00; 1 are allowed",
        "mask AP drops by 1.10 points, from 50.00; 1 are allowed",
    ]


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_every_precision_has_limits_and_fp32_the_strictest(name: str) -> None:
    limits = [Rules(load_profile(name), precision).task_limits for precision in PRECISIONS]
    assert limits[0].min_match_rate == 1.0
    for other in limits[1:]:
        assert other.min_match_rate <= limits[0].min_match_rate and other.max_ap_drop <= 1.0
        assert other.max_mean_score_difference > limits[0].max_mean_score_difference
    assert np.all(np.diff([each.max_ap_drop for each in limits[:3]]) > 0)
