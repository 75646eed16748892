"""From matches to figures with intervals: one set of resamples of the images (Efron 1979) for every line, so that differences and
ratios of lines are paired.

Legend: R resamples, the images as they are first. A figure of a line is float64 [R+1], a fraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.evaluation.bootstrap import Interval, Matches, average_precision
from apex_runtime.frontier.choices import Line

Sampled = dict[Line, dict[str, np.ndarray]]
LEAST_IMAGES = 5  # of one image all resamples are the same: an interval without width, of which nobody could be sure


def resamples(images: int, samples: int, seed: int = 0) -> np.ndarray:
    """int64 [R+1,images]: how often each image counts."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


def sampled(matches: dict[Line, dict[str, Matches]], counts_RI: np.ndarray) -> Sampled:
    """Every figure of every line; random tiles also as the mean over their seeds."""
    found = {line: _figures(kinds, counts_RI) for line, kinds in matches.items()}
    for budget in {line.budget for line in matches if line.kind == "random"}:
        seeds = [found[line] for line in matches if line.kind == "random" and line.budget == budget]
        found[Line("random", budget)] = averaged_figures(seeds)
    return found


def _figures(kinds: dict[str, Matches], counts_RI: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for kind, matches in kinds.items():
        precision_RT = np.stack([average_precision(matches, counts) for counts in counts_RI])
        found[f"AP50_{kind}"] = precision_RT[:, np.isclose(matches.thresholds, 0.5)][:, 0]
        found[f"AP_{kind}"] = precision_RT.mean(1)
    return found


def averaged_figures(each: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of every figure, resample by resample."""
    return {name: np.mean([figures[name] for figures in each], axis=0) for name in each[0]}


def interval(values_R: np.ndarray) -> Interval:
    """The value of the images as they are, and the 2.5 % and 97.5 % quantiles of the resamples where it is defined."""
    drawn = values_R[1:][np.isfinite(values_R[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn.size else (np.nan, np.nan)
    return Interval(float(low), float(values_R[0]), float(high))


def as_json(found: Interval) -> dict[str, float | None]:
    """For a file: what is not finite is None."""
    return {name: value if np.isfinite(value) else None for name, value in vars(found).items()}
