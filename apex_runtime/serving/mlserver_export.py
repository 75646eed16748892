"""A folder that ``mlserver start`` serves: server settings, and a model with its settings and a copy of the bundle.

FOLDER/settings.json
FOLDER/NAME/model-settings.json        names the bundle, in one write: a server that reloads sees the old one or the new one
FOLDER/NAME/bundle-<12 digits>/        the bundle, by the SHA-256 of its manifest
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from apex_runtime.bundle.verify import verify_artefacts
from apex_runtime.errors import BundleError, UsageError
from apex_runtime.files import replacing, write_atomically
from apex_runtime.serving.exported import check_name, checked_bundle
from apex_runtime.serving.settings import MEBIBYTE, ServingSettings

IMPLEMENTATION = "apex_runtime.serving.mlserver_model.ApexModel"
DEFAULTS = {"host": "127.0.0.1", "http_port": 8080, "grpc_port": 8081, "metrics_port": 8082}
MODEL_SETTINGS, SERVER_SETTINGS = "model-settings.json", "settings.json"


@dataclass(frozen=True)
class Ports:
    """Where the server listens; None for what an earlier export said, or else for ``DEFAULTS``."""

    host: str | None = None
    http: int | None = None
    grpc: int | None = None
    metrics: int | None = None


def _copy_bundle(bundle: Path, manifest: Manifest, folder: Path) -> Path:
    """A copy of ``bundle`` below ``folder``, by the hash of its manifest; one that is there and whole is left as it is."""
    target = folder / f"bundle-{sha256_of(bundle / MANIFEST_NAME)[:12]}"
    if _is_whole(target):
        return target
    for artefact in manifest.artefacts:
        with (bundle / artefact.path).open("rb") as source, replacing(target / artefact.path) as part:
            shutil.copyfileobj(source, part)
    write_atomically(target / MANIFEST_NAME, (bundle / MANIFEST_NAME).read_bytes())  # last: it makes the folder a bundle
    return target


def _is_whole(target: Path) -> bool:
    try:
        verify_artefacts(target, read_manifest(target))
    except BundleError:
        return False
    return True


def export_mlserver(bundle: Path, folder: Path, name: str, settings: ServingSettings, ports: Ports) -> list[Path]:
    """Write or update the folder of a server; what was written. An older bundle of the model stays beside the new one.

    Raises UsageError, BundleError, OSError.
    """
    check_name(name)
    manifest, _file = checked_bundle(bundle, settings)
    server, model = folder / SERVER_SETTINGS, folder / name / MODEL_SETTINGS
    before = _read(server)
    copied = _copy_bundle(bundle, manifest, folder / name)
    write_atomically(server, _json(_server_settings(before, settings, ports)))
    write_atomically(model, _json(_model_settings(copied.name, name, settings)))
    return [server, model, copied]


def _read(path: Path) -> dict[str, Any]:
    """The settings of an earlier export; none where there was none. Raises UsageError for what is no settings."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}).", "Repair it, or give another --output.", path=path) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: not the settings of a server.", "Give another --output.", path=path)
    return found


def _model_settings(bundle: str, name: str, settings: ServingSettings) -> dict[str, Any]:
    return {
        "name": name,
        "implementation": IMPLEMENTATION,
        "platform": "apex-x",
        "parameters": {"uri": f"./{bundle}", "extra": settings.model_dump(mode="json")},
    }


def _server_settings(before: dict[str, Any], settings: ServingSettings, ports: Ports) -> dict[str, Any]:
    """What was said earlier stays, an own setting of the user too; a message may be as long as the longest of any model."""
    asked = dict(zip(DEFAULTS, (ports.host, ports.http, ports.grpc, ports.metrics), strict=True))
    length = settings.max_image_bytes + MEBIBYTE
    return {
        **DEFAULTS,
        "gzip_enabled": False,  # it would pack answers in the event loop
        "debug": False,
        **before,
        **{name: value for name, value in asked.items() if value is not None},
        # One process: one queue, one copy of the weights. ONNX Runtime lets go of the interpreter's lock while it computes.
        "parallel_workers": 0,
        "grpc_max_message_length": max(length, before.get("grpc_max_message_length", 0)),
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
