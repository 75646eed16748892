"""``apex-rt build-engine`` and ``apex-rt doctor`` from the outside."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from apex_runtime.backends import capabilities
from apex_runtime.backends.capabilities import BACKENDS
from apex_runtime.backends.onnx_contract import OnnxFile

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason='TensorRT for RTX is not installed: pip install ".[rtx]"',
)


def test_build_for_the_cpu_prints_what_it_made(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    ran = apex_rt("build-engine", tiny_onnx, "--backend", "ort-cpu", "-o", tmp_path / "bundle")
    assert ran.code == 0 and "model.onnx" in ran.out and "precision.json" in ran.out
    ran = apex_rt("build-engine", tiny_onnx, "-o", tmp_path / "bundle", "--json")
    assert json.loads(ran.out)["manifest"]["backend"] == "ort-cpu"


@needs_rtx
def test_build_for_rtx_on_a_machine_without_a_gpu(apex_rt, validate, tiny_onnx: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    ran = apex_rt(
        "build-engine",
        tiny_onnx,
        "--backend",
        "tensorrt-rtx",
        "--compute-capability",
        "75,86",
        "--compute-capability",
        "89",
        "-o",
        bundle,
    )
    assert ran.code == 0, ran.err
    manifest = json.loads((bundle / "manifest.json").read_text())
    validate("manifest", manifest)
    assert manifest["compute_capabilities"] == [75, 86, 89]
    assert {path.name for path in bundle.iterdir()} == {
        "manifest.json",
        "model.onnx",
        "precision.json",
        "plan.sm75",
        "plan.sm86",
        "plan.sm89",
    }
    assert "sm_86" in ran.err


@needs_rtx
def test_one_recipe_builds_plans_for_five_compute_capabilities(apex_rt, tiny_onnx: Path, tmp_path: Path, repo_root: Path) -> None:
    recipe = repo_root / "engines" / "rtx-desktop.yaml"
    ran = apex_rt("build-engine", tiny_onnx, "--recipe", recipe, "-o", tmp_path / "bundle", "--json")
    assert ran.code == 0, ran.err
    manifest = json.loads(ran.out)["manifest"]
    assert manifest["compute_capabilities"] == [75, 86, 89, 120, 121]
    plans = [item for item in manifest["artefacts"] if item["role"] == "plan"]
    assert len({item["sha256"] for item in plans}) == 5 and all(item["bytes"] > 10_000 for item in plans)


def test_a_shipped_recipe_is_found_by_name_and_an_unknown_one_lists_them(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    ran = apex_rt("build-engine", tiny_onnx, "--recipe", "gpu-onnxruntime", "-o", tmp_path / "bundle", "--json")
    assert ran.code == 0 and json.loads(ran.out)["manifest"]["backend"] == "ort-cuda"
    ran = apex_rt("build-engine", tiny_onnx, "--recipe", "gpu-onnx", "-o", tmp_path / "other")
    assert ran.code == 2 and "cpu, cpu-int8, gpu-onnxruntime, rtx-balanced, rtx-desktop, tensorrt-server" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("backend", "words"), [("ort-cpu", "no meaning"), ("tensorrt-rtx", "times nothing")])
def test_a_timing_cache_is_for_tensorrt(apex_rt, tiny_onnx: Path, tmp_path: Path, backend: str, words: str) -> None:
    ran = apex_rt("build-engine", tiny_onnx, "--backend", backend, "--timing-cache", tmp_path / "t", "-o", tmp_path / "bundle")
    assert ran.code == 2 and "--timing-cache" in ran.err and words in ran.err
    assert list(tmp_path.iterdir()) == []


def test_plugins_are_switched_off_for_tensorrt_by_flag_or_recipe_and_the_manifest_says_so(
    apex_rt, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apex_runtime.backends.op_calls import op_calls
    from apex_runtime.backends.plugin_use import choose_implementations
    from apex_runtime.backends.tensorrt_builder import Plan
    from apex_runtime.bundle import build

    def plans(file: OnnxFile, *arguments: object) -> list[Plan]:
        assert arguments[-1] is False
        nothing_asked = SimpleNamespace()  # of TensorRT: there is no registry to look into
        return [Plan(90, b"plan", plugins=choose_implementations(nothing_asked, op_calls(file.model), plugins=False))]

    monkeypatch.setattr(build, "build_plans", plans)
    model = repo_root / "engines" / "nuclei-nano" / "model.onnx"
    (tmp_path / "recipe.yaml").write_text("backend: tensorrt\nplugins: false\n")
    for number, asked in enumerate((["--backend", "tensorrt", "--no-plugins"], ["--recipe", tmp_path / "recipe.yaml"])):
        ran = apex_rt("build-engine", model, *asked, "-o", tmp_path / str(number), "--json")
        manifest = json.loads(ran.out)["manifest"]
        found = {(item["name"], item["implementation"], item["reason"]) for item in manifest["plugins"]}
        assert ("TilePack", "body", "plugins_switched_off") in found
        assert {implementation for _, implementation, _ in found} == {"body"}
        assert " --no-plugins " in manifest["build"]["command"]
    ran = apex_rt("build-engine", model, "--no-plugins", "-o", tmp_path / "other")
    assert ran.code == 2 and "--no-plugins, has no meaning for ort-cpu" in ran.err


def test_what_is_wrong_with_a_timing_cache_is_a_note_on_standard_error(
    apex_rt, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apex_runtime.backends.tensorrt_builder import Plan
    from apex_runtime.bundle import build

    def plans(*arguments: object) -> list[Plan]:
        timing_cache, note, _plugins = arguments[-3:]
        note(f"timing cache: {timing_cache} is damaged")  # type: ignore[operator]
        return [Plan(90, b"plan")]

    monkeypatch.setattr(build, "build_plans", plans)
    ran = apex_rt("build-engine", tiny_onnx, "--backend", "tensorrt", "--timing-cache", tmp_path / "t", "-o", tmp_path / "b")
    assert ran.code == 0 and f"note: timing cache: {tmp_path / 't'} is damaged" in ran.err and "plan.sm90" in ran.out


@needs_rtx
def test_ctrl_c_ends_a_build_and_leaves_nothing(tiny_onnx: Path, tmp_path: Path) -> None:
    """The builder is C++ and would swallow a KeyboardInterrupt."""
    capabilities_asked = "75,80,86,89,120,121"
    command = [sys.executable, "-m", "apex_runtime.cli.main", "build-engine", str(tiny_onnx), "--backend", "tensorrt-rtx"]
    process = subprocess.Popen(
        [*command, "--compute-capability", capabilities_asked, "-o", str(tmp_path / "b")], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert "sm_75" in first and process.wait(120) == 1
    assert "interrupted" in rest and "Traceback" not in rest and "sm_121" not in rest
    assert list(tmp_path.iterdir()) == []


def test_build_for_rtx_without_the_wheels(apex_rt, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(capabilities.TENSORRT_MODULES, "tensorrt-rtx", ("a_module_that_is_not_there",))
    ran = apex_rt("build-engine", tiny_onnx, "--backend", "tensorrt-rtx", "-o", tmp_path / "bundle")
    assert ran.code == 1
    assert "tensorrt_rtx_python_not_installed" in ran.err and 'pip install ".[rtx]"' in ran.err
    assert list(tmp_path.iterdir()) == []


def test_doctor(apex_rt, validate) -> None:
    ran = apex_rt("doctor")
    assert ran.code == 0
    for backend in BACKENDS:
        assert backend in ran.out
    for words in ("machine: ", "GPU: ", f"onnxruntime {version('onnxruntime')}", f"pycocotools {version('pycocotools')}"):
        assert words in ran.out
    document = json.loads(apex_rt("doctor", "--json").out)
    validate("doctor", document)
    assert {row["backend"] for row in document["backends"] if row["proof"] == "proven"} == {"ort-cpu"}
    assert ran.out.count("unproven") == len(BACKENDS) - 1
    rows = document["backends"]
    assert [row["backend"] for row in rows] == list(BACKENDS)
    assert rows[0]["run"]["available"] is True
    for answer in (row[verb] for row in rows for verb in ("build", "run")):
        assert answer["available"] == (answer["reason"] is None) == (answer["remedy"] == "")


def test_doctor_says_no_when_nothing_runs(apex_rt, monkeypatch: pytest.MonkeyPatch) -> None:
    from apex_runtime.backends.reasons import ReasonCode

    answer = capabilities.Answer(ReasonCode.ONNXRUNTIME_NOT_INSTALLED, "gone")
    monkeypatch.setattr(capabilities, "_probe_onnxruntime", lambda: ("", answer))
    ran = apex_rt("doctor")
    assert ran.code == 1 and "onnxruntime_not_installed" in ran.out and "pip install onnxruntime" in ran.out


def test_a_batch_limit_is_for_plans_only(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("max_batch: 4\n")
    ran = apex_rt("build-engine", tiny_onnx, "--max-batch", "4", "-o", tmp_path / "a")
    assert ran.code == 2 and "--max-batch" in ran.err and not (tmp_path / "a").exists()
    assert apex_rt("build-engine", tiny_onnx, "--recipe", recipe, "-o", tmp_path / "b").code == 0
