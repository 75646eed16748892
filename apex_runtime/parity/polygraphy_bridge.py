"""One image of a comparison for NVIDIA's Polygraphy: the tensors that were compared, in its own JSON, and the commands.

Polygraphy compares by position and knows no lists: detections are written in the order in which they were aligned. Its rule
``elemwise`` lets a value pass when |d| <= atol or |d| <= rtol * |reference|, where ours adds the two. With rtol 0 they are one
rule. So an output with a relative tolerance is written twice: as it is, under a tolerance without end, for its figures; and as
``NAME_per_tolerance``, both sides divided by atol + rtol * |reference|, under an atol of 1, for the verdict.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.backends.ort import graph_feeds
from apex_runtime.backends.session import Tiles
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.files import write_atomically
from apex_runtime.model_info import ModelInfo, output_names
from apex_runtime.parity.check import Comparison
from apex_runtime.parity.outputs import ALIGNED, compare_outputs, forcing_bonus, pair_detections
from apex_runtime.parity.run import BudgetResult, Seen, Watcher
from apex_runtime.parity.subjects import Subject
from apex_runtime.parity.tolerance import Rules, Tolerance

PER_TOLERANCE = "_per_tolerance"
_NO_LIMIT = 1e38
_RULE = ("--compare", "simple", "--check-error-stat", "elemwise")
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Exchange:
    """What Polygraphy gets of one image. ``pairs``: reference and candidate by name, ``atol`` its limit for each, with an rtol of
    0; ``tolerances`` are those of the profile. ``passed``: our verdict on the tensor level of the image; ``notes``: why
    Polygraphy's may be another one, empty when it cannot be."""

    image: str
    asked: str
    inputs: dict[str, np.ndarray]
    pairs: dict[str, Pair]
    atol: dict[str, float]
    tolerances: dict[str, Tolerance | None]
    passed: bool
    notes: tuple[str, ...]


@dataclass
class Bridge:
    """Keeps the first image of a comparison, at the first budget; or why it cannot be exchanged."""

    exchange: Exchange | None = None
    refusal: str = "nothing was compared"

    def open(self, _comparison: Comparison, info: ModelInfo, rules: Rules) -> Watcher:
        """A ``Watch`` of ``check_parity``."""

        started: list[str] = []

        def watch(result: BudgetResult, seen: Seen) -> None:
            if started:
                return
            started.append(seen.case.name)
            try:
                self.exchange = exchange_of(seen, rules, info, result.asked)
            except ModelError as error:
                self.refusal = str(error)

        return watch


def exchange_of(seen: Seen, rules: Rules, info: ModelInfo, asked: str) -> Exchange:
    """The tensors of one image, the same tiles forced on both sides.

    Raises ModelError for outputs that are missing or of another form: Polygraphy would skip the one and not see the other.
    """
    reference, candidate = seen.forced_reference, seen.forced_candidate
    found = compare_outputs(reference, candidate, rules, info)
    problems = [f"{name}: {why}" for name, stats in found.items() for why in stats.problems]
    if problems:
        raise ModelError(f"{seen.case.name}: {'; '.join(problems)}.", "apex-rt parity judges these, Polygraphy would not.")
    pairing = pair_detections(reference, candidate, rules, info, info.decode == "nms")
    pairs: dict[str, Pair] = {}
    for name in output_names(info.tiles.depth):
        pair = reference[name], candidate[name]
        if name in ALIGNED:
            pair = pair[0][:, pairing.reference_rows], pair[1][:, pairing.candidate_rows]
        elif name == "candidate_ids":  # the aligned ones are equal; one that is missing must show
            rows = (pairing.reference_rows, pairing.lost), (pairing.candidate_rows, pairing.extra)
            parts = [paired if pairing.missing == 0 else np.concatenate([paired, alone]) for paired, alone in rows]
            pair = pair[0][:, parts[0]], pair[1][:, parts[1]]
        pairs[name] = pair
    limits = {name: rules.gate(name) for name in found}
    notes = [f"{name}: nothing to compare" for name, pair in pairs.items() if not pair[0].size]
    notes += [
        f"{name}: a NaN or Inf without a partner is not among the tensors"
        for name in ALIGNED
        if found[name].count != pairs[name][0].size
    ]
    if any(gate.min_sqnr_db is not None for gate in limits.values()):
        notes.append("eight bits: the ratio of signal to noise is not checked, and no float has a limit")
    if any(gate.mismatch_limit for gate in limits.values()):
        notes.append("the profile lets a share of the values mismatch, Polygraphy none")
    passed = not any(stats.reasons(*limits[name]) for name, stats in found.items())
    written = _limited(pairs, rules)
    tolerances = {name: rules.tolerance(name) for name, pair in pairs.items() if pair[0].dtype.kind == "f"}
    return Exchange(seen.case.name, asked, _inputs(seen, info), *written, tolerances, passed, tuple(notes))


def write_exchange(folder: Path, exchange: Exchange) -> None:
    """``inputs.json``, ``reference.json`` and ``candidate.json``. Raises UsageError when they cannot be written."""
    sides = {
        side: {name: pair[at] for name, pair in exchange.pairs.items()} for at, side in enumerate(("reference", "candidate"))
    }
    documents = {side: _run_results(side, outputs) for side, outputs in sides.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in {"inputs": [_arrays(exchange.inputs)], **documents}.items():
            write_atomically(folder / f"{name}.json", json.dumps(document).encode())
    except OSError as error:
        message = f"--polygraphy {folder}: cannot be written ({error.strerror})."
        raise UsageError(message, "Name another folder.", path=folder) from error


def comparing_command(folder: Path, exchange: Exchange) -> str:
    """Polygraphy's comparison of what was written: the candidate first, since it measures against the second."""
    files = [str(folder / f"{side}.json") for side in ("candidate", "reference")]
    limits = [f"{name}:{atol!r}" for name, atol in exchange.atol.items()]
    return shlex.join(["polygraphy", "run", "--load-outputs", *files, *_RULE, "--rtol", "0", "--atol", *limits])


def running_commands(folder: Path, exchange: Exchange, reference: Subject, candidate: Subject) -> list[str]:
    """Both files run by Polygraphy itself on the same inputs, and compared by position; empty unless both are ONNX files.

    Not the verdict of parity: two detections of nearly one score that changed places fail, and of the absolute and the relative
    tolerance the larger one holds, not their sum.
    """
    if (reference.kind, candidate.kind) != ("onnx", "onnx"):
        return []
    inputs, kept = str(folder / "inputs.json"), str(folder / "reference-run.json")
    limits = {name: exchange.tolerances.get(name) for name in exchange.atol if not name.endswith(PER_TOLERANCE)}
    atol = [f"{name}:{limit.atol if limit else exchange.atol[name]!r}" for name, limit in limits.items()]
    rtol = [f"{name}:{limit.rtol if limit else 0.0!r}" for name, limit in limits.items()]
    runs = [["polygraphy", "run", str(subject.path), "--onnxrt", "--load-inputs", inputs] for subject in (reference, candidate)]
    comparing = ["--load-outputs", kept, *_RULE, "--rtol", *rtol, "--atol", *atol]
    return [shlex.join([*runs[0], "--save-outputs", kept]), shlex.join([*runs[1], *comparing])]


def _inputs(seen: Seen, info: ModelInfo) -> dict[str, np.ndarray]:
    counts = tuple(int(np.isin(seen.chosen_K, np.arange(info.tiles.count)[grid.flat]).sum()) for grid in info.tiles.levels)
    tiles: Tiles = counts[0] if len(counts) == 1 else counts
    return graph_feeds(info, seen.case.pixels[None], tiles, forcing_bonus(seen.chosen_K, info.tiles.count))


def _limited(pairs: dict[str, Pair], rules: Rules) -> tuple[dict[str, Pair], dict[str, float]]:
    """With what is written twice, and the limits. Floats in float64, so that no comparison rounds."""
    written: dict[str, Pair] = {}
    atol: dict[str, float] = {}
    for name, (reference, candidate) in pairs.items():
        written[name], atol[name] = (reference, candidate), 0.0
        if reference.dtype.kind != "f":
            continue
        wide = reference.astype(np.float64), candidate.astype(np.float64)
        written[name], tolerance = wide, rules.tolerance(name)
        atol[name] = tolerance.atol if tolerance is not None and tolerance.rtol == 0 else _NO_LIMIT
        if tolerance is not None and tolerance.rtol > 0:
            allowed = tolerance.atol + tolerance.rtol * np.abs(wide[0])
            written[name + PER_TOLERANCE] = wide[0] / allowed, wide[1] / allowed
            atol[name + PER_TOLERANCE] = 1.0
    return written, atol


def _run_results(runner: str, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """What ``RunResults.load`` of Polygraphy reads: one iteration of one runner."""
    lazy = {name: {"values": array, "polygraphy_class": "LazyArray"} for name, array in _arrays(outputs).items()}
    iteration = {"outputs": lazy, "runtime": 0.0, "runner_name": runner, "polygraphy_class": "IterationResult"}
    return {"lst": [[runner, [iteration]]], "polygraphy_class": "RunResults"}


def _arrays(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, str]]:
    return {name: {"array": _encoded(array), "polygraphy_class": "ndarray"} for name, array in arrays.items()}


def _encoded(array: np.ndarray) -> str:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode("ascii")
