"""From a path to something that runs: an engine bundle, an exported ``.onnx`` file, or a checkpoint through its entry point."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from apex_runtime.backends.capabilities import probe, probe_cuda
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.session import Session
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    REBUILD,
    Artefact,
    Manifest,
    is_bundle,
    read_manifest,
)
from apex_runtime.errors import BackendError, BundleError, MissingPackageError, UsageError
from apex_runtime.model_info import Decode

CHECKPOINT_GROUP = "apex_x.checkpoint"
CHECKPOINT_SUFFIXES = (".pt", ".pth")
POLICIES = ("strict", "permissive")
_TRAIN_REMEDY = 'Install the extra train: pip install ".[train]" in a checkout.'


@dataclass(frozen=True)
class Opened:
    """A session and how it came about.

    ``requested`` is the backend that was asked for, ``executed`` the one that runs, ``reason`` the code of why they differ
    (or empty); ``digest`` is the SHA-256 of the model file.
    """

    session: Session
    requested: str
    executed: str
    digest: str
    reason: str = ""
    manifest: Manifest | None = None


def open_engine(
    path: str | Path,
    threads: int | None = None,
    device: str = "cpu",
    policy: str = "strict",
    size: tuple[int, int] | None = None,
    decode: Decode = "topk",
) -> Opened:
    """Open a bundle folder, an ``.onnx`` file or a checkpoint. Files of a bundle are verified before any backend sees them.

    ``device``: cpu, or for a checkpoint a GPU (cuda, cuda:N); exported files are executed on the CPU only in this version.
    ``policy``: strict fails when the bundle's backend cannot run here, permissive runs the same graph on the CPU instead and
    says so. ``size`` (height, width) and ``decode`` are for checkpoints only: an exported file has one of each. Raises
    UsageError, ModelError, BundleError, BackendError; each with a remedy.
    """
    path = Path(path)
    if policy not in POLICIES:
        raise UsageError(f"--policy {policy}: expected strict or permissive.", "strict is the default.")
    checkpoint = path.is_file() and path.suffix.lower() in CHECKPOINT_SUFFIXES
    _check_device(device, executes=checkpoint)
    if path.is_dir():
        _refuse_size(path, size)
        return _open_bundle(path, threads, policy)
    if not path.exists():
        raise UsageError(f"{path}: no such engine.", "Give a bundle folder, a model.onnx or a checkpoint (best.pt).", path=path)
    if checkpoint:
        return _open_checkpoint(path, threads, size, decode, device)
    _refuse_size(path, size)
    return _open_onnx(path, threads)


def verify_artefacts(folder: Path, manifest: Manifest) -> None:
    """Every file is there, inside the folder, with the size and hash that the manifest says. Raises BundleError."""
    for artefact in manifest.artefacts:
        problem = _problem(folder, artefact)
        if problem:
            path = folder / artefact.path
            raise BundleError(f"{path}: {problem}.", _rebuild(manifest), path=path)


def _problem(folder: Path, artefact: Artefact) -> str:
    path = folder / artefact.path
    if not path.is_file():
        return "the manifest lists this file, and it is missing"
    if not path.resolve().is_relative_to(folder.resolve()):
        return "it links to a file outside the bundle"
    if path.stat().st_size != artefact.bytes or sha256_of(path) != artefact.sha256:
        return "it was changed after the bundle was built (its SHA-256 is not the manifest's)"
    return ""


def _rebuild(manifest: Manifest) -> str:
    return f"Build the bundle again: {manifest.build.command}"


def _open_bundle(folder: Path, threads: int | None, policy: str) -> Opened:
    if not is_bundle(folder):
        inside = folder / MODEL_NAME
        hint = f"To run the model in it: {inside}. " if inside.is_file() else ""
        raise BundleError(f"{folder}: not an engine bundle, it has no {MANIFEST_NAME}.", f"{hint}{REBUILD}", path=folder)
    manifest = read_manifest(folder)
    verify_artefacts(folder, manifest)
    models = manifest.find("model")
    if len(models) != 1:
        raise BundleError(f"{folder}: the manifest lists {len(models)} models, expected one.", REBUILD, path=folder)
    model = folder / models[0].path
    reason = ""
    if manifest.backend != "ort-cpu":
        refusal = _cannot_run(manifest, model)
        if policy == "strict":
            raise refusal
        reason = refusal.code
    opened = _open_onnx(model, threads)
    _check_agreement(folder, manifest, opened.session)
    return Opened(opened.session, manifest.backend, opened.executed, opened.digest, reason, manifest)


def _cannot_run(manifest: Manifest, model: Path) -> BackendError:
    """Why a plan does not run here: something is missing on this machine, or this version does not execute plans yet."""
    answer = probe(manifest.backend).run
    code = answer.reason or ReasonCode.EXECUTION_NOT_IN_THIS_VERSION
    return backend_error(
        code,
        f"{model.parent}: this bundle is for {manifest.backend}, which cannot run here: {answer.detail}.",
        remedy=f"{answer.remedy} Its model also runs on the CPU: --engine {model}, or --policy permissive (default: strict).",
    )


def _check_agreement(folder: Path, manifest: Manifest, session: Session) -> None:
    """The manifest is not hashed, so what it says about the model must be what the model says about itself."""
    info = session.info
    pairs = {
        "classes": (manifest.classes, info.classes),
        "preprocessing": (manifest.preprocessing, info.preprocessing),
        "tiles": (manifest.tiles, info.tiles),
    }
    for name, (said, true) in pairs.items():
        if said != true:
            raise BundleError(f"{folder / MANIFEST_NAME}: its {name} are not the model's.", _rebuild(manifest), path=folder)


def _open_onnx(path: Path, threads: int | None) -> Opened:
    from apex_runtime.backends.ort import BACKEND_NAME, OrtSession

    return Opened(OrtSession(path, threads), BACKEND_NAME, BACKEND_NAME, sha256_of(path))


def _open_checkpoint(path: Path, threads: int | None, size: tuple[int, int] | None, decode: Decode, device: str) -> Opened:
    for entry in entry_points(group=CHECKPOINT_GROUP):
        try:
            opener = entry.load()
        except ImportError as error:
            raise MissingPackageError(f"{path}: checkpoints need PyTorch ({error}).", _TRAIN_REMEDY, path=path) from error
        session: Session = opener(path, size=size, threads=threads, decode=decode, device=device)
        return Opened(session, session.name, session.name, sha256_of(path))
    raise MissingPackageError(f"{path}: nothing installed opens checkpoints.", _TRAIN_REMEDY, path=path)


def _check_device(device: str, executes: bool) -> None:
    """Is there such a device, and is what is opened executed on it (``executes``: also on GPUs)?"""
    if device == "cpu":
        return
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise UsageError(f"--device {device}: expected cpu, cuda or cuda:N.", "For example --device cpu.")
    answer = probe_cuda(int(match.group(1) or 0))
    if executes and answer.available:
        return
    code = answer.reason or ReasonCode.EXECUTION_NOT_IN_THIS_VERSION
    detail = answer.detail if answer.reason else "this version of apex-rt executes on the CPU only"
    raise backend_error(code, f"--device {device}: {detail}.", remedy="Use --device cpu.")


def _refuse_size(path: Path, size: tuple[int, int] | None) -> None:
    if size is not None:
        raise UsageError(
            f"{path}: an exported model has one size, it cannot be opened at {size[0]}x{size[1]}.",
            "Export the checkpoint at that size: apex-train export best.pt --size HxW -o model.onnx",
        )
