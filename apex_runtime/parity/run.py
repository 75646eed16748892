"""Run two sessions on the same images under several budgets and collect what differs, at all three levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from apex_runtime.backends.session import Session, Tiles, in_all
from apex_runtime.errors import ModelError
from apex_runtime.model_info import ModelInfo, TileInfo, output_names
from apex_runtime.parity.average_precision import MIN_SCORE, Labels, Scorer
from apex_runtime.parity.cases import Case
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.decision import Choice, Decisions, totals, utility_slack
from apex_runtime.parity.outputs import FORCED, Outputs, compare_outputs, forcing_bonus
from apex_runtime.parity.recording import RecordingSession
from apex_runtime.parity.task import both_sides, compare_task
from apex_runtime.parity.task_stats import TaskStats
from apex_runtime.parity.tolerance import Rules
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.quadtree import flat_ids, flat_utilities
from apex_runtime.routing.split import plan_tiles


@dataclass
class BudgetResult:
    """All levels of one budget at one batch size over all images. ``tiles``: the K of every image, in the order of the cases, of
    all levels of tiles together."""

    asked: str
    batch: int = 1
    tiles: list[int] = field(default_factory=list)
    outputs: dict[str, Stats] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)
    task: TaskStats = field(default_factory=TaskStats)

    def reasons(self, rules: Rules) -> list[str]:
        """Why this budget fails; empty when it passes."""
        tensor = [f"{name}: {why}" for name, stats in self.outputs.items() for why in stats.reasons(*rules.gate(name))]
        decision = [f"decision: {why}" for why in self.decisions.reasons(rules.min_overlap)]
        return tensor + decision + [f"task: {why}" for why in self.task.reasons(rules.task_limits)]


@dataclass(frozen=True, eq=False)
class Seen:
    """What both sides said of one image, each a batch of one: left alone, and with the tiles ``chosen_K`` forced."""

    case: Case
    bonus_N: np.ndarray
    chosen_K: np.ndarray
    free_reference: Outputs
    free_candidate: Outputs
    forced_reference: Outputs
    forced_candidate: Outputs


# Told every image of every budget, after it was judged.
Watcher = Callable[[BudgetResult, Seen], object]


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
    batches: Sequence[int] = (1,),
    watcher: Watcher = lambda result, seen: None,
    labels: Labels | None = None,
) -> list[BudgetResult]:
    """Compare two sessions whose ``info`` agrees, in every combination of a budget and a batch size.

    ``progress(done, 0)`` is called after every image of every combination. ``labels``: those of the real ``cases``, if there are
    any.
    """
    names = output_names(reference.info.tiles.depth)
    results = []
    done = 0
    for budget, batch in product(budgets, batches):
        result = BudgetResult(budget.asked, batch, outputs={name: Stats() for name in names})
        result.tiles = [in_all(plan_tiles(budget, case.content_N, reference.info)) for case in cases]
        scorer = Scorer(labels, reference.info) if labels else None
        for seen in look_at_all(reference, candidate, cases, [budget], [batch]):
            _judge(seen, rules, reference.info, result)
            if scorer is not None and seen.case.image_id is not None:
                _score(scorer, seen, reference.info, result.task)
            watcher(result, seen)
            done += 1
            progress(done, 0)
        if scorer is not None and not result.task.problems:
            result.task.precision = scorer.score()
        results.append(result)
    return results


def look_at_all(
    reference: Session, candidate: Session, cases: Sequence[Case], budgets: Sequence[Budget], batches: Sequence[int]
) -> Iterator[Seen]:
    """What both sides say of every image, in every combination of a budget and a batch size."""
    for budget, batch in product(budgets, batches):
        plans = [plan_tiles(budget, case.content_N, reference.info) for case in cases]
        for tiles, group in _groups(cases, plans, batch):
            yield from _look(reference, candidate, group, tiles)


def _groups(cases: Sequence[Case], plans: Sequence[Tiles], batch: int) -> Iterator[tuple[Tiles, list[Case]]]:
    """Images of one K, at most ``batch`` at a time: K is one number for the whole batch."""
    for tiles in dict.fromkeys(plans):
        same = [case for case, own in zip(cases, plans, strict=True) if own == tiles]
        yield from ((tiles, same[start : start + batch]) for start in range(0, len(same), batch))


def _look(reference: Session, candidate: Session, cases: Sequence[Case], tiles: Tiles) -> Iterator[Seen]:
    """What both sides say of a batch, image by image: left alone, then with the tiles forced that the reference chose.

    A recording answers only what it was asked, so a recorded candidate has its own choice forced instead.
    """
    info = reference.info
    images = np.stack([case.pixels for case in cases])
    bonus_BN = np.stack([padding_bonus(case.content_N) for case in cases])
    free = [side.run(images, tiles, bonus_BN) for side in (reference, candidate)]
    recorded = isinstance(candidate, RecordingSession)
    chosen = [chosen_tiles(_image(free[recorded], row), info.tiles) for row in range(len(cases))]
    _check_chosen(np.concatenate(chosen), (reference, candidate)[recorded], info.tiles)
    forced_BN = np.concatenate([forcing_bonus(chosen_K, info.tiles.count) for chosen_K in chosen])
    forced = [side.run(images, tiles, forced_BN) for side in (reference, candidate)]
    for row, case in enumerate(cases):
        yield Seen(case, bonus_BN[row], chosen[row], *(_image(outputs, row) for outputs in (*free, *forced)))


def _check_chosen(tiles_n: np.ndarray, side: Session, tiles: TileInfo) -> None:
    """Only tiles that there are can be forced. Raises ModelError."""
    wrong = tiles_n[(tiles_n < 0) | (tiles_n >= tiles.count)]
    if wrong.size:
        message = f"{side.name} chose tile {wrong[0]}, and the model has the tiles 0 to {tiles.count - 1}."
        raise ModelError(message, "Nothing can be compared under these tiles: export or record it again.")


def _image(outputs: Outputs, row: int) -> Outputs:
    """One image of a batch, as a batch of one."""
    return {name: array[row : row + 1] if array.ndim else array for name, array in outputs.items()}


def _judge(seen: Seen, rules: Rules, info: ModelInfo, result: BudgetResult) -> None:
    """All levels of one image. Decision level: the bonus is the one that every deployed run gets, zero on content and -24 on
    padding; the task level looks at the same runs. Tensor level: the same tiles on both sides, so that a flipped tile cannot hide
    what the numbers do."""
    case = seen.case
    free = seen.free_reference, seen.free_candidate
    choice = add_decision(seen, rules, info.tiles, result.decisions)
    if choice == "explained" and rules.sets_aside_swaps and not case.synthetic:
        result.task.add(TaskStats(images=1, set_aside=1))
    elif not case.synthetic:
        result.task.add(compare_task(*free, case, rules, info))
    found = compare_outputs(seen.forced_reference, seen.forced_candidate, rules, info)
    if not np.array_equal(np.sort(chosen_tiles(seen.forced_reference, info.tiles)), np.sort(seen.chosen_K)):
        found["tile_ids"].problems.append("the reference does not run the tiles that tile_bonus forces")
    counts = rules.judges_synthetic or not case.synthetic
    for name, stats in found.items():
        result.outputs[name].add(stats if counts or name in FORCED else stats.beyond_judgement())


def _score(scorer: Scorer, seen: Seen, info: ModelInfo, task: TaskStats) -> None:
    """What one labelled image adds to the average precision, whatever tiles were chosen."""
    sides = both_sides(seen.free_reference, seen.free_candidate, seen.case, info, MIN_SCORE)
    if isinstance(sides, str):
        task.add(TaskStats(problems=[sides]))
    else:
        scorer.add(seen.case, *sides)


def add_decision(seen: Seen, rules: Rules, tiles: TileInfo, decisions: Decisions) -> Choice:
    """Take the choices of both sides, left alone, into ``decisions``.

    Where the numbers on synthetic images do not count any swap on them is explained: utilities are such numbers.
    """
    reference, candidate, case = seen.free_reference, seen.free_candidate, seen.case
    for name in FORCED:
        if name not in candidate:
            decisions.problems.append(f"the candidate has no output {name}")
            return "unexplained"
    utilities_N = flat_utilities(reference, tiles)[0]
    judged = rules.judges_synthetic or not case.synthetic
    slack = utility_slack(utilities_N, rules.slack("utilities")) if judged else math.inf
    first, second = (chosen_tiles(side, tiles) for side in (reference, candidate))
    levels = [grid.flat for grid in tiles.levels]
    return decisions.add(first, second, totals(utilities_N, seen.bonus_N), slack, real=not case.synthetic, levels=levels)


def chosen_tiles(outputs: Outputs, tiles: TileInfo) -> np.ndarray:
    """Flat numbers of the tiles of the one image, int64 [K], whatever the form of the outputs. Levels that cannot be are read as
    level 0 here: ``compare_outputs`` reports them, and another form."""
    ids_K, levels_K = (outputs[name].reshape(-1) for name in FORCED)
    possible = levels_K.shape == ids_K.shape and np.isin(levels_K, range(tiles.depth)).all()
    return flat_ids(ids_K, levels_K if possible else np.zeros_like(ids_K), tiles)
