"""``build-engine --precision fp16``: a bundle that says what it is, and that the other commands take like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner
from tiny_model import write_tiny_model

from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.manifest import read_manifest
from apex_runtime.cli.main import main
from apex_runtime.precision.request import PrecisionRequest


class Ran(Protocol):
    """What the fixture ``apex_rt`` gives back."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def bundle(shipped_path: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp16") / "bundle"
    words = ["build-engine", shipped_path, "--precision", "fp16", "--data", sample, "--no-report", "-o", folder]
    run = CliRunner().invoke(main, [str(word) for word in words])
    assert run.exit_code == 0 and "fp16" in run.stdout, run.output
    return folder


def test_manifest_and_record_tell_what_was_done(
    bundle: Path, shipped_path: Path, sample: Path, validate: Callable[[str, object], None]
) -> None:
    manifest = read_manifest(bundle)
    validate("manifest", json.loads(manifest.to_json()))
    assert manifest.precision == "fp16"
    assert manifest.source.sha256 == hashlib.sha256(shipped_path.read_bytes()).hexdigest() != manifest.find("model")[0].sha256
    assert manifest.build.command.endswith(f"--precision fp16 --data {sample.name} --no-report -o bundle")
    report = json.loads((bundle / "precision.json").read_text())
    validate("precision", report)
    assert (report["profile"], report["calibration"]["images"]) == ("fp16", 1)
    assert report["against_fp32"] == {"identical_graph": False, "not_made": "not asked for"}
    regions = {item["region"]: item for item in report["regions"]}
    assert regions["router"]["pinned"] == "float32" and set(regions["router"]["nodes"]) == {"float32"}
    assert sum(sum(item["nodes"].values()) for item in report["regions"]) == len(report["graph_nodes"])
    assert {"float16", "float32"} <= {row["precision"] for row in report["nodes"]}


def test_it_runs_and_passes_parity(
    bundle: Path, shipped_path: Path, sample: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    ran = apex_rt("infer", sample, "--engine", bundle, "--budget", "0.25", "--output", tmp_path / "out", "--json")
    assert ran.code == 0 and json.loads((tmp_path / "out" / "results.json").read_text())["annotations"]
    against = ("--against", bundle, "--profile", "quality", "--budget", "0.25", "--images", sample)
    ran = apex_rt("parity", shipped_path, *against, "--output", tmp_path / "parity.json")
    assert ran.code == 0, ran.out
    (comparison,) = json.loads((tmp_path / "parity.json").read_text())["comparisons"]
    assert comparison["candidate"]["precision"] == "fp16"


def test_bench_measures_it(
    bundle: Path, sample: Path, tmp_path: Path, apex_rt: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))
    ran = apex_rt("bench", bundle, "--budget", "1", "--repeat", "2", "--threads", "1", "--data", sample, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["engine"]["precision"] == "fp16"


def test_inspect_shows_its_regions(bundle: Path, apex_rt: Callable[..., Ran], validate: Callable[[str, object], None]) -> None:
    ran = apex_rt("inspect", bundle)
    assert "router        16 float32; never below float32" in ran.out and "precision fp16: nodes" in ran.out
    assert "not compared with fp32: not asked for" in ran.out
    facts = json.loads(apex_rt("inspect", bundle, "--json").out)
    validate("inspect", facts)
    assert {"region": "router", "nodes": 16} in facts["regions"]


def test_a_recipe_may_ask_for_it(shipped_path: Path, sample: Path, tmp_path: Path, apex_rt: Callable[..., Ran]) -> None:
    (tmp_path / "recipe.yaml").write_text("backend: ort-cpu\nprecision: fp16\nreport: false\ncalibration_images: 1\n")
    ran = apex_rt("build-engine", shipped_path, "--recipe", tmp_path / "recipe.yaml", "--data", sample, "-o", tmp_path / "b")
    assert ran.code == 0 and "not compared with fp32: not asked for" in ran.out
    manifest = read_manifest(tmp_path / "b")
    assert manifest.precision == "fp16" and "--calibration-images 1 --no-report" in manifest.build.command


def test_data_without_a_pass_is_wrong_usage(
    shipped_path: Path, sample: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    ran = apex_rt("build-engine", shipped_path, "--data", sample, "-o", tmp_path / "b")
    assert ran.code == 2 and "--data" in ran.err and "--precision fp16" in ran.err


def test_a_converted_model_is_not_built_again(bundle: Path, tmp_path: Path, apex_rt: Callable[..., Ran]) -> None:
    for precision in ("fp32", "fp16"):
        ran = apex_rt("build-engine", bundle / "model.onnx", "--precision", precision, "-o", tmp_path / "b")
        assert ran.code == 1 and "float16 or rounded to eight bits already" in ran.err
    assert not (tmp_path / "b").exists()


def test_a_model_without_regions_is_refused_and_nothing_is_written(
    tmp_path: Path, sample: Path, apex_rt: Callable[..., Ran]
) -> None:
    model = write_tiny_model(tmp_path / "tiny.onnx")
    ran = apex_rt("build-engine", model, "--precision", "fp16", "--data", sample, "-o", tmp_path / "b")
    assert ran.code == 1 and "apex-train export" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx"}


def test_missing_images_are_named(shipped_path: Path, tmp_path: Path, apex_rt: Callable[..., Ran]) -> None:
    ran = apex_rt("build-engine", shipped_path, "--precision", "fp16", "--data", tmp_path / "none", "-o", tmp_path / "b")
    assert ran.code == 2 and "none" in ran.err and not (tmp_path / "b").exists()


def test_ctrl_c_ends_a_calibration_and_leaves_nothing(shipped_path: Path, repo_root: Path, tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def once(_title: str, done: int, total: int) -> bool:
        asked.append((done, total))
        return done < 1

    with pytest.raises(KeyboardInterrupt):
        data = repo_root / "engines" / "samples"
        build_bundle(shipped_path, "ort-cpu", tmp_path / "b", precision=PrecisionRequest("fp16", data=data), step=once)
    assert asked == [(0, 6), (1, 6)] and not list(tmp_path.iterdir())
