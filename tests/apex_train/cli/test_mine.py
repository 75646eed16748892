"""``apex-train mine`` as a person types it: a subset that opens, weights that a training reads, a sheet and a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from apex_runtime.data.image import decode_image
from apex_runtime.data.open import open_dataset
from apex_runtime.model_info import Category
from apex_train.checkpoint import load_model, save_checkpoint
from apex_train.cli.main import main
from apex_train.config import FitConfig, LossConfig
from apex_train.data.sample_weights import read_sample_weights
from apex_train.mining.look import Fared, Look
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector


def mine(*words: object) -> Result:
    return CliRunner().invoke(main, ["mine", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(classes=(Category(id=1, name="nucleus"),))
    path = tmp_path_factory.mktemp("model") / "a.pt"
    save_checkpoint(path, ApexDetector(config), config)
    return path


def test_everything_that_is_written(checkpoint: Path, nuclei_fixture: Path, tmp_path: Path, repo_root: Path) -> None:
    words = ["--data", nuclei_fixture, "--size", 128, "--share", 0.4, "--draw", 2, "--threads", 1, "-o", tmp_path, "--json"]
    result = mine(checkpoint, *words)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "mine.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(report)
    images = report["images"]
    assert [row["hardness"] for row in images] == sorted((row["hardness"] for row in images), reverse=True)
    chosen = {row["image_id"] for row in images if row["chosen"]}
    assert chosen == {row["image_id"] for row in images[:2]} and report["chosen"] == 2 and len(images) == 5
    assert len({row["loss"] for row in images}) == 5 and any(row["regret"] > 0 for row in images)

    train = open_dataset(nuclei_fixture, "train", "coco")
    subset = json.loads((tmp_path / "subset.json").read_text())
    whole = {entry["id"]: entry for entry in train.ground_truth()["annotations"]}
    assert {image["id"] for image in subset["images"]} == chosen
    assert len(subset["annotations"]) == sum(entry["image_id"] in chosen for entry in whole.values()) > 0
    assert sum(entry["area"] for entry in subset["annotations"]) == pytest.approx(
        sum(entry["area"] for entry in whole.values() if entry["image_id"] in chosen)
    )
    weights = read_sample_weights(tmp_path / "weights.json", train)
    by_name = {row["file_name"]: row["weight"] for row in images}
    assert weights.tolist() == [by_name[record.file_name] for record in train.records] and 1 < np.ptp(weights) + 1 <= 3
    assert decode_image(tmp_path / "sheet.png").shape[0] > 400
    missed = [row for row in report["instances"] if row["kind"] == "missed"]
    assert missed and all(row["annotation"] >= 0 and row["difficulty"] > 0.5 for row in missed)


def test_an_unreadable_image_is_named_and_what_was_looked_at_is_kept(
    checkpoint: Path, nuclei_fixture: Path, tmp_path: Path
) -> None:
    data, out = shutil.copytree(nuclei_fixture, tmp_path / "set"), tmp_path / "hard"
    record = open_dataset(data, "train", "coco").records[1]
    whole = record.path.read_bytes()
    words = [checkpoint, "--data", data, "--size", 128, "--draw", 1, "--views", "flip-x", "--threads", 1, "-o", out]
    record.path.write_bytes(b"\0" * len(whole))
    broken = mine(*words)
    assert broken.exit_code == 1 and f"failed: {record.file_name}" in broken.stdout and "of 4 images chosen" in broken.stdout
    assert record.file_name not in json.loads((out / "weights.json").read_text())["weights"]
    record.path.write_bytes(whole)
    looked = []

    def at(look: Look, place: int) -> Fared:
        looked.append(place)
        return real(look, place)

    real = Look.at
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Look, "at", at)
        mended = mine(*words, "--by", "loss", "--json")
        assert mended.exit_code == 0 and looked == [1], "the others were looked at before"
        assert mine(*words, "--budget", "4").exit_code == 0 and sorted(looked[1:]) == [0, 1, 2, 3, 4], "another question"
    report = json.loads(mended.stdout)
    assert len(report["images"]) == 5 and not report["failures"] and report["loss"]["of"] == "defaults"


def test_the_loss_is_that_of_the_training(checkpoint: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    model, other = load_model(checkpoint), FitConfig(loss=LossConfig(box=50.0))
    save_checkpoint(tmp_path / "last.pt", model, model.config, {"config": other.model_dump(mode="json")})
    words = ["--data", nuclei_fixture, "--split", "val", "--size", 128, "--draw", 0, "--views", "none", "--threads", 1, "--json"]
    plain, own = (
        json.loads(mine(path, *words, "-o", tmp_path / path.stem).stdout) for path in (checkpoint, tmp_path / "last.pt")
    )
    assert own["loss"]["of"] == "checkpoint" and own["loss"]["values"]["box"] == 50.0
    losses = [{row["file_name"]: row["loss"] for row in report["images"]} for report in (plain, own)]
    assert all(losses[1][name] > losses[0][name] for name in losses[0])


def test_wrong_usage(checkpoint: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    unknown = mine(checkpoint, "--data", nuclei_fixture, "--by", "luck", "-o", tmp_path)
    assert unknown.exit_code == 2 and "--by luck" in unknown.output
    twice = mine(checkpoint, "--data", nuclei_fixture, "--by", "loss,regret,loss", "-o", tmp_path)
    assert twice.exit_code == 2 and "named twice" in twice.output
    assert mine(checkpoint, "--data", nuclei_fixture, "--share", "nan", "-o", tmp_path).exit_code == 2
    inside = mine(checkpoint, "--data", nuclei_fixture, "--size", 128, "-o", nuclei_fixture / "annotations")
    assert inside.exit_code == 2 and "holds the annotations" in inside.output
    config = ModelConfig(classes=(Category(id=1, name="roof"),))
    save_checkpoint(tmp_path / "roof.pt", ApexDetector(config), config)
    other = mine(tmp_path / "roof.pt", "--data", nuclei_fixture, "--size", 128, "-o", tmp_path)
    assert other.exit_code == 2 and "are not those of the checkpoint" in other.output
    config = ModelConfig(classes=(Category(id=1, name="nucleus"),), depth=2)
    save_checkpoint(tmp_path / "deep.pt", ApexDetector(config), config)
    deep = mine(tmp_path / "deep.pt", "--data", nuclei_fixture, "--size", 128, "-o", tmp_path)
    assert deep.exit_code == 2 and "model.depth 1" in deep.output
