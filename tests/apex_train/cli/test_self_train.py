"""``apex-train self-train`` as a person types it: rounds, their report, a kill in the middle of one, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import load_model
from apex_train.cli.main import main
from apex_train.engine.trainer import Trainer

TINY = ["--set", "train.size=128", "--set", "train.crop=64", "--set", "train.batch=5", "--set", "train.workers=0"]
LIMITS = ["--min-score", 0.3, "--min-agreement", 0.4, "--min-consistency", 0.1, "--views", "flip-x", "--threads", 1]


def self_train(*words: object) -> Result:
    return CliRunner().invoke(main, ["self-train", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, nuclei_fixture: Path) -> Path:
    """The five training images with their labels, without val; ``rest.json`` has the three others, and one of the five."""
    data = tmp_path_factory.mktemp("few") / "few"
    (data / "annotations").mkdir(parents=True)
    shutil.copytree(nuclei_fixture / "images", data / "images")
    train, val = (json.loads((nuclei_fixture / "annotations" / f"{name}.json").read_text()) for name in ("train", "val"))
    (data / "annotations" / "train.json").write_text(json.dumps(train))
    rest = {**val, "images": [*val["images"], train["images"][0] | {"id": 10_000}]}
    (data / "annotations" / "rest.json").write_text(json.dumps(rest))
    return data


@pytest.fixture(scope="module")
def teacher(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "checkpoint.pt"


@pytest.fixture(scope="module")
def words(few: Path, teacher: Path) -> list[object]:
    pool = ["--unlabelled", few, "--unlabelled-split", "rest"]
    return ["--data", few, *pool, "--rounds", 1, "--round-epochs", 2, "--pseudo-weight", 0.5, *TINY, *LIMITS]


@pytest.fixture(scope="module")
def ran(words: list[object], teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    output = tmp_path_factory.mktemp("rounds") / "run"
    result = self_train(*words, "--output", output, "--init", teacher, "--json")
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout), result.stderr


def test_the_report_of_the_rounds(ran: tuple[Path, dict[str, Any], str], few: Path, repo_root: Path) -> None:
    output, report, said = ran
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "self-train.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(report)
    assert report == json.loads((output / "report.json").read_text())
    assert report["unlabelled"]["excluded"] == {"train": 1} and "left out of the unlabelled images, by content: 1 train" in said
    given, taught = report["rounds"]
    assert given["from"] == "checkpoint" and taught["from"] == "teacher" and taught["images"] == {"labelled": 5, "pseudo": 3}
    assert taught["epochs"] == 2 and taught["steps"] == 2  # 8 images, 5 a step
    labelling = taught["labelling"]
    document = json.loads((output / "round-1" / "labels.json").read_text())
    labels = [entry for entry in document["annotations"] if not entry["iscrowd"]]
    assert len(labels) == labelling["labels"] > 5 and labelling["recall"]["value"] > 0.1
    assert all(entry["weight"] == pytest.approx(0.5 * entry["score"]) for entry in labels)
    truth = open_dataset(few, "rest", "coco").ground_truth()
    assert {image["id"] for image in document["images"]} == {image["id"] for image in truth["images"]} - {10_000}


def test_half_of_the_looks_are_at_labelled_images(ran: tuple[Path, dict[str, Any], str]) -> None:
    weights = json.loads((ran[0] / "round-1" / "weights.json").read_text())["weights"]
    labelled = sum(weight for name, weight in weights.items() if name.startswith("labelled/"))
    assert labelled == pytest.approx(sum(weights.values()) / 2) and len(weights) == 8


def test_the_best_of_it_is_a_checkpoint_that_has_learned(ran: tuple[Path, dict[str, Any], str], teacher: Path) -> None:
    output, report, _ = ran
    assert report["best"]["round"] == 1, "nothing is measured without val: the last round"
    first, last = (load_model(path).state_dict() for path in (teacher, output / "best.pt"))
    assert any(not last[name].equal(first[name]) for name in first)


def test_killed_in_a_round_it_goes_on_to_the_same_weights(
    ran: tuple[Path, dict[str, Any], str], words: list[object], teacher: Path, tmp_path: Path
) -> None:
    output, real, steps = tmp_path / "run", Trainer.train_step, []

    def killed(trainer: Trainer, batch: Any) -> dict[str, float]:
        steps.append(trainer.epoch)
        if len(steps) == 2:
            raise SystemExit(137)
        return real(trainer, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", killed)
        assert self_train(*words, "--output", output, "--init", teacher).exit_code == 137
    assert steps == [0, 1] and not (output / "round-1" / "round.json").exists()
    again = self_train(*words, "--output", output)
    assert again.exit_code == 2 and "already holds a run" in again.output
    other = self_train(*words, "--output", output, "--resume", "--labelled-share", 0.3)
    assert other.exit_code == 2 and "another labelled_share" in other.output
    weights = json.loads((output / "round-1" / "weights.json").read_text())
    labels = (output / "round-1" / "labels.json").stat().st_mtime_ns
    resumed = self_train(*words, "--output", output, "--resume")
    assert resumed.exit_code == 0 and "resumed at epoch 2, step 1" in resumed.output, resumed.output
    assert (output / "round-1" / "labels.json").stat().st_mtime_ns == labels, "labelled once"
    assert json.loads((output / "round-1" / "weights.json").read_text()) == weights
    whole, stopped = (load_model(path / "best.pt").state_dict() for path in (ran[0], output))
    assert all(whole[name].equal(stopped[name]) for name in whole)


@pytest.mark.slow
def test_a_fresh_student_begins_from_random_weights(
    ran: tuple[Path, dict[str, Any], str], words: list[object], teacher: Path, tmp_path: Path
) -> None:
    more = ["--student", "fresh", "--round-epochs", 1]
    assert self_train(*words, *more, "--output", tmp_path / "run", "--init", teacher).exit_code == 0
    known, continued, fresh = (
        load_model(path).state_dict() for path in (teacher, ran[0] / "best.pt", tmp_path / "run" / "best.pt")
    )
    weights = [name for name, value in known.items() if name.endswith("weight") and value.ndim == 4]
    moved = [sum(float((other[name] - known[name]).norm()) for name in weights) for other in (continued, fresh)]
    assert 0 < moved[0] < 0.1 * moved[1]


def test_wrong_usage(words: list[object], few: Path, nuclei_fixture: Path, teacher: Path, tmp_path: Path) -> None:
    output = ["--output", tmp_path / "run"]
    for more, said in (
        (["--precision", 0.9], "--precision and --min-score"),
        (["--set", "train.sample_weights=w.json"], "train.sample_weights"),
        (["--resume"], "--resume"),
        (["--resume", "--init", teacher], "--init and --resume"),
    ):
        result = self_train(*words, *more, *output)
        assert result.exit_code == 2 and said in result.output, result.output
    known = self_train("--data", nuclei_fixture, "--unlabelled", nuclei_fixture / "images", *TINY, *output)
    assert known.exit_code == 2 and "none of its images is new (5 train, 3 val)" in " ".join(known.output.split())
    lonely = self_train("--data", few, "--unlabelled", nuclei_fixture / "images", "--precision", 0.9, *TINY, *output)
    assert lonely.exit_code == 2 and "no split val" in lonely.output
    assert not (tmp_path / "run").exists()


def test_no_label_is_an_error_and_not_a_round_of_background(words: list[object], teacher: Path, tmp_path: Path) -> None:
    result = self_train(*words, "--output", tmp_path / "run", "--init", teacher, "--min-score", 1.0)
    assert result.exit_code == 1 and "passed the limits" in result.output
