"""``apex-rt parity --bisect`` as a function: find where two graphs differ, search, write down what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.bisect.case import Whole, feeds_of, first_difference
from apex_runtime.parity.bisect.difference import Judge
from apex_runtime.parity.bisect.evidence import gather
from apex_runtime.parity.bisect.journal import ANOTHER_FOLDER, Difference, Journal, Key, open_journal
from apex_runtime.parity.bisect.names import renamed_like
from apex_runtime.parity.bisect.probes import Probes
from apex_runtime.parity.bisect.search import NOISE, Place, Search
from apex_runtime.parity.bisect.sides import Side, open_sides
from apex_runtime.parity.bisect.slices import Arrays, Graph
from apex_runtime.parity.cases import Case
from apex_runtime.parity.check import Progress, Settings
from apex_runtime.parity.tolerance import Rules

_TOOLS = ("numpy", "onnx", "onnxruntime")
_MOST_NAMES = 20  # tensors without a counterpart that are listed


@dataclass(frozen=True)
class _Setup:
    """Both graphs, with common names for common tensors, and how they are compared."""

    sides: tuple[Side, Side]
    reference: Graph
    candidate: Graph
    cases: Sequence[Case]
    settings: Settings
    folder: Path

    @property
    def info(self) -> ModelInfo:
        return self.sides[0].file.info

    @property
    def rules(self) -> Rules:
        return Rules(self.settings.profile, self.sides[1].precision)


def bisect(reference: Path, candidate: Path, settings: Settings, folder: Path, progress: Progress) -> Journal:
    """Find the node of ``candidate`` that makes it differ from ``reference``; both are ONNX files, or bundles with one.

    What was answered is kept in ``folder`` and not asked again. A step of ``progress`` is one image under one budget, until one
    differs. Raises UsageError: for what is no ONNX graph, models of different kinds, a folder of another search; ModelError,
    BundleError; ImageError; BackendError where the reference does not run.
    """
    if not settings.budgets:
        raise UsageError("Nothing to compare.", "Name at least one --budget.")
    setup = _set_up(open_sides(reference, candidate, settings.size), settings, folder)
    journal = open_journal(folder, _fresh(setup))
    if journal.verdict == "unfinished" and journal.start is None:
        journal.start = _start(setup, progress)
        journal.verdict = "unfinished" if journal.start else "same"
        journal.save(folder)
    if journal.verdict == "unfinished":
        _search(setup, journal)
        journal.save(folder)
    return journal


def _set_up(sides: tuple[Side, Side], settings: Settings, folder: Path) -> _Setup:
    first, second = (side.file for side in sides)
    reference = Graph(first.model, first.path, settings.threads)
    candidate = Graph(renamed_like(second.model, first.model), second.path, settings.threads)
    return _Setup(sides, reference, candidate, settings.cases(first.info), settings, folder)


def _fresh(setup: _Setup) -> Journal:
    lost = [name for name in setup.reference.producer if name not in setup.candidate.producer]
    first, second = setup.sides
    key = Key(
        reference_sha256=first.sha256,
        candidate_sha256=second.sha256,
        images=[case.sha256 for case in setup.cases],
        budgets=[budget.asked for budget in setup.settings.budgets],
        profile=setup.settings.profile.name,
        profile_version=setup.settings.profile.version,
        precision=second.precision,
        tools={name: version(name) for name in _TOOLS},
    )
    aligned = len(setup.reference.producer) - len(lost)
    return Journal(key=key, aligned=aligned, without=len(lost), unaligned=lost[:_MOST_NAMES])


def _start(setup: _Setup, progress: Progress) -> Difference | None:
    first, second = (Whole(graph, setup.info) for graph in (setup.reference, setup.candidate))
    budgets = setup.settings.budgets
    with progress(len(setup.cases) * len(budgets)) as step:
        return first_difference(first, second, setup.cases, budgets, setup.rules, step)


def _search(setup: _Setup, journal: Journal) -> None:
    """Search from where the journal begins; its verdict and finding are set here."""
    assert journal.start is not None
    reference, candidate, folder = setup.reference, setup.candidate, setup.folder
    feeds, place = _feeds(setup, journal.start), _place(setup, journal.start)
    judge = Judge(setup.rules, setup.info.tiles.depth)
    probes = Probes(reference, candidate, feeds, judge, journal, folder)
    guilty = Search(reference, candidate, probes, NOISE[setup.sides[1].precision]).run(place)
    journal.verdict = "found" if guilty else "unexplained"
    if guilty:
        journal.finding = gather(guilty, reference, candidate, probes.values(guilty.known), judge, folder)


def _feeds(setup: _Setup, start: Difference) -> Arrays:
    """What the graphs are fed where they differ. Raises UsageError for a journal whose beginning means nothing here."""
    budgets = [item for item in setup.settings.budgets if item.asked == start.budget]
    cases = [item for item in setup.cases if item.sha256 == start.image_sha256]
    tiles = range(setup.info.tiles.count)
    outputs = {value.name for value in setup.reference.model.graph.output}
    fits = set(start.tiles) <= set(tiles) and start.outputs and start.outputs.keys() <= outputs
    if not (budgets and cases and fits):
        words = f"{setup.folder}: the journal's beginning does not fit these models and images."
        raise UsageError(words, ANOTHER_FOLDER, path=setup.folder)
    return feeds_of(start, cases[0], budgets[0], setup.info)


def _place(setup: _Setup, start: Difference) -> Place:
    """The first output that differs; all where the candidate does not run, since nothing tells which of them it cannot make."""
    targets = sorted(start.outputs, key=lambda name: setup.reference.producer.get(name, -1))
    known = frozenset(setup.reference.inputs) | frozenset(start.agreed)
    return Place(known, tuple(targets[:1] if start.runs else targets))
