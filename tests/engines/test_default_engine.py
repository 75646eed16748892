"""The engine that ships: complete, small, the same model as its checkpoint, and as good as its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import apex_runtime
from apex_runtime.backends.ort import OrtSession
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.coco_ap import evaluate_predictor
from apex_runtime.pipeline.predictor import Predictor


@pytest.fixture(scope="module")
def folder(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano"


@pytest.fixture(scope="module")
def evidence(repo_root: Path) -> dict:
    return json.loads((repo_root / "bench" / "evidence" / "nuclei-nano.json").read_text())


def test_it_is_complete_and_small(folder: Path, repo_root: Path) -> None:
    names = {
        "checkpoint.pt",
        "model.onnx",
        "card.md",
        "recipe.yaml",
        "manifest.json",
        "precision.json",
        "train-1.yaml",
        "train-3.yaml",
        "train-2.yaml",
    }
    assert {path.name for path in folder.iterdir()} == names
    assert sum((folder / name).stat().st_size for name in ("checkpoint.pt", "model.onnx")) < 12e6
    samples = [path for path in (repo_root / "engines" / "samples").iterdir() if path.suffix in {".jpg", ".png"}]
    assert len(samples) == 6 and sum(path.stat().st_size for path in samples) < 1e6


def test_the_checkpoint_is_the_one_that_was_exported(folder: Path) -> None:
    from apex_train.checkpoint import file_sha256, load_model, read_checkpoint

    assert "training" not in read_checkpoint(folder / "checkpoint.pt")
    session = OrtSession(folder / "model.onnx")
    assert session.info.checkpoint_sha256 == file_sha256(folder / "checkpoint.pt")
    assert session.info.classes[0].name == "nucleus"
    assert sum(parameter.numel() for parameter in load_model(folder / "checkpoint.pt").parameters()) <= 1_500_000


def test_the_training_values_load(folder: Path) -> None:
    from apex_train.config import load_config

    for name in ("train-1.yaml", "train-2.yaml", "train-3.yaml"):
        assert load_config(folder / name, {}).model.size == "nano"


@pytest.mark.gate
def test_it_finds_nuclei_in_images_it_has_not_learned_from(nuclei_fixture: Path) -> None:
    """The val images of the fixture were not trained on; more tiles must not be worse by more than a little."""
    engine = apex_runtime.load(threads=2)
    dataset = open_dataset(nuclei_fixture, "val")
    figures = {budget: evaluate_predictor(Predictor(engine.opened.session), dataset, budget) for budget in ("1", "1.0")}
    assert figures["1.0"]["AP50_segm"] > 0.5
    assert figures["1.0"]["mAP_segm"] > figures["1"]["mAP_segm"] + 0.03, "the close look must matter"


def test_the_card_says_what_was_measured(folder: Path, evidence: dict) -> None:
    from engine_card import card

    text = (folder / "card.md").read_text()
    shipped = text.partition("| shipped at commit | ")[2].partition(" ")[0]
    assert text == card("nuclei-nano", evidence, shipped)


def test_the_promised_figures_hold(evidence: dict) -> None:
    rows = evidence["rows"]
    assert rows["1.0"]["mAP_segm"] >= 0.40 and rows["1.0"]["AP50_segm"] >= 0.75
    assert rows["1.0"]["mAP_segm"] - rows["no tiles"]["mAP_segm"] >= 0.03
    assert rows["0.5"]["mAP_segm"] >= 0.9 * rows["1.0"]["mAP_segm"]


@pytest.mark.slow
def test_the_evidence_is_reproduced(folder: Path, evidence: dict, shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "nuclei-dsb2018", "test")
    predictor = Predictor(OrtSession(folder / "model.onnx"))
    for budget in ("1.0", "0.5"):
        found = evaluate_predictor(predictor, dataset, budget, max_detections=500)
        assert found["mAP_segm"] == pytest.approx(evidence["rows"][budget]["mAP_segm"], abs=0.002)
