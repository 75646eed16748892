"""The manifest accepts what the builder writes and nothing that leaves the bundle's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apex_runtime.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from apex_runtime.errors import BundleError


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / MANIFEST_NAME
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_what_is_written_is_what_is_read(tiny_bundle: Path, validate: Callable[[str, object], None]) -> None:
    text = (tiny_bundle / MANIFEST_NAME).read_text()
    manifest = read_manifest(tiny_bundle)
    assert manifest.to_json() == text
    validate("manifest", json.loads(text))


def test_the_stored_schema_is_the_schema_of_the_code(repo_root: Path) -> None:
    stored = json.loads((repo_root / "apex_runtime" / "schemas" / "manifest.schema.json").read_text())
    made = Manifest.model_json_schema()
    assert {**stored, "title": "", "$schema": ""} == {**made, "title": "", "$schema": ""}


@pytest.mark.parametrize(
    "path",
    ["../model.onnx", "/etc/passwd", "a/../../b", "..", ".", "", "a//b/../../../c", "C:/x", "a\\..\\b", "./model.onnx", "a\0b"],
)
def test_paths_that_leave_the_bundle_are_refused(tiny_bundle: Path, path: str) -> None:
    edit(tiny_bundle, lambda value: value["artefacts"][0].update(path=path))
    with pytest.raises(BundleError, match="inside the bundle") as caught:
        read_manifest(tiny_bundle)
    assert "build-engine" in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.update(format_version=2), "format 2"),
        (lambda value: value.pop("format_version"), "format None"),
        (lambda value: value.update(surprise=1), "surprise"),
        (lambda value: value.pop("backend"), "backend"),
        (lambda value: value.update(backend="vulkan"), "backend"),
        (lambda value: value["artefacts"][0].update(sha256="0" * 63), "sha256"),
        (lambda value: value["artefacts"][0].update(bytes=-1), "bytes"),
        (lambda value: value.update(artefacts="model.onnx"), "artefacts"),
    ],
)
def test_what_does_not_fit_is_named(tiny_bundle: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edit(tiny_bundle, change)
    with pytest.raises(BundleError, match=words):
        read_manifest(tiny_bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b" " * (5 << 20)])
def test_files_that_are_no_manifest(tiny_bundle: Path, content: bytes) -> None:
    (tiny_bundle / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError):
        read_manifest(tiny_bundle)
