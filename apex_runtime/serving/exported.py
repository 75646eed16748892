"""What both exports check before they write: the name of the model, the files of the bundle, what the settings ask of it."""

from __future__ import annotations

import re
from pathlib import Path

from apex_runtime.backends.onnx_contract import OnnxFile, read_onnx
from apex_runtime.bundle.manifest import MANIFEST_NAME, REBUILD, Manifest, is_bundle, read_manifest
from apex_runtime.bundle.verify import model_of, verify_artefacts
from apex_runtime.errors import BundleError, UsageError
from apex_runtime.pipeline.predictor import checked_filter
from apex_runtime.serving.settings import ServingSettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(name: str) -> None:
    """Raises UsageError unless ``name`` may stand in a path and in an address."""
    if not _NAME.fullmatch(name):
        remedy = "At most 64 letters, digits, '_', '-' and '.', of which the first is a letter or digit."
        raise UsageError(f"--name {name!r}: not a name for a model.", remedy)


def checked_bundle(bundle: Path, settings: ServingSettings) -> tuple[Manifest, OnnxFile]:
    """The manifest and the graph of a bundle whose files are what it says, and which knows the classes of ``settings``.

    Raises BundleError, ModelError, UsageError.
    """
    if not is_bundle(bundle):
        raise BundleError(f"{bundle}: not an engine bundle, it has no {MANIFEST_NAME}.", REBUILD, path=bundle)
    manifest = read_manifest(bundle)
    verify_artefacts(bundle, manifest)
    file = read_onnx(model_of(bundle, manifest))
    checked_filter(file.info, settings.min_score, settings.max_detections, settings.classes)
    return manifest, file
