"""``apex-rt parity --ops`` as a function: every face of every op against the NumPy meaning in float64, on seeded inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apex_plugins.catalogue import FOLDERS
from apex_plugins.kernels.reasons import KernelError
from apex_runtime.errors import UsageError
from apex_runtime.parity.compare import Stats, compare_arrays, form_problem
from apex_runtime.parity.ops.faces import AbsentError, Call, Face, Narrow, faces, reference
from apex_runtime.parity.ops.inputs import OpCase, op_cases
from apex_runtime.parity.tolerance import Tolerance

Verdict = Literal["pass", "fail", "absent"]
_TYPES: dict[Narrow, type[np.floating]] = {"fp32": np.float32, "fp16": np.float16}
_WORDS = 300  # letters of an engine's message that are repeated


class OpTolerances(BaseModel):
    """``profiles/ops.yaml``: by op and precision, as a share of the largest number of an output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    tolerances: dict[str, dict[Narrow, float]] = Field(min_length=1)


@dataclass
class OpRow:
    """One face of one op. |d| in ``stats`` is relative to the largest number of the output, of floats. ``code``: why the face is
    absent here, with the words in ``reasons``; those of a face that fails name the case and the output."""

    op: str
    face: str
    precision: Narrow
    tolerance: float
    cases: int = 0
    stats: Stats = field(default_factory=Stats)
    code: str = ""
    reasons: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """A face that was asked for nothing fails."""
        return "absent" if self.code else "fail" if self.reasons or not self.cases else "pass"


def ops_passed(rows: Sequence[OpRow]) -> bool:
    """True when no face fails, and every op was compared by one at least."""
    present = {row.op for row in rows if row.verdict == "pass"}
    return bool(rows) and present == {row.op for row in rows} and all(row.verdict != "fail" for row in rows)


def load_op_tolerances() -> OpTolerances:
    """The shipped ones."""
    import yaml

    text = (resources.files("apex_runtime.parity") / "profiles" / "ops.yaml").read_text(encoding="utf-8")
    return OpTolerances.model_validate(yaml.safe_load(text))


def check_ops(
    names: Sequence[str], allowed: OpTolerances, progress: Callable[[int, int], None] = lambda done, failed: None
) -> list[OpRow]:
    """Every face of the ops ``names`` (folders, all when empty); ``progress(done, failed)`` after each face.

    Raises UsageError for an op that is not there.
    """
    unknown = [name for name in names if name not in FOLDERS]
    if unknown:
        raise UsageError(f"--op {','.join(unknown)}: no such op.", f"There are: {', '.join(FOLDERS)}.")
    rows: list[OpRow] = []
    for folder in [folder for folder in FOLDERS if not names or folder in names]:
        cases = list(op_cases(folder))
        for face in faces():
            row = OpRow(folder, face.name, face.precision, allowed.tolerances[folder][face.precision])
            _compare(row, face, cases)
            rows.append(row)
            progress(len(rows), sum(item.verdict == "fail" for item in rows))
    return rows


def steps(names: Sequence[str]) -> int:
    """How many steps ``check_ops`` will take."""
    return len(faces()) * (len(names) or len(FOLDERS))


def _compare(row: OpRow, face: Face, cases: Sequence[OpCase]) -> None:
    try:
        call = face.open(row.op)
    except AbsentError as error:
        row.code, row.reasons = error.code, [str(error)]
        return
    except KernelError as error:
        row.reasons = [f"{error.reason.value}: {error.message}"]
        return
    truth = reference(row.op)
    for case in cases:
        row.cases += 1
        row.reasons += _compare_case(row, case, call, truth)


def _compare_case(row: OpRow, case: OpCase, call: Call, truth: Call) -> list[str]:
    narrow = _narrowed(row, case.inputs)
    wide = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in narrow.items()}
    wanted = truth(wide, case.attributes)
    try:
        found = call(narrow, case.attributes)
    except Exception as error:  # a face raises whatever its engine raises, and none of it may hide the other faces
        return [f"{case.name}: {type(error).__name__}: {str(error)[:_WORDS]}"]
    if len(found) != len(wanted):
        return [f"{case.name}: {len(found)} outputs, the reference has {len(wanted)}"]
    why: list[str] = []
    for number, pair in enumerate(zip(wanted, found, strict=True)):
        stats = _compare_output(*pair, row.tolerance, _expected(row, number, pair[0]))
        row.stats.add(stats)
        why += [f"{case.name}, output {number}: {reason}" for reason in stats.reasons(0.0)]
    return why


def _narrowed(row: OpRow, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Floats in the type of the face; of DecodeNMS only scores are ever narrower than float32."""
    kept = (lambda name: name != "scores") if row.op == "decode_nms" else (lambda name: False)
    return {
        name: array.astype(np.float32 if kept(name) else _TYPES[row.precision]) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }


def _expected(row: OpRow, number: int, wanted: np.ndarray) -> np.dtype:
    """The type that an output of a face has."""
    if wanted.dtype.kind != "f":
        return wanted.dtype
    return np.dtype(np.float32 if row.op == "decode_nms" and number == 0 else _TYPES[row.precision])


def _compare_output(wanted: np.ndarray, found: np.ndarray, tolerance: float, kind: np.dtype) -> Stats:
    problem = form_problem(wanted.astype(kind), found)
    if problem:
        return Stats(problems=[problem])
    if wanted.dtype.kind != "f":
        return compare_arrays(wanted, found, None)
    largest = float(np.abs(wanted).max(initial=0.0)) or 1.0
    return compare_arrays(wanted / largest, found.astype(np.float64) / largest, Tolerance(atol=tolerance, rtol=0.0))
