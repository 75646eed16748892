"""Run two sessions on the same images under several budgets and collect what differs, tensor level and decision level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from apex_runtime.backends.session import Session, in_all
from apex_runtime.model_info import ModelInfo, TileInfo, output_names
from apex_runtime.parity.cases import Case
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.decision import Decisions, totals, utility_slack
from apex_runtime.parity.outputs import FORCED, Outputs, compare_outputs, forcing_bonus
from apex_runtime.parity.tolerance import Rules
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.quadtree import flat_ids, flat_utilities
from apex_runtime.routing.split import plan_tiles


@dataclass
class BudgetResult:
    """Both levels of one budget over all images. ``tiles``: the K of every image, in the order of the cases, of all levels of
    tiles together."""

    asked: str
    tiles: list[int] = field(default_factory=list)
    outputs: dict[str, Stats] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)

    def reasons(self, rules: Rules) -> list[str]:
        """Why this budget fails; empty when it passes."""
        tensor = [f"{name}: {why}" for name, stats in self.outputs.items() for why in stats.reasons(*rules.gate(name))]
        return tensor + [f"decision: {why}" for why in self.decisions.reasons(rules.min_overlap)]


def info_differences(reference: ModelInfo, candidate: ModelInfo) -> list[str]:
    """What makes two files different models before anything runs: size, grid, classes, masks, preprocessing, decoding."""
    fields = ("input", "tiles", "classes", "mask", "preprocessing", "max_detections", "decode")
    return [
        f"{name}: the candidate has {getattr(candidate, name)}, the reference {getattr(reference, name)}"
        for name in fields
        if getattr(candidate, name) != getattr(reference, name)
    ]


def compare_sessions(
    reference: Session,
    candidate: Session,
    cases: Sequence[Case],
    budgets: Sequence[Budget],
    rules: Rules,
    progress: Callable[[int, int], None] = lambda done, failed: None,
) -> list[BudgetResult]:
    """Compare two sessions whose ``info`` agrees. ``progress(done, 0)`` is called after every image of every budget."""
    names = output_names(reference.info.tiles.depth)
    results = [BudgetResult(budget.asked, outputs={name: Stats() for name in names}) for budget in budgets]
    for done, (case, (budget, result)) in enumerate(product(cases, zip(budgets, results, strict=True)), 1):
        _compare_case(reference, candidate, case, budget, rules, result)
        progress(done, 0)
    return results


def _compare_case(
    reference: Session,
    candidate: Session,
    case: Case,
    budget: Budget,
    rules: Rules,
    result: BudgetResult,
) -> None:
    info = reference.info
    tiles = plan_tiles(budget, case.content_N, info)
    result.tiles.append(in_all(tiles))
    images = case.pixels[None]

    # Decision level: the bonus is the one that every deployed run gets, zero on content and -24 on padding.
    bonus_N = padding_bonus(case.content_N)
    free_reference = reference.run(images, tiles, bonus_N[None])
    free_candidate = candidate.run(images, tiles, bonus_N[None])
    _add_decision(free_reference, free_candidate, bonus_N, case, rules, info.tiles, result.decisions)

    # Tensor level: the reference's tiles on both sides, so that a flipped tile cannot hide what the numbers do.
    chosen_K = _chosen(free_reference, info.tiles)
    forced = forcing_bonus(chosen_K, info.tiles.count)
    forced_reference = reference.run(images, tiles, forced)
    forced_candidate = candidate.run(images, tiles, forced)
    found = compare_outputs(forced_reference, forced_candidate, rules, info)
    if not np.array_equal(np.sort(_chosen(forced_reference, info.tiles)), np.sort(chosen_K)):
        found["tile_ids"].problems.append("the reference does not run the tiles that tile_bonus forces")
    counts = rules.judges_synthetic or not case.synthetic
    for name, stats in found.items():
        result.outputs[name].add(stats if counts or name in FORCED else stats.beyond_judgement())


def _add_decision(
    reference: Outputs,
    candidate: Outputs,
    bonus_N: np.ndarray,
    case: Case,
    rules: Rules,
    tiles: TileInfo,
    decisions: Decisions,
) -> None:
    for name in ("tile_ids", "tile_levels"):
        if name not in candidate:
            decisions.problems.append(f"the candidate has no output {name}")
            return
    utilities_N = flat_utilities(reference, tiles)[0]
    slack = utility_slack(utilities_N, rules.slack("utilities"))
    first, second = (_chosen(side, tiles) for side in (reference, candidate))
    levels = [grid.flat for grid in tiles.levels]
    decisions.add(first, second, totals(utilities_N, bonus_N), slack, real=not case.synthetic, levels=levels)


def _chosen(outputs: Outputs, tiles: TileInfo) -> np.ndarray:
    """Flat numbers of the tiles of the one image, int64 [K]. Levels that cannot be are read as level 0 here: ``compare_outputs``
    reports them."""
    ids_K, levels_K = outputs["tile_ids"][0], outputs["tile_levels"][0]
    possible = levels_K.shape == ids_K.shape and np.isin(levels_K, range(tiles.depth)).all()
    return flat_ids(ids_K, levels_K if possible else np.zeros_like(ids_K), tiles)
