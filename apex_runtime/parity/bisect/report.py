"""What a search found, as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from apex_runtime.parity.bisect.difference import MOST
from apex_runtime.parity.bisect.evidence import INPUTS, MINIMAL
from apex_runtime.parity.bisect.journal import NAME, Difference, Finding, Journal, Node, Pair, Tensor

_MOST_NODES = 4  # that are named; bisect.json has all
_MODES = {"forced": "the reference's tiles forced on both sides", "free": "both sides left alone"}


def lines(journal: Journal, folder: Path) -> Iterator[str]:
    """The finding of a finished search, what is where included."""
    yield from _alignment(journal)
    if journal.start is None:
        yield f"Nothing differs on {len(journal.key.images)} image(s) under budget {', '.join(journal.key.budgets)}."
        return
    yield from _difference(journal.start)
    slices = f"{len(journal.slices)} slices after the whole graph"
    if journal.finding is None:
        yield f"No node is guilty: in {slices} each part alone does within tolerance what the reference does."
        yield "Rounding adds up over many nodes, or ONNX Runtime optimises the whole graph to something else."
        return
    yield from _finding(journal.finding)
    yield f"{slices}. In {folder}: {NAME}, what each side gives as reference.npy and candidate.npy,"
    yield f"{MINIMAL} with nothing but the candidate's part, and {INPUTS}/ to feed it with."


def _alignment(journal: Journal) -> Iterator[str]:
    if journal.unaligned:
        every = journal.aligned + journal.without
        some = ", ".join(journal.unaligned)
        yield f"{journal.without} of {every} tensors of the reference have no counterpart in the candidate: {some}"


def _difference(start: Difference) -> Iterator[str]:
    where = f"on {start.image} under budget {start.budget}"
    if not start.runs:
        yield f"The candidate does not run {where}: {next(iter(start.outputs.values()))[0]}"
        return
    yield f"They differ {where}, {_MODES[start.mode]}:"
    for name, reasons in start.outputs.items():
        yield f"  {name}: {'; '.join(reasons)}"


def _finding(finding: Finding) -> Iterator[str]:
    nodes, others = finding.reference_nodes, finding.candidate_nodes
    word = "The guilty node" if len(nodes) == 1 else "The guilty node is among these"
    yield f"{word}: {_nodes(nodes)}"
    if [node.name for node in nodes] != [node.name for node in others]:
        yield f"In the candidate: {_nodes(others)}"
    yield from (f"  {change}" for change in finding.changes)
    if finding.error:
        yield f"Given what the reference computed it does not run: {finding.error}"
    for pair in finding.outputs:
        yield from _pair(pair)


def _nodes(nodes: Sequence[Node]) -> str:
    more = f"; and {len(nodes) - _MOST_NODES} more" if len(nodes) > _MOST_NODES else ""
    return "; ".join(map(_node, nodes[:_MOST_NODES])) + more


def _node(node: Node) -> str:
    return f"{node.name} ({node.op}), region {node.region}" + (f", module {node.scope}" if node.scope else "")


def _pair(pair: Pair) -> Iterator[str]:
    yield f"  {pair.name}, both sides given what the reference computed:"
    yield f"    reference  {_tensor(pair.reference)}"
    if pair.candidate is None:
        return
    yield f"    candidate  {_tensor(pair.candidate)}"
    if pair.max_abs is not None:
        times = f", {pair.excess:.3g} times the tolerance" if pair.excess < MOST else ""
        yield f"    max |d| {pair.max_abs:.4g} at {pair.at}{times}"
    elif pair.at is not None:
        yield f"    NaN or Inf on one side at {pair.at}"


def _tensor(tensor: Tensor) -> str:
    numbers = ", ".join(
        f"{name} {value:.5g}"
        for name, value in (("min", tensor.least), ("max", tensor.largest), ("mean", tensor.mean))
        if value is not None
    )
    return f"{tensor.dtype} {tensor.shape}: {numbers or 'no finite value'}, NaN or Inf {tensor.non_finite}"
