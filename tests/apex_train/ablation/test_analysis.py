"""Verdicts on simulated scores: what does nothing is rarely called something, what does something is found."""

from typing import Any, Literal

import numpy as np
import pytest
from scipy.stats import binom

from apex_train.ablation.analysis import compare
from apex_train.ablation.plan import arms
from apex_train.ablation.study import Study

REPEATS = 300


def study(levels: int = 3, seeds: int = 9, **changes: Any) -> Study:
    factors = [{"key": f"loss.{key}", "levels": list(range(levels))} for key in ("cls", "box")]
    made = {"name": "simulated", "data": "none", "epochs": 1, "seeds": [*range(seeds)], "factors": factors}
    return Study.model_validate(made | changes)


def simulated(what: Study, repeat: int, gain: float = 0.0) -> dict[tuple[tuple[str, ...], int], float]:
    """Scores of arms: a part of the seed that all share, and one of their own; the second level of the first factor gains."""
    rng = np.random.default_rng(repeat)
    common = dict(zip(what.seeds, rng.normal(0.5, 0.03, len(what.seeds)), strict=True))
    scores = {}
    for arm in arms(what):
        names = tuple(level.name for level in arm)
        for seed in what.seeds:
            scores[names, seed] = float(common[seed] + rng.normal(0, 0.01) + gain * (names[0] == "1"))
    return scores


@pytest.mark.parametrize("test", ["permutation", "student"])
@pytest.mark.parametrize("design", ["one-factor", "full"])
def test_a_study_of_nothing_says_so(test: Literal["permutation", "student"], design: str) -> None:
    """At most alpha of the studies, with four comparisons each, find anything; what chance adds to the count is allowed for."""
    what = study(test=test, design=design)
    wrong = [any(each.verdict != "no difference shown" for each in compare(what, simulated(what, n))) for n in range(REPEATS)]
    assert sum(wrong) <= binom.ppf(0.99, REPEATS, what.alpha)


def test_without_the_correction_there_would_be_more() -> None:
    """The simulation is no formality: single p values below alpha do occur in it."""
    what = study()
    raw = [min(each.p for each in compare(what, simulated(what, n))) <= what.alpha for n in range(REPEATS)]
    assert sum(raw) > binom.ppf(0.99, REPEATS, what.alpha)


@pytest.mark.parametrize(("gain", "verdict"), [(0.03, "validated"), (-0.03, "harmful")])
@pytest.mark.parametrize("design", ["one-factor", "full"])
def test_what_does_something_is_found(gain: float, verdict: str, design: str) -> None:
    """And the three levels that do nothing beside it are left alone as often as they should be."""
    what, repeats = study(design=design), 50
    studies = [compare(what, simulated(what, n, gain)) for n in range(repeats)]
    assert [(each.factor, each.level) for each in studies[0]][:2] == [("loss.cls", "1"), ("loss.cls", "2")]
    assert sum(found[0].verdict == verdict for found in studies) >= 0.95 * repeats
    assert sum(found[0].interval[0] <= gain <= found[0].interval[1] for found in studies) >= 0.85 * repeats
    wrong = [any(each.verdict != "no difference shown" for each in found[1:]) for found in studies]
    assert sum(wrong) <= binom.ppf(0.99, repeats, what.alpha)


def test_pairs_show_what_unpaired_seeds_hide() -> None:
    """A difference a third of the spread between seeds."""
    what = study(levels=2)
    found = compare(what, simulated(what, 1, 0.02))[0]
    assert found.verdict == "validated"
    assert np.std(found.reference_scores) > 0.8 * found.difference


def test_a_full_design_averages_over_the_other_factors() -> None:
    what = study(levels=2, seeds=7, design="full")
    scores = {(tuple(level.name for level in arm), seed): 0.0 for arm in arms(what) for seed in what.seeds}
    for seed in what.seeds:
        scores[("1", "0"), seed], scores[("1", "1"), seed], scores[("0", "1"), seed] = 0.2, 0.4, 0.1
    first, second = compare(what, scores)
    assert first.differences == pytest.approx([(0.2 + 0.3) / 2] * 7)
    assert second.differences == pytest.approx([(0.1 + 0.2) / 2] * 7)


def test_a_missing_score_is_no_zero() -> None:
    what = study()
    scores = simulated(what, 0)
    scores.pop(next(iter(scores)))
    with pytest.raises(KeyError):
        compare(what, scores)
