"""``apex-rt parity`` as a function: one reference against any number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from apex_runtime.backends.session import Session
from apex_runtime.errors import ApexError, UsageError
from apex_runtime.parity.cases import Case, load_cases
from apex_runtime.parity.run import BudgetResult, compare_sessions, info_differences
from apex_runtime.parity.subjects import Subject, identify, open_pair
from apex_runtime.parity.tolerance import Profile, Rules
from apex_runtime.routing.budget import Budget

# Given the number of steps: something to enter, and to call with (steps done, steps failed) after each.
Progress = Callable[[int], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Settings:
    """How to compare. ``images``: file, folder or pattern, None for the samples. ``size``: (height, width) of checkpoints."""

    budgets: tuple[Budget, ...]
    profile: Profile
    images: Path | None = None
    size: tuple[int, int] | None = None
    threads: int | None = None


@dataclass
class Comparison:
    """One candidate against the reference. ``reasons`` is empty when it passes; ``notes`` decide nothing."""

    candidate: Subject
    backend: str = ""
    reference_backend: str = ""
    cases: list[Case] = field(default_factory=list)
    budgets: list[BudgetResult] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class ParityResult:
    """All comparisons of one command."""

    reference: Subject
    profile: Profile
    comparisons: list[Comparison]

    @property
    def passed(self) -> bool:
        """True when there is at least one comparison and every one passes."""
        return bool(self.comparisons) and not any(item.reasons for item in self.comparisons)


def _silent(_total: int) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, failed: None)


def check_parity(reference: Path, candidates: Sequence[Path], settings: Settings, progress: Progress = _silent) -> ParityResult:
    """Compare every candidate with the reference; a step of ``progress`` is one image under one budget.

    A candidate that cannot be opened, or that breaks while running, fails with its error as the reason; the others are still
    compared. Raises UsageError for what no candidate can mend: missing paths, no images, no budgets.
    """
    if not candidates or not settings.budgets:
        raise UsageError("Nothing to compare.", "Name at least one candidate with --against and one --budget.")
    subject = identify(reference)
    subjects = [identify(path) for path in candidates]
    return ParityResult(subject, settings.profile, [_compare(subject, other, settings, progress) for other in subjects])


def _compare(reference: Subject, candidate: Subject, settings: Settings, progress: Progress) -> Comparison:
    result = Comparison(candidate)
    try:
        first, second = open_pair(reference, candidate, settings.size, settings.threads)
        _run(first, second, result, settings, progress)
        if reference.kind == "checkpoint" and second.info.checkpoint_sha256 not in ("", reference.sha256):
            result.notes.append("The candidate's metadata names another checkpoint than the reference.")
    except UsageError:
        raise
    except ApexError as error:
        result.reasons.append(f"{error.code}: {error}" if error.code else str(error))
    return result


def _run(first: Session, second: Session, result: Comparison, settings: Settings, progress: Progress) -> None:
    result.reference_backend, result.backend = first.name, second.name
    result.reasons += info_differences(first.info, second.info)
    if result.reasons:
        return
    result.cases = load_cases(settings.images, first.info)
    rules = Rules(settings.profile, result.candidate.precision)
    with progress(len(result.cases) * len(settings.budgets)) as step:
        result.budgets = compare_sessions(first, second, result.cases, settings.budgets, rules, step)
    for budget in result.budgets:
        result.reasons += [f"budget {budget.asked}: {why}" for why in budget.reasons(rules)]
