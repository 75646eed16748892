"""What is compared: a checkpoint, an exported ONNX file or an engine bundle, identified by hash and opened at one common size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apex_runtime.backends.onnx_contract import MAX_FILE_BYTES
from apex_runtime.backends.session import Session
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES, open_engine
from apex_runtime.bundle.manifest import MANIFEST_NAME, MODEL_NAME, is_bundle, read_manifest
from apex_runtime.errors import UsageError
from apex_runtime.model_info import Decode
from apex_runtime.parity.evaluator import EvaluatorSession
from apex_runtime.parity.recording import RecordingSession, is_recording, read_recording
from apex_runtime.parity.tolerance import Precision
from apex_runtime.precision.graph_precision import precision_of

Kind = Literal["checkpoint", "onnx", "bundle", "evaluator", "recording"]
EVALUATOR_PREFIX = "onnx-reference:"


@dataclass(frozen=True)
class Subject:
    """One side of a comparison. ``sha256`` is that of the file ``hashed``; a bundle's manifest stands for all that it lists."""

    path: Path
    kind: Kind
    sha256: str
    hashed: str
    precision: Precision


def identify(text: str | Path) -> Subject:
    """Look at a path without opening the model; after ``onnx-reference:`` it runs in the reference evaluator of ONNX.

    Raises UsageError when there is nothing, BundleError for a broken manifest behind ``onnx-reference:``.
    """
    words = str(text)
    if words.startswith(EVALUATOR_PREFIX):
        return _evaluated(words)
    path = Path(words)
    if is_recording(path):
        recorded = read_recording(path).subject
        return Subject(path, "recording", recorded.sha256, recorded.file_name, recorded.precision)
    if is_bundle(path):
        # Not what the manifest says: it is not hashed, and one that claims eight bits would have its model judged as if it had.
        return Subject(path, "bundle", sha256_of(path / MANIFEST_NAME), MANIFEST_NAME, _precision_of(path / MODEL_NAME))
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file or bundle.", "Name a checkpoint (.pt), an ONNX file or a bundle folder.", path=path
        )
    kind: Kind = "checkpoint" if path.suffix.lower() in CHECKPOINT_SUFFIXES else "onnx"
    return Subject(path, kind, sha256_of(path), path.name, "fp32" if kind == "checkpoint" else _precision_of(path))


def _precision_of(path: Path) -> Precision:
    """What the graph computes in; fp32 for a file that is none, which opening it will say."""
    from onnx import ModelProto

    try:
        return precision_of(ModelProto.FromString(path.read_bytes())) if path.stat().st_size <= MAX_FILE_BYTES else "fp32"
    except Exception:  # protobuf's own error, and protobuf is onnx's dependency, not ours
        return "fp32"


def _evaluated(words: str) -> Subject:
    path = Path(words.removeprefix(EVALUATOR_PREFIX))
    if path.is_dir():
        read_manifest(path)
        path /= MODEL_NAME
    if not path.is_file() or path.suffix.lower() in CHECKPOINT_SUFFIXES:
        raise UsageError(f"{words}: no ONNX file.", f"Name one, or a bundle: {EVALUATOR_PREFIX}model.onnx", path=path)
    return Subject(path, "evaluator", sha256_of(path), path.name, _precision_of(path))


def check_size(reference: Subject, candidate: Subject, size: tuple[int, int] | None) -> None:
    """Raises UsageError when ``size`` cannot be obeyed: only two checkpoints have a choice."""
    if size is None:
        return
    for subject in (candidate, reference):
        if subject.kind != "checkpoint":
            raise UsageError(
                f"--size {size[0]}x{size[1]}: {subject.path} has a fixed size.",
                "Leave --size out: a checkpoint is compared at the size of the exported file.",
                path=subject.path,
            )


def open_subject(subject: Subject, other: Session | None, size: tuple[int, int] | None, threads: int | None) -> Session:
    """A checkpoint takes size and decoding from the exported ``other`` side where there is one, else ``size``.

    Raises what opening raises.
    """
    if subject.kind != "checkpoint":
        return _open_exported(subject, threads)
    if other is None:
        return open_session(subject.path, threads, size)
    info = other.info
    return open_session(subject.path, threads, (info.input.height, info.input.width), info.decode)


def _open_exported(subject: Subject, threads: int | None) -> Session:
    if subject.kind == "evaluator":
        return EvaluatorSession(subject.path)
    if subject.kind == "recording":
        return RecordingSession.open(subject.path)
    return open_session(subject.path, threads)


def open_session(path: Path, threads: int | None = None, size: tuple[int, int] | None = None, decode: Decode = "topk") -> Session:
    """What runs on the CPU for this path; how it came about is of no interest here."""
    return open_engine(path, threads, size=size, decode=decode).session
