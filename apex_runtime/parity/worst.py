"""Which images a page shows: the worst real ones of a comparison, drawn when they enter the list, so that nothing else is kept.

Order: images that fail come first. Among equals the one with the least overlap of the tiles: after one other tile everything
behind it differs, so that such an image explains more than any number. Then by strain: how much of the tolerance the scores and
the mask prototypes take up, under the same tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.check import Comparison
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.decision import Decisions, overlap
from apex_runtime.parity.outputs import compare_outputs
from apex_runtime.parity.panels import Panel, draw_panels
from apex_runtime.parity.run import BudgetResult, Seen, Watcher, add_decision, chosen_tiles
from apex_runtime.parity.tolerance import Rules

MOST = 6  # images of a comparison on a page
_STRAINED = ("scores", "mask_prototypes")


class Badness(NamedTuple):
    """Sorts images, the worst last: whether it fails, the share of the reference's tiles that the candidate did not choose, and
    the part of the tolerance that is used up (above 1: beyond it)."""

    fails: bool
    other_tiles: float
    strain: float


@dataclass(frozen=True)
class Sight:
    """An image as a page shows it. ``reasons`` are those of this image alone; ``panels`` are pictures, encoded."""

    name: str
    asked: str
    batch: int
    badness: Badness
    reasons: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass
class Worst:
    """The worst images of one comparison, each once, at its worst budget. ``sights``: the worst first."""

    info: ModelInfo
    rules: Rules
    sights: list[Sight] = field(default_factory=list)

    def watch(self, result: BudgetResult, seen: Seen) -> None:
        """Take in an image, a ``Watcher``: it is drawn when it belongs to the worst so far."""
        if seen.case.synthetic:
            return
        name = seen.case.name
        badness, reasons, found = _judge(seen, self.rules, self.info)
        rivals = [sight for sight in self.sights if sight.name == name] or self.sights[MOST - 1 :]
        if rivals and rivals[0].badness >= badness:
            return
        panels = draw_panels(seen, self.info, found, result.asked)
        sight = Sight(name, result.asked, result.batch, badness, reasons, panels)
        others = [other for other in self.sights if other.name != name]
        self.sights = sorted([*others, sight], key=lambda item: item.badness, reverse=True)[:MOST]


@dataclass
class Gallery:
    """The worst images of all comparisons of a command."""

    rooms: list[tuple[Comparison, Worst]] = field(default_factory=list)

    def open(self, comparison: Comparison, info: ModelInfo, rules: Rules) -> Watcher:
        """The watcher of a comparison that is about to run: a ``Watch`` of ``check_parity``."""
        room = Worst(info, rules)
        self.rooms.append((comparison, room))
        return room.watch

    def sights(self, comparison: Comparison) -> list[Sight]:
        """What is shown of a comparison, the worst first; nothing of one that never ran."""
        return next((room.sights for shown, room in self.rooms if shown is comparison), [])


def strain(stats: Stats, rules: Rules, output: str) -> float:
    """Which part of its tolerance an output takes up: of the largest difference, at the typical size of the reference's values;
    in eight bits of the noise that the least ratio of signal to noise allows. Infinite with a NaN or without anything to compare.
    """
    if stats.problems or stats.non_finite or not stats.count:
        return math.inf
    tolerance, least = rules.tolerance(output), rules.gate(output).min_sqnr_db
    if tolerance is not None:
        allowed = tolerance.atol + tolerance.rtol * math.sqrt(stats.signal / stats.count)
        return stats.max_abs / allowed if allowed > 0 else (math.inf if stats.max_abs else 0.0)
    return 10 ** (((least or 0.0) - stats.sqnr_db) / 20)


def _judge(seen: Seen, rules: Rules, info: ModelInfo) -> tuple[Badness, tuple[str, ...], dict[str, Stats]]:
    """A profile judges all images together; here each alone, except for ratios of signal to noise, which it does not promise."""
    found = compare_outputs(seen.forced_reference, seen.forced_candidate, rules, info)
    decisions = Decisions()
    add_decision(seen, rules, info.tiles, decisions)
    reasons = [
        *(f"{name}: {why}" for name, stats in found.items() for why in stats.reasons(rules.gate(name).mismatch_limit)),
        *(f"decision: {why}" for why in decisions.reasons(min_overlap=0.0)),
    ]
    other = 1.0
    if decisions.images:
        other -= overlap(*(chosen_tiles(side, info.tiles) for side in (seen.free_reference, seen.free_candidate)))
    badness = Badness(bool(reasons), other, max(strain(found[name], rules, name) for name in _STRAINED))
    return badness, tuple(reasons), found
