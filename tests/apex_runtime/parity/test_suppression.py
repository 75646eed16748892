"""Lists made by NMS: what rounding changes is explained, whatever it sets off; what anything else changes is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_plugins.decode_nms.reference import decode_nms
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.align import Alignment, align
from apex_runtime.parity.suppression import Kept, Slack, explain_suppression
from apex_runtime.parity.tolerance import Tolerance

SIDE = 160  # the finest level has 400 anchors: more than enter
SLACK = Slack(Tolerance(atol=1e-4, rtol=0), Tolerance(atol=0.05, rtol=0))
RULES = {"max_detections": 60, "pre_nms": 333, "score": 0.001, "iou": 0.6}
INFO = ModelInfo.model_validate(
    {
        "classes": [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}],
        "input": {"height": SIDE, "width": SIDE},
        "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]},
        "tiles": {"tile": 32, "halo": 8, "rows": 5, "cols": 5},
        "mask": {"channels": 2},
        "max_detections": 60,
        "decode": "nms",
        "gflops": {"base": 1.0, "per_tile": 0.5},
        "model": {},
    }
)


@dataclass
class Scene:
    """Inputs of DecodeNMS: scores from a coarse grid and boxes on integer corners, so that ties and IoU = 0.6 abound."""

    scores: np.ndarray
    ltrb: np.ndarray
    centres: np.ndarray
    strides: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> Scene:
        strides = np.concatenate([np.full((SIDE // s) ** 2, s) for s in (8, 16, 32)]).astype(np.float64)
        count = len(strides)
        levels = int(rng.choice([1, 4, 200]))  # how many different scores
        best = rng.integers(1, levels + 1, count) / (levels + 1)
        scores = np.where(rng.integers(0, 2, count)[:, None] == np.arange(2), best[:, None], 0.0)
        pixels = rng.integers(1, 6, (count, 4)) * rng.choice([2.0, 8.0])
        return cls(scores[None], (pixels / strides[:, None])[None], rng.integers(0, SIDE, (count, 2)).astype(float), strides)

    def shaken(self, rng: np.random.Generator) -> Scene:
        """The same computed elsewhere: the last digits differ."""
        scores = self.scores * (1 + rng.uniform(-1e-6, 1e-6, self.scores.shape))
        return Scene(scores, self.ltrb * (1 + rng.uniform(-1e-6, 1e-6, self.ltrb.shape)), self.centres, self.strides)

    def kept(self, **changed: Any) -> Kept:
        boxes, scores, labels, ids = decode_nms(self.scores, self.ltrb, self.centres, self.strides, **RULES | changed)
        return Kept(ids[0], scores[0], labels[0], boxes[0])


def judge(reference: Kept, candidate: Kept) -> Alignment:
    pairing = align(reference.ids, reference.scores, candidate.ids, candidate.scores, SLACK.scores)
    return explain_suppression(pairing, reference, candidate, SLACK, INFO)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_rounding_is_explained(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = Scene.random(rng)
    found = judge(scene.kept(), scene.shaken(rng).kept())
    assert found.missing == 0 and found.exempt == len(found.lost) + len(found.extra)


def test_rounding_changes_lists_at_all() -> None:
    """Or the test above shows nothing."""
    missing = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scene = Scene.random(rng)
        first, second = scene.kept(), scene.shaken(rng).kept()
        missing += align(first.ids, first.scores, second.ids, second.scores, SLACK.scores).missing
    assert missing > 0


@pytest.mark.parametrize("changed", [{"iou": 1.0}, {"iou": 0.3}, {"score": 0.5}, {"pre_nms": 20}])
def test_another_suppression_is_not(changed: dict[str, float]) -> None:
    """Distinct scores over the whole range, so that nothing is a tie."""
    rng = np.random.default_rng(1)
    scene = Scene.random(rng)
    best = np.linspace(0.9, 0.1, len(scene.strides))[rng.permutation(len(scene.strides))]
    scene.scores = np.where(scene.scores > 0, best[None, :, None], 0)
    assert judge(scene.kept(max_detections=525), scene.kept(max_detections=525, **changed)).missing > 0


def lists(*rows: tuple[int, float, int, tuple[float, ...]], first: int = 400) -> Kept:
    """(id, score, label, box) each, and one empty place behind them. From ``first`` = 400 on lies a level that enters whole."""
    ids, scores, labels, boxes = zip(*rows, (-1 - first, 0.0, -1, (0, 0, 0, 0)), strict=True)
    return Kept(np.array(ids) + first, np.array(scores, np.float32), np.array(labels), np.array(boxes, np.float32))


A, NEAR_A, BESIDE_A, FAR = (0, 0, 20, 20), (0, 0, 20, 18), (0, 0, 20, 12), (80, 80, 99, 99)  # IoU with A: 0.9, 0.6, 0


@pytest.mark.parametrize(
    ("reference", "candidate", "missing"),
    [
        ([(1, 0.9, 0, A)], [(2, 0.90001, 0, NEAR_A)], 0),  # neighbours change places
        ([(1, 0.9, 0, A)], [(2, 0.8, 0, NEAR_A)], 2),  # the worse one cannot have won
        ([(1, 0.9, 0, A)], [(2, 0.90001, 1, NEAR_A)], 2),  # another class suppresses nothing
        ([(1, 0.9, 0, A)], [(2, 0.90001, 0, FAR)], 2),  # nor does a box elsewhere
        ([(1, 0.9, 0, A), (2, 0.8, 0, BESIDE_A)], [(1, 0.9, 0, A)], 0),  # IoU on the threshold
        ([(1, 0.9, 0, A), (2, 0.8, 0, NEAR_A)], [(1, 0.9, 0, A)], 1),  # IoU far above it: the reference failed to suppress
        ([(1, 0.9, 0, FAR), (2, 0.00105, 0, A)], [(1, 0.9, 0, FAR)], 0),  # at the score threshold
        ([(1, 0.9, 0, FAR), (2, 0.0012, 0, A)], [(1, 0.9, 0, FAR)], 1),
    ],
)
def test_one_by_one(reference: list, candidate: list, missing: int) -> None:
    assert judge(lists(*reference), lists(*candidate)).missing == missing
    assert judge(lists(*candidate), lists(*reference)).missing == missing


def test_a_chain_goes_back_to_its_cause() -> None:
    """1 and 2 tie; where 1 wins it leaves 3, where 2 wins it removes 3. Without the tie, 3 is not explained either."""
    box_1, box_2, box_3 = (0, 0, 20, 20), (4, 0, 24, 20), (8, 0, 28, 20)  # IoU 0.67 between neighbours, 0.43 at the ends
    for score_2, missing in ((0.9, 0), (0.7, 3)):
        first, second = lists((1, 0.9, 0, box_1), (3, 0.5, 0, box_3)), lists((2, score_2, 0, box_2))
        assert judge(first, second).missing == missing


def test_the_edge_of_what_enters_of_a_level() -> None:
    """Anchor 5 lies on the level of 400, anchor 450 on that of 100, all of which enter."""
    for anchor, missing in ((5, 0), (450, 1)):
        common = ((1, 0.5, 0, FAR),)
        assert judge(lists(*common, (5, 0.5, 0, A), first=anchor), lists(*common, first=anchor)).missing == missing
    common = ((6, 0.5, 0, FAR), (7, 0.2, 0, (120, 0, 140, 20)))
    assert judge(lists(*common, (5, 0.5, 0, A), first=0), lists(*common, first=0)).missing == 1, "what is worse did enter"
    beaten = ((6, 0.9, 0, NEAR_A), (5, 0.5, 0, A))
    assert judge(lists(*beaten, first=0), lists(beaten[0], first=0)).missing == 1, "its own side should have removed it"
