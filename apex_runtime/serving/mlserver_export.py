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
from apex_runtime.files import write_atomically
from apex_runtime.serving.exported import check_name, checked_bundle
from apex_runtime.serving.settings import ServingSettings

IMPLEMENTATION = "apex_runtime.serving.mlserver_model.ApexModel"
MODEL_SETTINGS, SERVER_SETTINGS = "model-settings.json", "settings.json"


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    host: str = "127.0.0.1"
    http: int = 8080
    grpc: int = 8081
    metrics: int = 8082


def _copy_bundle(bundle: Path, manifest: Manifest, folder: Path) -> Path:
    """A copy of ``bundle`` below ``folder``, by the hash of its manifest; what is there already is verified instead."""
    target = folder / f"bundle-{sha256_of(bundle / MANIFEST_NAME)[:12]}"
    if (target / MANIFEST_NAME).is_file():
        verify_artefacts(target, read_manifest(target))
        return target
    for artefact in manifest.artefacts:
        part = target / artefact.path
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / artefact.path, part)
    write_atomically(target / MANIFEST_NAME, (bundle / MANIFEST_NAME).read_bytes())  # last: it makes the folder a bundle
    return target


def export_mlserver(bundle: Path, folder: Path, name: str, settings: ServingSettings, ports: Ports) -> list[Path]:
    """Write or update the folder of a server; the files that were written. An older bundle of the model stays beside the new one.

    Raises UsageError, BundleError, OSError.
    """
    check_name(name)
    manifest, _file = checked_bundle(bundle, settings)
    copied = _copy_bundle(bundle, manifest, folder / name)
    written = [folder / name / MODEL_SETTINGS]
    write_atomically(written[0], _json(_model_settings(copied.name, name, settings)))
    server = folder / SERVER_SETTINGS
    if not server.exists():  # a server that runs keeps its ports
        write_atomically(server, _json(_server_settings(settings, ports)))
        written.append(server)
    return [*written, copied]


def _model_settings(bundle: str, name: str, settings: ServingSettings) -> dict[str, Any]:
    return {
        "name": name,
        "implementation": IMPLEMENTATION,
        "platform": "apex-x",
        "parameters": {"uri": f"./{bundle}", "extra": settings.model_dump(mode="json")},
    }


def _server_settings(settings: ServingSettings, ports: Ports) -> dict[str, Any]:
    return {
        "host": ports.host,
        "http_port": ports.http,
        "grpc_port": ports.grpc,
        "metrics_port": ports.metrics,
        # One process: one queue, one copy of the weights. ONNX Runtime lets go of the interpreter's lock while it computes.
        "parallel_workers": 0,
        "grpc_max_message_length": settings.max_image_bytes + (1 << 20),
        "gzip_enabled": False,  # it would pack answers in the event loop
        "debug": False,
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
