"""Bundles: built as a whole or not at all, verified before a backend sees them, never at the cost of somebody's files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from tiny_model import tiny_info, tiny_proto

from apex_runtime.backends import ort
from apex_runtime.backends.capabilities import Answer
from apex_runtime.backends.reasons import ReasonCode
from apex_runtime.backends.tensorrt_builder import Plan
from apex_runtime.bundle import build as building
from apex_runtime.bundle import load as loading
from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.load import open_engine
from apex_runtime.bundle.manifest import read_manifest
from apex_runtime.errors import BackendError, BundleError, ModelError, UsageError


@pytest.fixture
def rtx_bundle(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tensorrt-rtx bundle whose plans are a few bytes: what is tested here does not read them."""
    monkeypatch.setattr(building, "build_plans", lambda _file, _backend, numbers, *_rest: [Plan(n, b"plan") for n in numbers])
    build_bundle(tiny_onnx, "tensorrt-rtx", tmp_path / "rtx", compute_capabilities=[89, 75], max_batch=4)
    return tmp_path / "rtx"


def test_a_bundle_holds_the_model_and_the_truth_about_it(tiny_onnx: Path, tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    digest = hashlib.sha256(tiny_onnx.read_bytes()).hexdigest()
    assert (tiny_bundle / "model.onnx").read_bytes() == tiny_onnx.read_bytes()
    assert (manifest.backend, manifest.precision, manifest.source.sha256) == ("ort-cpu", "fp32", digest)
    assert (
        {item.path for item in manifest.artefacts}
        == {"model.onnx", "precision.json"}
        == set(os.listdir(tiny_bundle)) - {"manifest.json"}
    )
    assert [tensor.name for tensor in manifest.inputs] == ["images", "tiles", "tile_bonus"]
    assert manifest.inputs[0].shape == ("batch", 128, 128, 3)
    assert [(plugin.name, plugin.version, plugin.body) for plugin in manifest.plugins] == [("SelectionKey", "1", True)]
    assert manifest.build.command == "apex-rt build-engine model.onnx --backend ort-cpu -o bundle"
    assert str(tiny_bundle.parent) not in (tiny_bundle / "manifest.json").read_text(), "no path of this machine"


def test_precision_report_counts_what_runs(tiny_bundle: Path, validate: Callable[[str, object], None]) -> None:
    report = json.loads((tiny_bundle / "precision.json").read_text())
    validate("precision", report)
    inlined = onnx.inliner.inline_local_functions(onnx.load(tiny_bundle / "model.onnx"))
    assert sum(row["count"] for row in report["nodes"]) == len(inlined.graph.node)
    rows = {(row["op"], row["precision"]) for row in report["nodes"]}
    assert {("Round", "float32"), ("Mod", "int64")} <= rows, "bodies of functions count as what runs, integers as integers"


def test_rtx_bundle_records_its_plans(rtx_bundle: Path) -> None:
    manifest = read_manifest(rtx_bundle)
    assert manifest.compute_capabilities == (75, 89)
    assert [item.path for item in manifest.find("plan")] == ["plan.sm75", "plan.sm89"]
    ranges = {item.input: item for item in manifest.optimisation_profiles[0]}
    assert (ranges["tiles"].kind, ranges["tiles"].maximum) == ("values", (16,))
    assert ranges["images"].maximum == (4, 128, 128, 3)
    assert "--compute-capability 89,75 --max-batch 4" in manifest.build.command


def test_a_loaded_bundle_runs(tiny_bundle: Path) -> None:
    session = open_engine(tiny_bundle, threads=1).session
    outputs = session.run(np.zeros((1, 128, 128, 3), np.uint8), 2, np.zeros((1, 16), np.float32))
    assert outputs["tile_ids"].shape == (1, 2)


def forbid_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(*_arguments: object) -> None:
        raise AssertionError("the backend saw a file that was not verified")

    monkeypatch.setattr(ort.OrtSession, "__init__", touch)


@pytest.mark.parametrize("name", ["model.onnx", "precision.json"])
@pytest.mark.parametrize("how", ["flip", "append", "empty", "remove"])
def test_a_changed_file_is_found_before_the_backend_sees_it(
    tiny_bundle: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_bundle / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes(data), "append": path.read_bytes() + b"\0", "empty": b""}[how])
    forbid_backend(monkeypatch)
    with pytest.raises(BundleError, match="missing" if how == "remove" else "changed after") as caught:
        open_engine(tiny_bundle)
    assert str(path) in caught.value.message
    assert "apex-rt build-engine model.onnx --backend ort-cpu -o bundle" in caught.value.remedy


def test_a_link_out_of_the_bundle_is_refused(tiny_bundle: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny_bundle / "model.onnx").unlink()
    (tiny_bundle / "model.onnx").symlink_to(tiny_onnx)
    forbid_backend(monkeypatch)
    with pytest.raises(BundleError, match="outside the bundle"):
        open_engine(tiny_bundle)


@pytest.mark.parametrize("field", ["classes", "preprocessing", "tiles"])
def test_a_manifest_that_contradicts_the_model_is_refused(tiny_bundle: Path, field: str) -> None:
    path = tiny_bundle / "manifest.json"
    value = json.loads(path.read_text())
    if field == "classes":
        value["classes"][0]["name"] = "tumour"
    else:
        value[field][{"preprocessing": "pad_value", "tiles": "halo"}[field]] = 7
    path.write_text(json.dumps(value))
    with pytest.raises(BundleError, match=field):
        open_engine(tiny_bundle)


def test_strict_refuses_a_plan_that_cannot_run_and_permissive_says_what_it_did(rtx_bundle: Path) -> None:
    with pytest.raises(BackendError) as caught:
        open_engine(rtx_bundle)
    assert caught.value.code and caught.value.code in caught.value.message
    assert str(rtx_bundle / "model.onnx") in caught.value.remedy and "--policy permissive" in caught.value.remedy
    opened = open_engine(rtx_bundle, policy="permissive")
    assert (opened.requested, opened.executed) == ("tensorrt-rtx", "ort-cpu")
    assert opened.reason == caught.value.code


def test_the_model_inside_a_bundle_can_be_named_itself(rtx_bundle: Path) -> None:
    assert open_engine(rtx_bundle / "model.onnx").requested == "ort-cpu"


def test_another_folder_is_never_overwritten(tiny_onnx: Path, tmp_path: Path) -> None:
    precious = tmp_path / "thesis" / "chapter1.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    with pytest.raises(UsageError, match="left alone"):
        build_bundle(tiny_onnx, "ort-cpu", precious.parent)
    with pytest.raises(UsageError, match="a file of this name"):
        build_bundle(tiny_onnx, "ort-cpu", precious)
    with pytest.raises(UsageError, match=r"figures: nothing can be written in .*chapter1\.txt"):
        build_bundle(tiny_onnx, "ort-cpu", precious / "new" / "figures")
    assert precious.read_text() == "years"
    assert sorted(os.listdir(tmp_path)) == ["thesis"]


def test_an_older_bundle_is_replaced_and_foreign_files_beside_it_stay(tiny_bundle: Path) -> None:
    (tiny_bundle / "card.md").write_text("about")
    (tiny_bundle / "plan.sm75").write_bytes(b"of an older build")
    (tiny_bundle / "notes").mkdir()
    (tiny_bundle / "notes" / "a.txt").write_text("a")
    build_bundle(tiny_bundle / "model.onnx", "ort-cpu", tiny_bundle)
    assert sorted(os.listdir(tiny_bundle)) == ["card.md", "manifest.json", "model.onnx", "notes", "precision.json"]
    assert (tiny_bundle / "notes" / "a.txt").read_text() == "a"
    open_engine(tiny_bundle)
    assert os.listdir(tiny_bundle.parent) == ["bundle"], "nothing is left beside it"


def test_a_damaged_bundle_can_be_built_again(tiny_onnx: Path, tiny_bundle: Path) -> None:
    (tiny_bundle / "manifest.json").write_text("{")
    build_bundle(tiny_onnx, "ort-cpu", tiny_bundle)
    open_engine(tiny_bundle)


def test_a_build_that_fails_leaves_the_older_bundle_and_no_trace(
    tiny_onnx: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tiny_bundle / "manifest.json").read_bytes()

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building, "_describe", fail)
    with pytest.raises(OSError):
        build_bundle(tiny_onnx, "ort-cpu", tiny_bundle)
    assert (tiny_bundle / "manifest.json").read_bytes() == before
    assert os.listdir(tiny_bundle.parent) == ["bundle"]


def test_a_model_that_onnx_runtime_cannot_load_becomes_no_bundle(tmp_path: Path) -> None:
    model = tiny_proto(tiny_info())
    del model.functions[:]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BackendError):
        build_bundle(tmp_path / "model.onnx", "ort-cpu", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_relative_output_in_the_current_folder(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    build_bundle(tiny_onnx, "ort-cpu", "a/b/bundle")
    build_bundle(tiny_onnx, "ort-cpu", "a/b/bundle")
    open_engine("a/b/bundle")


@pytest.mark.parametrize("backend", ["ort-cpu", "ort-cuda"])
def test_options_of_plans_mean_nothing_to_onnx_runtime(tiny_onnx: Path, tmp_path: Path, backend: str) -> None:
    for options in ({"compute_capabilities": [89]}, {"timing_cache": tmp_path / "timings"}):
        with pytest.raises(UsageError, match=f"no meaning for {backend}"):
            build_bundle(tiny_onnx, backend, tmp_path / "out", **options)


def test_tensorrt_for_rtx_has_no_timing_cache_and_says_what_it_has(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="times nothing") as caught:
        build_bundle(tiny_onnx, "tensorrt-rtx", tmp_path / "out", timing_cache=tmp_path / "timings")
    assert "runtime" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_bundle_for_onnx_runtime_on_a_gpu_is_built_without_one(tiny_onnx: Path, tmp_path: Path) -> None:
    manifest = build_bundle(tiny_onnx, "ort-cuda", tmp_path / "out")
    assert manifest == read_manifest(tmp_path / "out")
    assert (manifest.backend, manifest.find("plan"), manifest.optimisation_profiles) == ("ort-cuda", (), ())
    assert manifest.build.command == "apex-rt build-engine model.onnx --backend ort-cuda -o out"


def test_paths_that_are_no_engine(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such engine"):
        open_engine(tmp_path / "absent")
    with pytest.raises(BundleError, match="not an engine bundle"):
        open_engine(tmp_path)
    with pytest.raises(BundleError) as caught:
        open_engine(tiny_onnx.parent)
    assert str(tiny_onnx) in caught.value.remedy, "the folder has a model.onnx: say so"
    with pytest.raises(UsageError, match="one size"):
        open_engine(tiny_onnx, size=(64, 64))


@pytest.mark.parametrize(
    ("device", "error"), [("gpu", UsageError), ("cuda:x", UsageError), ("", UsageError), ("cuda:0", BackendError)]
)
def test_devices(tiny_onnx: Path, device: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_engine(tiny_onnx, device=device)


def test_checkpoints_go_through_the_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    seen: list[object] = []

    def opener(given: Path, size: object, threads: object, decode: object, device: object) -> SimpleNamespace:
        seen.append((given, size, threads, decode, device))
        return SimpleNamespace(name="torch", info=tiny_info())

    monkeypatch.setattr(
        loading, "entry_points", lambda group: [SimpleNamespace(load=lambda: opener)] if group == "apex_x.checkpoint" else []
    )
    monkeypatch.setattr(loading, "probe_cuda", lambda index: Answer())
    opened = open_engine(path, threads=2, size=(64, 96), decode="nms", device="cuda:1")
    assert opened.executed == "torch"
    assert opened.digest == hashlib.sha256(b"weights").hexdigest()
    assert seen == [(path, (64, 96), 2, "nms", "cuda:1")]
    assert (opened.selected, opened.device, opened.refusals) == ("torch", "cuda:1", ())
    monkeypatch.setattr(loading, "probe_cuda", lambda index: Answer(ReasonCode.CUDA_DEVICE_NOT_FOUND, "no device"))
    with pytest.raises(BackendError, match="cuda_device_not_found"):
        open_engine(path, device="cuda:1")


def test_checkpoints_without_the_training_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")

    def no_torch() -> None:
        raise ImportError("No module named 'torch'")

    for entries in ([], [SimpleNamespace(load=no_torch)]):
        monkeypatch.setattr(loading, "entry_points", lambda group, entries=entries: entries)
        with pytest.raises(ModelError) as caught:
            open_engine(path)
        assert 'pip install ".[train]"' in caught.value.remedy
