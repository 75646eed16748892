"""An engine on its way to workers that may not see its folder: the bytes of its files with their hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES, open_engine
from apex_runtime.bundle.manifest import MANIFEST_NAME, is_bundle, read_manifest
from apex_runtime.bundle.verify import model_of, verify_artefacts
from apex_runtime.errors import BundleError, UsageError
from apex_runtime.model_info import ModelInfo


@dataclass(frozen=True, eq=False)
class Parcel:
    """An engine: a bundle's files below the folder ``root``, or the one file ``root``. ``files``: path -> bytes and SHA-256."""

    root: str
    files: dict[str, tuple[bytes, str]]

    def unpack(self, folder: Path) -> Path:
        """Write the files below ``folder``; the path to open. Raises BundleError when one is not what was packed, OSError."""
        for name, (data, digest) in self.files.items():
            parts = PurePosixPath(name).parts
            if hashlib.sha256(data).hexdigest() != digest or not parts or ".." in parts or name.startswith("/"):
                raise BundleError(f"{name}: this file of the engine was changed on its way to a worker.", "Run the job again.")
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / self.root


@dataclass(frozen=True)
class Passport:
    """What is known of an engine without running it: its model, the SHA-256 of the model's file, and whether it is a bundle for a
    GPU."""

    info: ModelInfo
    digest: str
    needs_gpu: bool = False


def pack(path: Path) -> tuple[Parcel, Passport]:
    """The engine at ``path``, a bundle folder, an ``.onnx`` file or a checkpoint, whatever GPU it may need: nothing runs here,
    but a checkpoint, which only PyTorch can read. Raises UsageError, ModelError, BundleError."""
    if path.is_dir():
        return _pack_bundle(path)
    if path.is_file() and path.suffix.lower() in CHECKPOINT_SUFFIXES:
        info = open_engine(path).session.info
    else:
        info = read_onnx(path).info
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Parcel(path.name, {path.name: (data, digest)}), Passport(info, digest)


def _pack_bundle(folder: Path) -> tuple[Parcel, Passport]:
    if not is_bundle(folder):
        raise UsageError(f"{folder}: not an engine bundle, it has no {MANIFEST_NAME}.", "Name a bundle folder or a model.onnx.")
    manifest = read_manifest(folder)
    verify_artefacts(folder, manifest)
    names = [MANIFEST_NAME, *(item.path for item in manifest.artefacts)]
    contents = [(folder / name).read_bytes() for name in names]
    files = {f"engine/{name}": (data, hashlib.sha256(data).hexdigest()) for name, data in zip(names, contents, strict=True)}
    model = model_of(folder, manifest)
    return Parcel("engine", files), Passport(read_onnx(model).info, sha256_of(model), manifest.backend != "ort-cpu")
