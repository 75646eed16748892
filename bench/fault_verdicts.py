"""What ``apex-rt parity`` says of one planted fault: its exit code, the levels that saw it, and by how many tolerances."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from click.testing import CliRunner
from fault_levels import levels_of

from apex_runtime.cli.main import main
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity import check
from apex_runtime.parity.check import Comparison, ParityResult, check_parity
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.outputs import compare_outputs
from apex_runtime.parity.run import BudgetResult, Seen, Watcher
from apex_runtime.parity.tolerance import Rules, load_profile

BUDGET = "0.5"
WITHOUT_END = 1e9  # tolerances: not finite, or of eight bits all noise


@dataclass
class Felt:
    """How far a candidate is off. ``exact``: outputs whose form or whose integers differ, for which there is no tolerance."""

    worst: float = 0.0
    worst_real: float = 0.0
    exact: set[str] = field(default_factory=set)

    def watch(self, _comparison: Comparison, info: ModelInfo, rules: Rules) -> Watcher:
        """For ``check_parity``."""
        return lambda _result, seen: self._take(seen, rules, info)

    def _take(self, seen: Seen, rules: Rules, info: ModelInfo) -> None:
        found = compare_outputs(seen.forced_reference, seen.forced_candidate, rules, info)
        for name, stats in found.items():
            if stats.problems or (stats.mismatches and seen.forced_reference[name].dtype.kind in "iu"):
                self.exact.add(name)
        times = max(_times(name, stats, seen, rules) for name, stats in found.items())
        self.worst = max(self.worst, times)
        self.worst_real = max(self.worst_real, 0.0 if seen.case.synthetic else times)


def _times(name: str, stats: Stats, seen: Seen, rules: Rules) -> float:
    """By how many tolerances an output is off on one image. Of what is aligned, at least: as if its largest value were wrong."""
    allowed = rules.tolerance(name)
    if stats.problems or allowed is None or seen.forced_reference[name].dtype.kind in "iu":
        return 0.0
    if stats.non_finite:
        return WITHOUT_END
    if name not in ("mask_prototypes", "utilities"):
        return stats.max_abs / (allowed.atol + allowed.rtol * float(np.abs(seen.forced_reference[name]).max()))
    sides = ((seen.forced_reference, seen.forced_candidate), (seen.free_reference, seen.free_candidate))
    pairs = ((first[name].astype(np.float64), second[name]) for first, second in sides)
    return max(float((np.abs(b - a) / (allowed.atol + allowed.rtol * np.abs(a))).max()) for a, b in pairs)


@dataclass(frozen=True)
class Verdict:
    """``code``: how the command ended. ``in_tolerances``: the worst value on any image, ``on_real`` on the real ones."""

    code: int
    levels: list[str]
    in_tolerances: float
    on_real: float
    exact: list[str]
    reasons: list[str]

    @property
    def by_ten(self) -> bool:
        """Whether it moved an output by ten tolerances, or one that has none, or never got as far as an output."""
        refused = bool(self.levels) and not {"tensor", "decision", "task"} & set(self.levels)
        return self.in_tolerances >= 10 or bool(self.exact) or refused

    def row(self) -> dict[str, Any]:
        """For the evidence."""
        return asdict(self) | {"reasons": [reason[:200] for reason in self.reasons]}


def judge(reference: Path, candidate: Path, images: Path, batch: int = 1) -> Verdict:
    """Run the command, with a look at every image that it compares."""
    felt, results = Felt(), list[ParityResult]()

    def watched(*arguments: Any) -> ParityResult:
        results.append(check_parity(*arguments[:4], watch=felt.watch))
        return results[-1]

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(check, "check_parity", watched):
        words = ["parity", reference, "--against", candidate, "--images", images, "--budget", BUDGET, "--batch", batch]
        ran = CliRunner().invoke(main, [*map(str, words), "-o", str(Path(folder) / "parity.json")])
    if not results:  # the command ended before there was a report
        return Verdict(ran.exit_code, ["refused"], 0.0, 0.0, [], [ran.stderr])
    (comparison,) = results[0].comparisons
    levels = levels_of(comparison.reasons)
    if "decision" in levels:
        felt.exact.add("tile_ids")
    if comparison.candidate.precision == "int8":
        felt.exact.clear()  # rounding lets tiles and the ends of lists differ
        felt.worst = felt.worst_real = max(map(_in_noise, comparison.budgets), default=0.0)
    rounded = (round(min(times, WITHOUT_END), 1) for times in (felt.worst, felt.worst_real))
    return Verdict(ran.exit_code, levels, *rounded, sorted(felt.exact), comparison.reasons)


def _in_noise(result: BudgetResult) -> float:
    """In eight bits: by how much the noise of an output is above the noise that is allowed, as amplitudes, on the real images."""
    rules = Rules(load_profile("quality"), "int8")
    gates = ((rules.gate(name).min_sqnr_db, stats) for name, stats in result.outputs.items() if stats.noise)
    return max((10 ** ((least - stats.sqnr_db) / 20) for least, stats in gates if least is not None), default=0.0)
