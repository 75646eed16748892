"""``apex-train label-quality`` as a person types it: weights that a training reads, regions, and how well noise is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from plant_noise import RECORD, Noise, plant

from apex_runtime.data.open import open_dataset
from apex_train.cli.main import main
from apex_train.labels.document import LEAST
from apex_train.labels.planted import Record


def label_quality(*words: object) -> Result:
    return CliRunner().invoke(main, ["label-quality", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def noisy(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("noisy")
    return folder, plant(nuclei_fixture, "train", Noise({"missing": 0.15, "shifted": 0.15, "spurious": 0.15}), 0, folder)


@pytest.fixture(scope="module")
def shipped(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "checkpoint.pt"


def test_planted_noise_is_found(shipped: Path, noisy: tuple[Path, Record], tmp_path: Path, repo_root: Path) -> None:
    folder, record = noisy
    output = tmp_path / "annotations" / "train.json"
    words = ["--data", folder, "--size", 256, "--threads", 1, "--truth", folder / RECORD, "-o", output, "--json"]
    result = label_quality(shipped, *words)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "label-quality.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(report)
    kinds = {row["kind"]: row for row in report["truth"]["kinds"]}
    for kind in ("shifted", "spurious", "all"):
        assert kinds[kind]["annotations"] > 5 and kinds[kind]["auc"]["value"] > 0.75
    assert kinds["wrong-class"]["annotations"] == 0 and kinds["wrong-class"]["auc"] is None
    regions = report["truth"]["regions"]
    assert regions["missing"] == sum(each.kind == "missing" for each in record.planted)
    assert regions["precision"]["value"] > 0.3 and regions["recall"]["value"] > 0.3
    assert [row["agreement"] for row in report["images"]] == sorted(row["agreement"] for row in report["images"])

    (tmp_path / "images").symlink_to(folder / "images")
    judged, before = open_dataset(tmp_path, "train"), open_dataset(folder, "train")
    for place in range(len(judged)):
        found, was = judged.instances(place), before.instances(place)
        labels = ~found.crowd
        assert found.boxes[labels].tolist() == was.boxes.tolist() and found.weights is not None
        assert found.weights.min() >= np.float32(LEAST) and (found.weights[~labels] == 1).all()
    assert sum(found.crowd.sum() for found in map(judged.instances, range(len(judged)))) == report["unlabelled"] > 0
    wrong = {each.id for each in record.planted}
    document = json.loads(output.read_text())
    right, doubtful = (
        [entry["weight"] for entry in document["annotations"] if not entry["iscrowd"] and (entry["id"] in wrong) == side]
        for side in (False, True)
    )
    assert np.mean(right) > np.mean(doubtful) + 0.15


def test_weights_multiply_and_regions_may_be_left_out(shipped: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "once" / "annotations" / "train.json", tmp_path / "twice.json"
    words = ["--size", 128, "--threads", 1, "--unlabelled", "background"]
    assert label_quality(shipped, "--data", nuclei_fixture, *words, "-o", first).exit_code == 0
    (tmp_path / "once" / "images").symlink_to(nuclei_fixture / "images")
    result = label_quality(shipped, "--data", tmp_path / "once", *words, "-o", second)
    assert result.exit_code == 0 and "objects that nobody annotated" in result.stdout
    once, twice = (json.loads(path.read_text())["annotations"] for path in (first, second))
    assert not any(entry["iscrowd"] for entry in once) and len(once) == len(twice)
    for one, two in zip(once, twice, strict=True):
        assert two["quality"] == one["quality"] and two["weight"] == pytest.approx(
            max(LEAST, one["weight"] * one["quality"]), abs=1e-4
        )
    assert 0.1 < np.mean([entry["weight"] for entry in once]) < 0.99


def test_a_record_of_other_annotations_is_refused(
    shipped: Path, noisy: tuple[Path, Record], nuclei_fixture: Path, tmp_path: Path
) -> None:
    other = label_quality(shipped, "--data", nuclei_fixture, "--truth", noisy[0] / RECORD, "-o", tmp_path / "a.json")
    assert other.exit_code == 1 and "has changed since" in other.output
    (tmp_path / "none.json").write_text("{}")
    none = label_quality(shipped, "--data", nuclei_fixture, "--truth", tmp_path / "none.json", "-o", tmp_path / "a.json")
    assert none.exit_code == 1 and "record of planted noise" in none.output
    source = nuclei_fixture / "annotations" / "train.json"
    before = source.read_bytes()
    over = label_quality(shipped, "--data", nuclei_fixture, "-o", source)
    assert over.exit_code == 2 and source.read_bytes() == before
    unsure = label_quality(shipped, "--data", nuclei_fixture, "--min-score", 0.6, "-o", tmp_path / "a.json")
    assert unsure.exit_code == 2 and "--unlabelled-score 0.5: below --min-score 0.6" in unsure.output
