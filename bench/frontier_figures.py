"""What the frontier of checkpoints is asked: means over trainings, shares kept, what of the oracle's gain the router has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from frontier_run import ALL, DENSE, PERIPHERAL, SLICED

from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.figures import Sampled, as_json, averaged_figures, interval
from apex_runtime.routing.budget import parse_budget

FIGURES = ("AP50", "AP")


def averaged(runs: Sequence[Sampled]) -> Sampled:
    """The mean over checkpoints of every line and figure, resample by resample."""
    return {line: averaged_figures([run[line] for run in runs]) for line in runs[0]}


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
