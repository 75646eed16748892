"""What is compared: a checkpoint, an exported ONNX file or an engine bundle, identified by hash and opened at one common size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apex_runtime.backends.session import Session
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES, open_session
from apex_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from apex_runtime.errors import UsageError
from apex_runtime.parity.tolerance import Precision

Kind = Literal["checkpoint", "onnx", "bundle"]


@dataclass(frozen=True)
class Subject:
    """One side of a comparison. ``sha256`` is that of the file ``hashed``; a bundle's manifest stands for all that it lists."""

    path: Path
    kind: Kind
    sha256: str
    hashed: str
    precision: Precision


def identify(text: str | Path) -> Subject:
    """Look at a path without opening the model. Raises UsageError when there is nothing, BundleError for a broken manifest."""
    path = Path(text)
    if path.is_dir():
        manifest = read_manifest(path)
        return Subject(path, "bundle", sha256_of(path / MANIFEST_NAME), MANIFEST_NAME, manifest.precision)
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file or bundle.", "Name a checkpoint (.pt), an ONNX file or a bundle folder.", path=path
        )
    kind: Kind = "checkpoint" if path.suffix.lower() in CHECKPOINT_SUFFIXES else "onnx"
    return Subject(path, kind, sha256_of(path), path.name, "fp32")


def open_pair(
    reference: Subject, candidate: Subject, size: tuple[int, int] | None = None, threads: int | None = None
) -> tuple[Session, Session]:
    """Both sides at one size. A checkpoint takes size and decoding from the other side; ``size`` is for two checkpoints.

    Raises what opening raises, and UsageError when ``size`` cannot be obeyed.
    """
    flexible = [subject.kind == "checkpoint" for subject in (reference, candidate)]
    if size is not None and not all(flexible):
        fixed = candidate if flexible[0] else reference
        raise UsageError(
            f"--size {size[0]}x{size[1]}: {fixed.path} has a fixed size.",
            "Leave --size out: a checkpoint is compared at the size of the exported file.",
            path=fixed.path,
        )
    if all(flexible):
        return open_session(reference.path, threads, size=size), open_session(candidate.path, threads, size=size)
    if flexible[0]:
        other = open_session(candidate.path, threads)
        return _open_like(reference.path, other, threads), other
    first = open_session(reference.path, threads)
    return first, _open_like(candidate.path, first, threads) if flexible[1] else open_session(candidate.path, threads)


def _open_like(checkpoint: Path, other: Session, threads: int | None) -> Session:
    """At the size of the other side, and decoded as it decodes."""
    info = other.info
    return open_session(checkpoint, threads, size=(info.input.height, info.input.width), decode=info.decode)
