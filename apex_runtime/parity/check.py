"""``apex-rt parity`` as a function: one reference against any number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apex_runtime.backends.session import Session
from apex_runtime.errors import ApexError, MissingPackageError, UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.average_precision import Labels
from apex_runtime.parity.cases import Case, load_cases, synthetic_cases
from apex_runtime.parity.run import BudgetResult, Watcher, compare_sessions, info_differences
from apex_runtime.parity.subjects import Subject, check_size, identify, open_subject
from apex_runtime.parity.tolerance import Profile, Rules
from apex_runtime.routing.budget import Budget

MAX_BATCH = 256

# Given the number of steps: something to enter, and to call with (steps done, steps failed) after each.
Progress = Callable[[int], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Settings:
    """How to compare. ``images``: file, folder or pattern, None for the samples. ``size``: (height, width) of checkpoints.
    ``batches``: images in one run of the graph, each size is compared. ``labels``: a labelled split in place of ``images``."""

    budgets: tuple[Budget, ...]
    profile: Profile
    images: Path | None = None
    size: tuple[int, int] | None = None
    threads: int | None = None
    batches: tuple[int, ...] = (1,)
    labels: Labels | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a batch that is none, and for two sources of images."""
        if self.images is not None and self.labels is not None:
            raise UsageError("--images and --data: both say which images.", "Leave one of them out.")
        wrong = [batch for batch in self.batches if not 1 <= batch <= MAX_BATCH]
        if wrong:
            raise UsageError(f"--batch {wrong[0]}: expected 1 to {MAX_BATCH}.", "Two sizes: --batch 1,4.")

    def cases(self, info: ModelInfo) -> list[Case]:
        """The images at the model's size, then the synthetic ones. Raises what ``load_cases`` and ``Labels.cases`` raise."""
        return load_cases(self.images, info) if self.labels is None else self.labels.cases(info) + synthetic_cases(info)


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


# Given a comparison that is about to run, its passport and its rules: who is told every image of it.
Watch = Callable[[Comparison, ModelInfo, Rules], Watcher]


def watch_all(watches: Sequence[Watch]) -> Watch:
    """Several that are told the same."""

    def start(comparison: Comparison, info: ModelInfo, rules: Rules) -> Watcher:
        watchers = [watch(comparison, info, rules) for watch in watches]
        return lambda result, seen: [watcher(result, seen) for watcher in watchers]

    return start


def _unwatched(_comparison: Comparison, _info: ModelInfo, _rules: Rules) -> Watcher:
    return lambda result, seen: None


def _silent(_total: int) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, failed: None)


class _Reference:
    """The side that every candidate is compared with, and the images, opened once; no failure here is a candidate's."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.settings = settings
        self._sessions: dict[tuple[Any, ...], Session] = {}
        self._cases: dict[tuple[Any, ...], list[Case]] = {}
        self.fixed: Session | None = None  # an exported reference has one size and one decoding
        if subject.kind != "checkpoint":
            self.fixed = self.session(None)
            self.cases(self.fixed.info)

    def session(self, other: Session | None) -> Session:
        """As ``other``, an exported candidate, demands; None leaves the choice to the settings."""
        key = (other.info.input, other.info.decode) if other else ()
        if key not in self._sessions:
            self._sessions[key] = open_subject(self.subject, other, self.settings.size, self.settings.threads)
        return self._sessions[key]

    def cases(self, info: ModelInfo) -> list[Case]:
        key = (info.input, info.tiles)
        if key not in self._cases:
            self._cases[key] = self.settings.cases(info)
        return self._cases[key]


def check_parity(
    reference: Path,
    candidates: Sequence[Path],
    settings: Settings,
    progress: Progress = _silent,
    watch: Watch = _unwatched,
) -> ParityResult:
    """Compare every candidate with the reference; a step of ``progress`` is one image under one budget.

    A candidate that cannot be opened, or that breaks while running, fails with its error as the reason; the others are still
    compared. Raises what no candidate can mend: UsageError for missing paths, no images, no budgets; ImageError; the error of a
    reference that does not open; MissingPackageError where checkpoints cannot be opened at all.
    """
    if not candidates or not settings.budgets:
        raise UsageError("Nothing to compare.", "Name at least one candidate with --against and one --budget.")
    subject = identify(reference)
    subjects = [identify(path) for path in candidates]
    for other in subjects:
        check_size(subject, other, settings.size)
    source = _Reference(subject, settings)
    return ParityResult(subject, settings.profile, [_compare(source, other, progress, watch) for other in subjects])


def _compare(reference: _Reference, candidate: Subject, progress: Progress, watch: Watch) -> Comparison:
    result = Comparison(candidate)
    sessions = _open(reference, result)
    if sessions is None:
        return result
    first, second = sessions
    result.reference_backend, result.backend = first.name, second.name
    result.reasons += info_differences(first.info, second.info)
    cases = reference.cases(first.info)
    if not result.reasons:
        result.cases = cases
        _run(first, second, result, reference.settings, progress, watch)
    if reference.subject.kind == "checkpoint" and second.info.checkpoint_sha256 not in ("", reference.subject.sha256):
        result.notes.append("The candidate's metadata names another checkpoint than the reference.")
    return result


def _open(reference: _Reference, result: Comparison) -> tuple[Session, Session] | None:
    """Both sides; None, with the reason in ``result``, when that fails because of the candidate."""
    candidate, settings = result.candidate, reference.settings
    try:
        second = open_subject(candidate, reference.fixed, settings.size, settings.threads)
    except ApexError as error:
        if isinstance(error, MissingPackageError) or (isinstance(error, UsageError) and settings.size is not None):
            raise
        result.reasons.append(_reason(error))
        return None
    if reference.fixed is not None:
        return reference.fixed, second
    exported = second if candidate.kind != "checkpoint" else None
    try:
        return reference.session(exported), second
    except UsageError as error:  # a candidate of a size that this checkpoint cannot have
        if exported is None:
            raise
        result.reasons.append(_reason(error))
        return None


def _run(first: Session, second: Session, result: Comparison, settings: Settings, progress: Progress, watch: Watch) -> None:
    rules = Rules(settings.profile, result.candidate.precision)
    watcher = watch(result, first.info, rules)
    try:
        with progress(len(result.cases) * len(settings.budgets) * len(settings.batches)) as step:
            result.budgets = compare_sessions(
                first, second, result.cases, settings.budgets, rules, step, settings.batches, watcher, settings.labels
            )
    except UsageError:  # a budget that means nothing for this model
        raise
    except ApexError as error:
        result.reasons.append(_reason(error))
    for budget in result.budgets:
        batch = f", batch {budget.batch}" if settings.batches != (1,) else ""
        result.reasons += [f"budget {budget.asked}{batch}: {why}" for why in budget.reasons(rules)]
        result.notes += [f"budget {budget.asked}{batch}: task: {note}" for note in budget.task.notes(rules.task.min_score)]


def _reason(error: ApexError) -> str:
    return f"{error.code}: {error}" if error.code else str(error)
