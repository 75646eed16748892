"""``apex-train fit`` as a person types it: it trains, goes on, and says what is wrong."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from apex_train.cli.main import main
from apex_train.config import FitConfig, load_config
from apex_train.engine.lock import sole_writer

FAST = [
    f"--set={item}" for item in ("train.size=128", "train.crop=64", "train.batch=4", "train.workers=0", "train.warmup_steps=1")
]


def apex_train(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.gate
def test_fit_evaluates_stops_and_goes_on(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = apex_train(
        "fit", "--data", nuclei_fixture, "--output", run, "--epochs", 2, "--stop-after-epoch", 1, "--auto-resume", *FAST
    )
    assert first.exit_code == 0, first.output
    assert "epoch 1/2" in first.output
    again = apex_train("fit", "--data", nuclei_fixture, "--output", run, "--epochs", 2, *FAST)
    assert again.exit_code == 2 and "already holds a run" in again.output
    second = apex_train(
        "fit", "--data", nuclei_fixture, "--output", run, "--epochs", 2, "--resume", "--json", "--no-report", *FAST
    )
    assert second.exit_code == 0, second.output
    last = json.loads(second.stdout)
    assert last["epoch"] == 2 and 0 <= last["mAP_segm"] <= 1 and "mAP_segm_peripheral" in last
    written = {"best.pt", "last.pt", "epoch_0001.pt", "epoch_0002.pt", "config.yaml", "log.jsonl", "log.csv", "tensorboard"}
    assert {path.name for path in run.iterdir()} == written
    third = apex_train("fit", "--data", nuclei_fixture, "--output", run, "--epochs", 2, "--auto-resume", *FAST)
    assert third.exit_code == 0 and "the run is at its end: epoch 2" in third.output, third.output
    both = apex_train("fit", "--data", nuclei_fixture, "--output", run, "--resume", "--auto-resume", *FAST)
    assert both.exit_code == 2 and "Give one of them" in both.output
    assert {path.name for path in run.iterdir()} == written | {"report.json", "report.md", "report"}
    assert load_config(run / "config.yaml", {}).train.epochs == 2


def test_one_run_at_a_time_writes_into_a_folder(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with sole_writer(run):
        (run / "config.yaml").touch()
        second = apex_train("fit", "--data", nuclei_fixture, "--output", run, "--epochs", 1, *FAST)
        assert second.exit_code == 2 and "another run is writing into this folder" in second.output
    assert {path.name for path in run.iterdir()} == {"config.yaml"}
    refused = apex_train("fit", "--data", nuclei_fixture, "--output", tmp_path / "new", "--init", tmp_path / "no.pt", *FAST)
    assert refused.exit_code == 1 and not (tmp_path / "new").exists()


def test_who_has_patience_gets_the_folder_of_one_that_ends(tmp_path: Path) -> None:
    """As after a kill, when the loaders of the killed process hold the folder a little longer."""
    run = tmp_path / "run"

    def begin() -> None:
        with sole_writer(run, patience=20):
            pass

    with ThreadPoolExecutor(1) as pool:
        with sole_writer(run):
            late = pool.submit(begin)
            with pytest.raises(TimeoutError):
                late.result(timeout=0.5)
        late.result(timeout=20)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n  bacth: 3\n", "train.bacth"),
        ("train:\n  batch: many\n", "train.batch"),
        ("training: {}\n", "training"),
        ("train: {crop: 100}\n", "train.crop 100"),
        ("- 1\n", "expected sections"),
        ("train: {batch: [1\n", "not a YAML file"),
        ("augment: {scale_min: 3}\n", "scale_min"),
    ],
)
def test_a_wrong_config_is_named(nuclei_fixture: Path, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    result = apex_train("fit", file, "--data", nuclei_fixture, "--output", tmp_path / "run")
    assert result.exit_code == 2 and words in result.output and "recipe.yaml" in result.output
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_lists_the_known_ones(nuclei_fixture: Path, tmp_path: Path) -> None:
    result = apex_train("fit", "--data", nuclei_fixture, "--output", tmp_path / "run", "--set", "loss.boxx=1")
    assert result.exit_code == 2 and "loss.boxx" in result.output and "mask_dice" in result.output


def test_wrong_paths_are_named(nuclei_fixture: Path, tmp_path: Path) -> None:
    for words, expected in (
        (("fit", "none.yaml", "--data", nuclei_fixture), "none.yaml"),
        (("fit", "--data", tmp_path / "nowhere"), "nowhere"),
        (("fit", "--data", nuclei_fixture, "--resume"), "last.pt"),
        (("fit", "--data", nuclei_fixture, "--set", "nonsense"), "key=value"),
    ):
        result = apex_train(*words, "--output", tmp_path / "run")
        assert result.exit_code == 2 and expected in result.output and "remedy" in result.output, result.output


def test_absent_images_are_named(nuclei_fixture: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations" / "train.json").write_text((nuclei_fixture / "annotations" / "train.json").read_text())
    result = apex_train("fit", "--data", tmp_path, "--output", tmp_path / "run")
    assert result.exit_code == 1 and "absent" in result.output


def test_every_command_shows_examples() -> None:
    assert apex_train("--help").exit_code == 0
    for name in ("fit", "export", "eval"):
        result = apex_train(name, "--help")
        assert result.exit_code == 0 and "Examples:" in result.output


def test_the_shipped_defaults_are_a_valid_file(tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(FitConfig().model_dump(mode="json")))
    assert load_config(file, {}) == FitConfig()


def test_the_layout_is_said_or_chosen(nuclei_yolo_fixture: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    words = ("--epochs", 1, *FAST)
    said = apex_train("fit", "--data", nuclei_yolo_fixture, "--output", tmp_path / "a", *words)
    assert said.exit_code == 0 and "recognised as yolo: data.yaml" in said.output
    chosen = apex_train("fit", "--data", nuclei_fixture, "--dataset-type", "coco", "--output", tmp_path / "b", *words)
    assert chosen.exit_code == 0 and "recognised" not in chosen.output
    assert load_config(tmp_path / "b" / "config.yaml", {}).train.dataset_type == "coco"
    wrong = apex_train("fit", "--data", nuclei_fixture, "--dataset-type", "yolo", "--output", tmp_path / "c", *words)
    assert wrong.exit_code == 2 and "no description of a YOLO set" in wrong.output


def test_a_training_without_objects_or_with_broken_pictures_does_not_begin(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = shutil.copytree(nuclei_fixture, tmp_path / "data")
    broken = sorted((data / "images").iterdir())[-1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    result = apex_train("fit", "--data", data, "--output", tmp_path / "run", *FAST)
    assert result.exit_code == 1 and broken.name in result.output and not (tmp_path / "run").exists()
    broken.write_bytes(whole)
    train = data / "annotations" / "train.json"
    train.write_text(json.dumps(json.loads(train.read_text()) | {"annotations": []}))
    result = apex_train("fit", "--data", data, "--output", tmp_path / "run", *FAST)
    assert result.exit_code == 1 and "no object to learn from" in result.output and not (tmp_path / "run").exists()


def test_the_router_alone_needs_weights(nuclei_fixture: Path, tmp_path: Path) -> None:
    refused = apex_train("fit", "--data", nuclei_fixture, "--output", tmp_path / "run", "--set=train.only=router", *FAST)
    assert refused.exit_code == 2 and "--init" in refused.output
