"""``build-engine`` compares what a pass made with fp32, records it in the bundle, and shows it; ``inspect`` shows it again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner

from apex_runtime.bundle import against_fp32
from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.precision import read_precision
from apex_runtime.cli.main import main
from apex_runtime.precision.request import PrecisionRequest


class Ran(Protocol):
    """What the fixture ``apex_rt`` gives back."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def shipped_path(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "model.onnx"


@pytest.fixture(scope="module")
def quick() -> object:
    """One round on one image: what is tested here is not time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against_fp32, "ROUNDS", 1)
        patch.setattr(against_fp32, "TIMED_IMAGES", 1)
        yield


@pytest.fixture(scope="module")
def built(quick: object, shipped_path: Path, nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A bundle in fp16, calibrated on one image of train and reported on the three of val."""
    folder = tmp_path_factory.mktemp("report") / "bundle"
    words = ["build-engine", shipped_path, "--precision", "fp16", "--data", nuclei_fixture, "--calibration-images", 1]
    result = CliRunner().invoke(main, [str(word) for word in (*words, "-o", folder)])
    assert result.exit_code == 0, result.output
    return folder, type("Ran", (), {"code": 0, "out": result.stdout, "err": result.stderr})()


def test_the_record_is_in_the_bundle(built: tuple[Path, Ran], validate: Callable[[str, object], None]) -> None:
    folder, _ = built
    document = json.loads((folder / "precision.json").read_text())
    validate("precision", document)
    assert document["calibration"]["images"] == 1
    found = document["against_fp32"]
    assert found["identical_graph"] is False and found["measured"]["images"] == 3
    assert found["measured"]["origin"] == "the split val (there is no split test)"
    for row in found["measured"]["budgets"]:
        assert row["tile_overlap"]["worst"] > 0.9 and row["graph_milliseconds"]["ratio"] > 0
        for each in (row["box_ap"], row["mask_ap"]):
            assert 0.3 < each["fp32"] < 1 and abs(each["drop_points"]) < 1
    sizes = found["measured"]["model_bytes"]
    assert sizes["built"] == (folder / "model.onnx").stat().st_size < 0.6 * sizes["fp32"]
    command = json.loads((folder / "manifest.json").read_text())["build"]["command"]
    assert command.endswith("--precision fp16 --data nuclei --calibration-images 1 -o bundle")


def test_it_is_shown_at_the_end_and_by_inspect(built: tuple[Path, Ran], apex_rt: Callable[..., Ran]) -> None:
    folder, ran = built
    measured = read_precision(folder / "precision.json")[0].measured
    assert measured is not None
    assert "against fp32: 3 image(s), the split val (there is no split test); ort-cpu" in ran.out
    assert "recognised as coco" in ran.err and "comparing with fp32" in ran.err
    again = apex_rt("inspect", folder).out
    for row in measured.budgets:
        assert row.mask_ap is not None
        assert f"{100 * row.mask_ap.fp32:.2f} -> {100 * row.mask_ap.built:.2f}" in ran.out
        assert f"  budget {row.budget}: box AP" in again and f"mask AP {100 * row.mask_ap.built:.2f} (drop" in again
    for remark in measured.remarks:
        assert remark in ran.out and remark in again


def test_a_false_record_is_refused_by_inspect(built: tuple[Path, Ran], tmp_path: Path, apex_rt: Callable[..., Ran]) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(built[0], folder)
    document = json.loads((folder / "precision.json").read_text())
    document["against_fp32"]["measured"]["budgets"][0]["tile_overlap"] = "all"
    data = json.dumps(document).encode()
    (folder / "precision.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    for item in manifest["artefacts"]:
        if item["path"] == "precision.json":
            item |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    ran = apex_rt("inspect", folder)
    assert ran.code == 1 and "not a record of precisions" in ran.err


def test_for_a_gpu_it_is_simulated_and_not_timed(
    quick: object, shipped_path: Path, repo_root: Path, tmp_path: Path, apex_rt: Callable[..., Ran], validate
) -> None:
    sample = repo_root / "engines" / "samples" / "797945873ca2a95f.jpg"
    words = ("--precision", "fp16", "--backend", "ort-cuda", "--data", sample, "-o", tmp_path / "b", "--json")
    ran = apex_rt("build-engine", shipped_path, *words)
    found = json.loads(ran.out)["against_fp32"]
    document = json.loads((tmp_path / "b" / "precision.json").read_text())
    validate("precision", document)
    assert document["against_fp32"] == found
    measured = found["measured"]
    assert measured["executed"] == "simulated on ort-cpu" and measured["threads"] is None and measured["remarks"] == []
    assert measured["images"] == 1 and measured["origin"] == "the images of the calibration"
    for row in measured["budgets"]:
        assert row["graph_milliseconds"] is row["box_ap"] is row["mask_ap"] is None
        assert 0 < row["tile_overlap"]["worst"] <= row["tile_overlap"]["mean"] <= 1


def test_fp32_is_itself_and_says_so(tiny_onnx: Path, tmp_path: Path, apex_rt: Callable[..., Ran]) -> None:
    ran = apex_rt("build-engine", tiny_onnx, "-o", tmp_path / "b", "--json")
    assert json.loads(ran.out)["against_fp32"] == {"identical_graph": True}
    assert "against fp32" not in apex_rt("build-engine", tiny_onnx, "-o", tmp_path / "b").out


@pytest.mark.parametrize("option", [["--report"], ["--calibration-images", "3"]])
def test_what_means_nothing_for_fp32_is_refused(
    option: list[str], tiny_onnx: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    ran = apex_rt("build-engine", tiny_onnx, *option, "-o", tmp_path / "b")
    assert ran.code == 2 and f"{option[0]} has no meaning for fp32" in ran.err and not (tmp_path / "b").exists()
    (tmp_path / "recipe.yaml").write_text("report: true\ncalibration_images: 3\n")
    assert apex_rt("build-engine", tiny_onnx, "--recipe", tmp_path / "recipe.yaml", "-o", tmp_path / "b").code == 0


def test_a_set_without_train_is_wrong_usage_and_leaves_nothing(
    shipped_path: Path, nuclei_fixture: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    data = nuclei_fixture / "annotations" / "val.json"
    ran = apex_rt("build-engine", shipped_path, "--precision", "fp16", "--data", data, "-o", tmp_path / "b")
    assert ran.code == 2 and "no split train" in ran.err and not list(tmp_path.iterdir())


def test_what_the_report_lacks_is_said_before_the_calibration(
    shipped_path: Path, nuclei_fixture: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    data = nuclei_fixture / "annotations" / "train.json"
    ran = apex_rt("build-engine", shipped_path, "--precision", "fp16", "--data", data, "-o", tmp_path / "b")
    assert ran.code == 2 and "neither a split test nor val" in ran.err and "calibrating" not in ran.err


def test_ctrl_c_in_the_comparison_leaves_nothing(quick: object, shipped_path: Path, repo_root: Path, tmp_path: Path) -> None:
    sample = repo_root / "engines" / "samples" / "797945873ca2a95f.jpg"

    def until_compared(title: str, done: int, _total: int) -> bool:
        return done < 1 or not title.startswith("comparing")

    with pytest.raises(KeyboardInterrupt):
        asked = PrecisionRequest("fp16", data=sample)
        build_bundle(shipped_path, "ort-cpu", tmp_path / "b", precision=asked, step=until_compared)
    assert not list(tmp_path.iterdir())
