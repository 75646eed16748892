"""``apex-train mine`` as a person types it: a subset that opens, weights that a training reads, a sheet and a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from apex_runtime.data.image import decode_image
from apex_runtime.data.open import open_dataset
from apex_runtime.model_info import Category
from apex_train.checkpoint import save_checkpoint
from apex_train.cli.main import main
from apex_train.data.sample_weights import read_sample_weights
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


def test_wrong_usage(checkpoint: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    unknown = mine(checkpoint, "--data", nuclei_fixture, "--by", "luck", "-o", tmp_path)
    assert unknown.exit_code == 2 and "--by luck" in unknown.output
    config = ModelConfig(classes=(Category(id=1, name="roof"),))
    save_checkpoint(tmp_path / "roof.pt", ApexDetector(config), config)
    other = mine(tmp_path / "roof.pt", "--data", nuclei_fixture, "--size", 128, "-o", tmp_path)
    assert other.exit_code == 2 and "are not those of the checkpoint" in other.output
    config = ModelConfig(classes=(Category(id=1, name="nucleus"),), depth=2)
    save_checkpoint(tmp_path / "deep.pt", ApexDetector(config), config)
    deep = mine(tmp_path / "deep.pt", "--data", nuclei_fixture, "--size", 128, "-o", tmp_path)
    assert deep.exit_code == 2 and "model.depth 1" in deep.output
