"""``apex-rt parity --bisect`` as a function: find where two graphs differ, search, write down what was found."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from apex_runtime.errors import UsageError
from apex_runtime.parity.bisect.case import Whole, feeds_of, first_difference
from apex_runtime.parity.bisect.difference import Judge
from apex_runtime.parity.bisect.evidence import gather
from apex_runtime.parity.bisect.journal import Difference, Journal, Key, open_journal
from apex_runtime.parity.bisect.names import renamed_like
from apex_runtime.parity.bisect.probes import Probes
from apex_runtime.parity.bisect.search import Place, Search
from apex_runtime.parity.bisect.sides import Side, open_sides
from apex_runtime.parity.bisect.slices import Graph
from apex_runtime.parity.cases import Case, load_cases
from apex_runtime.parity.check import Progress, Settings
from apex_runtime.parity.tolerance import Rules

_TOOLS = ("numpy", "onnx", "onnxruntime")
_MOST_NAMES = 20  # tensors without a counterpart that are listed


def bisect(reference: Path, candidate: Path, settings: Settings, folder: Path, progress: Progress) -> Journal:
    """Find the node of ``candidate`` that makes it differ from ``reference``; both are ONNX files, or bundles with one.

    What was answered is kept in ``folder`` and not asked again. A step of ``progress`` is one image under one budget, until one
    differs. Raises UsageError: for what is no ONNX graph, models of different kinds, a folder of another search; ModelError,
    BundleError; ImageError; BackendError where the reference does not run.
    """
    if not settings.budgets:
        raise UsageError("Nothing to compare.", "Name at least one --budget.")
    sides = open_sides(reference, candidate, settings.size)
    first, second = sides
    rules = Rules(settings.profile, second.precision)
    cases = load_cases(settings.images, first.file.info)
    graphs = _graphs(first, second, settings.threads)
    journal = open_journal(folder, _fresh(sides, graphs, cases, settings))
    if journal.verdict != "unfinished":
        return journal
    if journal.start is None:
        journal.start = _start(first, graphs, cases, settings, rules, progress)
        journal.verdict = "unfinished" if journal.start else "same"
        journal.save(folder)
    if journal.start is not None:
        _search(journal, first, graphs, cases, settings, rules, folder)
        journal.save(folder)
    return journal


def _graphs(first: Side, second: Side, threads: int | None) -> tuple[Graph, Graph]:
    """Both graphs, with common names for common tensors."""
    reference, candidate = first.file.model, second.file.model
    return Graph(reference, first.file.path, threads), Graph(renamed_like(candidate, reference), second.file.path, threads)


def _fresh(sides: Sequence[Side], graphs: Sequence[Graph], cases: Sequence[Case], settings: Settings) -> Journal:
    (first, second), (reference, candidate) = sides, graphs
    lost = [name for name in reference.producer if name not in candidate.producer]
    key = Key(
        reference_sha256=first.sha256,
        candidate_sha256=second.sha256,
        images=[case.sha256 for case in cases],
        budgets=[budget.asked for budget in settings.budgets],
        profile=settings.profile.name,
        profile_version=settings.profile.version,
        precision=second.precision,
        tools={name: version(name) for name in _TOOLS},
    )
    aligned = len(reference.producer) - len(lost)
    return Journal(key=key, aligned=aligned, without=len(lost), unaligned=lost[:_MOST_NAMES])


def _start(
    first: Side, graphs: tuple[Graph, Graph], cases: Sequence[Case], settings: Settings, rules: Rules, progress: Progress
) -> Difference | None:
    reference, candidate = (Whole(graph, first.file.info) for graph in graphs)
    with progress(len(cases) * len(settings.budgets)) as step:
        return first_difference(reference, candidate, cases, settings.budgets, rules, step)


def _search(
    journal: Journal,
    first: Side,
    graphs: tuple[Graph, Graph],
    cases: Sequence[Case],
    settings: Settings,
    rules: Rules,
    folder: Path,
) -> None:
    """Search from where the journal begins; its verdict and finding are set here."""
    assert journal.start is not None
    reference, candidate = graphs
    start, info = journal.start, first.file.info
    budget = next(item for item in settings.budgets if item.asked == start.budget)
    case = next((item for item in cases if item.sha256 == start.image_sha256), None)
    if case is None or not all(0 <= tile < info.tiles.count for tile in start.tiles):
        raise UsageError(f"{folder}: the journal does not fit these images.", "Name another folder.", path=folder)
    judge = Judge(rules, info.tiles.depth)
    probes = Probes(reference, candidate, feeds_of(start, case, budget, info), judge, journal, folder)
    targets = sorted(start.outputs, key=lambda name: reference.producer.get(name, len(reference.nodes)))
    known = frozenset(reference.inputs) | frozenset(start.agreed)
    guilty = Search(reference, candidate, probes).run(Place(known, tuple(targets if not start.runs else targets[:1])))
    journal.verdict = "found" if guilty else "unexplained"
    if guilty:
        journal.finding = gather(guilty, reference, candidate, probes.values(guilty.known), judge, folder)
