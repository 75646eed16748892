"""An engine arrives as it was packed, or not at all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from apex_runtime.bundle.load import open_engine
from apex_runtime.errors import ApexError, BundleError, ModelError
from apex_runtime.offline.parcel import Parcel, pack


@pytest.mark.parametrize("kind", ["bundle", "onnx"])
def test_the_engine_is_the_same_elsewhere(kind: str, tiny_bundle: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    path = tiny_bundle if kind == "bundle" else tiny_onnx
    (tiny_bundle / "secret.txt").write_text("not a part of the engine")
    parcel, passport = pack(path)
    arrived = pickle.loads(pickle.dumps(parcel)).unpack(tmp_path / "there")
    here, there = open_engine(path, 1), open_engine(arrived, 1)
    assert here.digest == there.digest == passport.digest
    assert passport.info == there.session.info and not passport.needs_gpu
    assert not list((tmp_path / "there").rglob("secret.txt"))


def test_a_bundle_for_a_gpu_is_known_without_one(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    (tiny_bundle / "manifest.json").write_text(json.dumps(manifest | {"backend": "ort-cuda"}))
    assert pack(tiny_bundle)[1].needs_gpu


def test_a_change_on_the_way_is_noticed(tiny_onnx: Path, tmp_path: Path) -> None:
    parcel, _passport = pack(tiny_onnx)
    ((name, (data, digest)),) = parcel.files.items()
    for files in ({name: (data[:-1], digest)}, {f"../{name}": (data, digest)}, {f"/{name}": (data, digest)}):
        with pytest.raises(BundleError, match="changed on its way"):
            Parcel(parcel.root, files).unpack(tmp_path / "there")
    assert not (tmp_path / name).exists()


def test_what_is_no_engine_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ModelError):
        pack(tmp_path / "text.onnx")
    (tiny_bundle / "model.onnx").write_bytes(b"other")
    for path in (tiny_bundle, tmp_path / "none", tmp_path):
        with pytest.raises(ApexError):
            pack(path)
