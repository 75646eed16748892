"""From the scores of a study to a verdict per level: differences in pairs of equal seeds, tested and corrected together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from apex_train.ablation import statistics
from apex_train.ablation.plan import arms
from apex_train.ablation.study import Study

Verdict = Literal["validated", "harmful", "no difference shown"]
# names of the levels of all factors, seed
Scores = Mapping[tuple[tuple[str, ...], int], float]


@dataclass(frozen=True)
class Comparison:
    """A level against its factor's reference; all figures are shares of AP, differences are level minus reference.

    ``differences`` and the two rows of scores are one per seed; in a full design each is the mean over the other factors.
    ``interval`` is that of the test at 1 - alpha, not corrected, infinite where the seeds are too few; ``bootstrap``
    resamples seeds. ``effect_size`` is in standard deviations of the differences, None where they have none.
    """

    factor: str
    level: str
    reference: str
    scores: tuple[float, ...]
    reference_scores: tuple[float, ...]
    differences: tuple[float, ...]
    difference: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    effect_size: float | None
    p: float
    p_corrected: float
    verdict: Verdict


def compare(study: Study, scores: Scores) -> list[Comparison]:
    """Every level that is not its factor's reference. Raises KeyError when a score is missing."""
    found = [
        _compare(study, scores, place, level.name) for place, factor in enumerate(study.factors) for level in factor.levels[1:]
    ]
    corrected = statistics.holm([each.p for each in found])
    return [
        replace(each, p_corrected=p, verdict=_verdict(each.difference, p, study.alpha))
        for each, p in zip(found, corrected, strict=True)
    ]


def _compare(study: Study, scores: Scores, place: int, level: str) -> Comparison:
    reference = study.factors[place].levels[0].name
    own, other = _by_seed(study, scores, place, level), _by_seed(study, scores, place, reference, like=level)
    differences = own - other
    permutation = study.test == "permutation"
    test = statistics.permutation_p if permutation else statistics.student_p
    bounds = statistics.permutation_interval if permutation else statistics.student_interval
    p = test(differences)
    return Comparison(
        factor=study.factors[place].name,
        level=level,
        reference=reference,
        scores=tuple(own.tolist()),
        reference_scores=tuple(other.tolist()),
        differences=tuple(differences.tolist()),
        difference=float(differences.mean()),
        interval=bounds(differences, 1 - study.alpha),
        bootstrap=statistics.bootstrap_mean(differences, 1 - study.alpha),
        effect_size=statistics.effect_size(differences),
        p=p,
        p_corrected=p,
        verdict="no difference shown",
    )


def _by_seed(study: Study, scores: Scores, place: int, level: str, like: str | None = None) -> np.ndarray:
    """Per seed the mean over the arms in which the factor has the level ``like``, its level then taken to be ``level``."""
    names = [tuple(each.name for each in arm) for arm in arms(study)]
    chosen = [(*arm[:place], level, *arm[place + 1 :]) for arm in names if arm[place] == (like or level)]
    return np.array([_mean([scores[arm, seed] for arm in chosen]) for seed in study.seeds])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _verdict(difference: float, p_corrected: float, alpha: float) -> Verdict:
    if p_corrected > alpha or difference == 0:
        return "no difference shown"
    return "validated" if difference > 0 else "harmful"
