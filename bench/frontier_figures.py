"""From matches to figures with intervals: one set of resamples of the images (Efron 1979) for every line, so that differences and
ratios of lines are paired.

Legend: R resamples, the images as they are first; T overlap thresholds. A figure of a line is float64 [R+1], a fraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from frontier_choices import Line
from frontier_run import ALL, DENSE, PERIPHERAL, SLICED

from apex_runtime.evaluation.bootstrap import Interval, Matches, average_precision
from apex_runtime.routing.budget import parse_budget

Sampled = dict[Line, dict[str, np.ndarray]]
FIGURES = ("AP50", "AP")


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


def averaged(runs: Sequence[Sampled]) -> Sampled:
    """The mean over checkpoints of every line and figure, resample by resample."""
    return {line: averaged_figures([run[line] for run in runs]) for line in runs[0]}


def interval(values_R: np.ndarray) -> Interval:
    """The value of the images as they are, and the 2.5 % and 97.5 % quantiles of the resamples where it is defined."""
    drawn = values_R[1:][np.isfinite(values_R[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn.size else (np.nan, np.nan)
    return Interval(float(low), float(values_R[0]), float(high))


def as_json(found: Interval) -> dict[str, float | None]:
    """For a file: what is not finite is None."""
    return {name: value if np.isfinite(value) else None for name, value in vars(found).items()}


def summary(lines: Sampled, budgets: Sequence[str], kind: str) -> dict[str, Any]:
    """What the frontier is asked, of boxes or masks: shares kept, what of the oracle's gain the router has, differences of lines.

    ``kept``: figure at a budget over that of all tiles. ``captured``: (router - random) / (oracle - random), undefined in
    resamples where the oracle is no better than random; their share is ``undefined``.
    """
    found: dict[str, Any] = {"kept": {}, "captured": {}, "captured of coverage": {}, "all tiles minus": {}}
    for figure in FIGURES:
        name = f"{figure}_{kind}"
        full = lines[ALL][name]
        for other in (PERIPHERAL, DENSE, SLICED):
            found["all tiles minus"].setdefault(other.kind, {})[figure] = as_json(interval(full - lines[other][name]))
        for budget in budgets:
            router, random, oracle, coverage = (
                lines[Line(each, budget)][name] for each in ("router", "random", "oracle", "coverage")
            )
            found["kept"].setdefault(budget, {})[figure] = as_json(interval(_over(router, full)))
            for key, best in (("captured", oracle), ("captured of coverage", coverage)):
                found[key].setdefault(budget, {})[figure] = _captured(router, random, best)
    return found


def _captured(router: np.ndarray, random: np.ndarray, best: np.ndarray) -> dict[str, float | None]:
    share = _over(router - random, best - random)
    return as_json(interval(share)) | {"undefined": float(np.mean(~np.isfinite(share[1:])))}


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the divisor is not above zero."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


ORDER = ("peripheral", "router", "all tiles", "random", "oracle", "coverage", "dense", "sliced")


def _place(line: Line) -> tuple[int, float, int]:
    """Where a line stands in a table."""
    return ORDER.index(line.kind), parse_budget(line.budget).value if line.budget else 0.0, -1 if line.seed is None else line.seed


def rows(lines: Sampled, tiles: dict[Line, float], time: dict[Line, dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines for a file: their figures with intervals, tiles per image (None: not counted in tiles), and what ``time`` says of
    them; of a budget it knows the router's line, which costs what every other choice of as many tiles does."""
    found = []
    for line, figures in sorted(lines.items(), key=lambda item: _place(item[0])):
        same = Line("router", line.budget) if line.budget else line
        head = {"line": line.kind, "budget": line.budget, "seed": line.seed}
        cost = {"tiles": tiles.get(same)} | time.get(same, {})
        found.append(head | cost | {name: as_json(interval(values)) for name, values in figures.items()})
    return found
