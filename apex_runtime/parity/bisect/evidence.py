"""What is left in the folder for inspection: the tensors of the guilty node, and a model of nothing but the node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.errors import BackendError, ModelError, UsageError
from apex_runtime.files import replacing, write_atomically
from apex_runtime.parity.bisect.changes import changes
from apex_runtime.parity.bisect.difference import Judge
from apex_runtime.parity.bisect.journal import Fed, Finding, Node, Pair, Tensor
from apex_runtime.parity.bisect.search import Guilty
from apex_runtime.parity.bisect.slices import Arrays, Graph, open_model, run_session, value_info
from apex_runtime.precision.regions import NO_SCOPE, module_of, regions_of

if TYPE_CHECKING:
    import onnx

MINIMAL, INPUTS = "minimal.onnx", "inputs"


def gather(guilty: Guilty, reference: Graph, candidate: Graph, values: Arrays, judge: Judge, folder: Path) -> Finding:
    """Run the guilty node once more on both sides, write what went in and came out, and describe it.

    ``values``: the reference's, of all that is fed. Raises UsageError when the folder cannot be written.
    """
    wanted = reference.run(guilty.targets, values)
    model, given = candidate.slice(guilty.targets, values)
    found, error = _run(model, given, candidate)
    if not error:  # a slice does not know the types of its outputs; a file that others open should
        del model.graph.output[:]
        model.graph.output.extend(value_info(name, array) for name, array in found.items())
    _write(folder, model, given, wanted, found)
    return Finding(
        reference_nodes=_described(reference, guilty.nodes),
        candidate_nodes=_described(candidate, sorted(candidate.walk(guilty.targets, values)[1])),
        changes=list(_changes(guilty.targets[0], reference, candidate)),
        outputs=[_pair(name, wanted[name], found.get(name), judge) for name in guilty.targets],
        inputs=[Fed(name=name, file=_input_file(at)) for at, name in enumerate(given)],
        error=error,
    )


def statistics(array: np.ndarray) -> Tensor:
    """Numbers of one tensor of any shape and type."""
    numbers = array.astype(np.float64, copy=False)
    finite = numbers[np.isfinite(numbers)]
    some = finite.size > 0
    return Tensor(
        dtype=str(array.dtype),
        shape=list(array.shape),
        least=float(finite.min()) if some else None,
        largest=float(finite.max()) if some else None,
        mean=float(finite.mean()) if some else None,
        non_finite=int(numbers.size - finite.size),
    )


def _run(model: onnx.ModelProto, given: Arrays, candidate: Graph) -> tuple[Arrays, str]:
    try:
        return run_session(open_model(model, candidate.path, candidate.threads), given), ""
    except BackendError as error:
        return {}, str(error)


def _changes(output: str, reference: Graph, candidate: Graph) -> Iterator[str]:
    ours, theirs = (graph.nodes[graph.producer[output]] for graph in (reference, candidate))
    yield from changes(reference, ours, candidate, theirs)


def _pair(name: str, reference: np.ndarray, candidate: np.ndarray | None, judge: Judge) -> Pair:
    apart, at = (None, None) if candidate is None else _farthest(reference, candidate)
    return Pair(
        name=name,
        reference=statistics(reference),
        candidate=None if candidate is None else statistics(candidate),
        excess=0.0 if candidate is None else judge.excess(name, reference, candidate),
        max_abs=apart,
        at=at,
    )


def _farthest(reference: np.ndarray, candidate: np.ndarray) -> tuple[float | None, list[int] | None]:
    """The largest |difference| and its index; no number for a NaN, neither for other shapes."""
    if reference.shape != candidate.shape or not reference.size:
        return None, None
    with np.errstate(invalid="ignore"):
        apart = np.abs(candidate.astype(np.float64) - reference.astype(np.float64))
        same = (candidate == reference) | (np.isnan(candidate.astype(np.float64)) & np.isnan(reference.astype(np.float64)))
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    at = int(apart.argmax())
    number = float(apart.flat[at])
    return (number if np.isfinite(number) else None), [int(index) for index in np.unravel_index(at, apart.shape)]


def _described(graph: Graph, numbers: Iterable[int]) -> list[Node]:
    try:
        regions = regions_of(graph.model)
    except ModelError:  # nodes without names, as of a model that was made by hand
        regions = {}
    nodes = [graph.nodes[at] for at in numbers]
    return [
        Node(
            name=node.name or next(filter(None, node.output), ""),
            op=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
            region=regions.get(node.name, NO_SCOPE),
            scope=module_of(node),
        )
        for node in nodes
    ]


def _input_file(at: int) -> str:
    """Numbered: the names of tensors come from a file and may be anything."""
    return f"{INPUTS}/{at:02d}.npy"


def _write(folder: Path, model: onnx.ModelProto, given: Arrays, wanted: Arrays, found: Mapping[str, np.ndarray]) -> None:
    arrays = {_input_file(at): array for at, array in enumerate(given.values())}
    for at, name in enumerate(wanted):
        number = f"-{at}" if at else ""
        arrays[f"reference{number}.npy"] = wanted[name]
        if name in found:
            arrays[f"candidate{number}.npy"] = found[name]
    try:
        write_atomically(folder / MINIMAL, model.SerializeToString())
        for file, array in arrays.items():
            with replacing(folder / file) as stream:
                np.save(stream, array, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"--bisect {folder}: cannot be written ({error.strerror}).", "Name another.", path=folder) from error
