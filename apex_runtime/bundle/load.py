"""From a path to something that runs: an engine bundle, an exported ``.onnx`` file, or a checkpoint through its entry point."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from apex_runtime.backends.capabilities import Answer, probe_cuda
from apex_runtime.backends.reasons import backend_error
from apex_runtime.backends.session import Session
from apex_runtime.bundle.fallback import Candidate, Chosen, Refusal, open_first
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.manifest import MANIFEST_NAME, MODEL_NAME, REBUILD, Manifest, is_bundle, read_manifest
from apex_runtime.bundle.verify import check_agreement, check_bodies, choose_plan, model_of, verify_artefacts
from apex_runtime.errors import BundleError, MissingPackageError, UsageError
from apex_runtime.model_info import Decode

CHECKPOINT_GROUP = "apex_x.checkpoint"
CHECKPOINT_SUFFIXES = (".pt", ".pth")
POLICIES = ("strict", "permissive")
_TRAIN_REMEDY = 'Install the extra train: pip install ".[train]" in a checkout.'


@dataclass(frozen=True)
class Opened:
    """A session and how it came about.

    ``requested`` is the backend that was asked for, ``selected`` the first that this machine looked fit for, ``executed`` the one
    that runs; ``reason`` is the code of why the first was refused (or empty), ``refusals`` all of them. ``digest`` is the SHA-256
    of the model file, ``device`` where it runs: cpu or cuda:N, ``lanes`` how many calls of ``run`` go on best at a time.
    """

    session: Session
    requested: str
    executed: str
    digest: str
    reason: str = ""
    manifest: Manifest | None = None
    selected: str = ""
    refusals: tuple[Refusal, ...] = ()
    device: str = "cpu"
    lanes: int = 1


def open_engine(
    path: str | Path,
    threads: int | None = None,
    device: str = "cpu",
    policy: str = "strict",
    size: tuple[int, int] | None = None,
    decode: Decode = "topk",
    many: bool = False,
) -> Opened:
    """Open a bundle folder, an ``.onnx`` file or a checkpoint. Files of a bundle are verified before any backend sees them.

    ``device``: cpu, cuda or cuda:N. On a GPU an ``.onnx`` file or a bundle for ort-cpu is run by ort-cuda; a bundle whose backend
    needs a GPU takes the first one unless another is named. ``policy``: strict fails when that backend cannot run here,
    permissive runs the same graph by the next of ort-cuda and ort-cpu that can, and says so. ``size`` (height, width) and
    ``decode`` are for checkpoints only: an exported file has one of each. ``many``: for many images a minute, not for one as soon
    as can be; ort-cpu then takes ``lanes`` calls at a time instead of one with all threads.

    Raises UsageError, ModelError, BundleError, BackendError; each with a remedy.
    """
    path = Path(path)
    if policy not in POLICIES:
        raise UsageError(f"--policy {policy}: expected strict or permissive.", "strict is the default.")
    device_index(device)
    if path.is_dir():
        _refuse_size(path, size)
        return _open_bundle(path, threads, device, policy, many)
    if not path.exists():
        raise UsageError(f"{path}: no such engine.", "Give a bundle folder, a model.onnx or a checkpoint (best.pt).", path=path)
    if path.is_file() and path.suffix.lower() in CHECKPOINT_SUFFIXES:
        _check_checkpoint_device(device)
        return _open_checkpoint(path, threads, size, decode, device)
    _refuse_size(path, size)
    return _open_onnx(path, threads, device, policy, many)


def _open_bundle(folder: Path, threads: int | None, device: str, policy: str, many: bool) -> Opened:
    if not is_bundle(folder):
        inside = folder / MODEL_NAME
        hint = f"To run the model in it: {inside}. " if inside.is_file() else ""
        raise BundleError(f"{folder}: not an engine bundle, it has no {MANIFEST_NAME}.", f"{hint}{REBUILD}", path=folder)
    manifest = read_manifest(folder)
    verify_artefacts(folder, manifest)
    model = model_of(folder, manifest)
    requested = "ort-cuda" if manifest.backend == "ort-cpu" and device != "cpu" else manifest.backend
    index = device_index(device)
    if not manifest.find("plan"):
        check_bodies(folder, manifest)
    candidate = Candidate(model, threads, index, lambda: choose_plan(folder, manifest, index), many)
    chosen = open_first(candidate, requested, policy)
    check_agreement(folder, manifest, chosen.session)
    return _opened(chosen, requested, candidate, manifest)


def _open_onnx(path: Path, threads: int | None, device: str, policy: str, many: bool) -> Opened:
    requested, index = "ort-cpu" if device == "cpu" else "ort-cuda", device_index(device)
    candidate = Candidate(path, threads, index, many=many)
    return _opened(open_first(candidate, requested, policy), requested, candidate, None)


def _opened(chosen: Chosen, requested: str, candidate: Candidate, manifest: Manifest | None) -> Opened:
    return Opened(
        chosen.session,
        requested,
        chosen.executed,
        sha256_of(candidate.model),
        chosen.refusals[0].code if chosen.refusals else "",
        manifest,
        chosen.selected,
        chosen.refusals,
        "cpu" if chosen.executed == "ort-cpu" else f"cuda:{candidate.index}",
        candidate.lanes(chosen.executed),
    )


def _open_checkpoint(path: Path, threads: int | None, size: tuple[int, int] | None, decode: Decode, device: str) -> Opened:
    for entry in entry_points(group=CHECKPOINT_GROUP):
        try:
            opener = entry.load()
        except ImportError as error:
            raise MissingPackageError(f"{path}: checkpoints need PyTorch ({error}).", _TRAIN_REMEDY, path=path) from error
        session: Session = opener(path, size=size, threads=threads, decode=decode, device=device)
        return Opened(session, session.name, session.name, sha256_of(path), selected=session.name, device=device)
    raise MissingPackageError(f"{path}: nothing installed opens checkpoints.", _TRAIN_REMEDY, path=path)


def device_index(device: str) -> int:
    """N of ``cuda:N``; 0 for ``cuda``, and for ``cpu``: a bundle of a GPU's backend then takes the first. Raises UsageError."""
    match = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise UsageError(f"--device {device}: expected cpu, cuda or cuda:N.", "For example --device cpu.")
    return int(match.group(1) or 0)


def _check_checkpoint_device(device: str) -> None:
    """PyTorch is asked for a GPU only when the driver has it."""
    answer = Answer() if device == "cpu" else probe_cuda(device_index(device))
    if answer.reason is not None:
        raise backend_error(answer.reason, f"--device {device}: {answer.detail}.", remedy="Use --device cpu.")


def _refuse_size(path: Path, size: tuple[int, int] | None) -> None:
    if size is not None:
        raise UsageError(
            f"{path}: an exported model has one size, it cannot be opened at {size[0]}x{size[1]}.",
            "Export the checkpoint at that size: apex-train export best.pt --size HxW -o model.onnx",
        )
