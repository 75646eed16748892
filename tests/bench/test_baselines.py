"""Baselines: minutes that are kept, images and objects as YOLO text, answers with their terms, and a table that refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from baselines.answers import RUN_NAME, Answer, answers_of, read_run, write_run, write_yardstick
from baselines.budget import Cost, ran, trained_within
from baselines.compare import main as compare
from baselines.compare import read_times
from baselines.detr import description
from baselines.ours import RECIPE, crop_of
from baselines.ours import train as train_ours
from baselines.table import over_seeds
from baselines.trained import Task
from bright_cells import write_bright_cells
from click.testing import CliRunner
from yolo_text import write_description, write_split

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, UsageError
from apex_runtime.evaluation.bootstrap import bootstrap_interval, matches_of, paired_bootstrap
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.yardsticks.description import Description, read_description
from apex_train.config import load_config


def test_epochs_end_nearest_to_the_limit() -> None:
    cost = Cost(start=10.0, epoch=7.0)
    assert (cost.epochs(60.0), cost.epochs(62.9), cost.epochs(17.0)) == (7, 8, 1)
    with pytest.raises(UsageError, match=r"an epoch takes 0\.3"):
        cost.epochs(13.0)


@pytest.mark.parametrize(("grows", "runs"), [(0.0, 1), (0.5, 2)])
def test_a_training_that_missed_the_minutes_is_made_again(grows: float, runs: int, tmp_path: Path) -> None:
    """An epoch of a long run may cost more than those that were tried."""
    seen: list[int] = []

    def train(epochs: int, folder: Path) -> float:
        seen.append(epochs)
        folder.mkdir(parents=True)
        return 5.0 + epochs * (1.0 + (grows if folder == tmp_path / "fit" else 0.0))

    epochs, seconds = trained_within(100.0, train, tmp_path / "fit")
    assert abs(seconds - 100.0) <= 1.5 and epochs == seen[-1] and len(seen) == 2 + runs


def test_a_program_is_charged_for_what_its_children_do(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    assert ran([sys.executable, "-c", parent], tmp_path / "log", threads=1) >= 0.3


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such weights"):
        ran([sys.executable, "-c", "raise SystemExit('no such weights')"], tmp_path / "log", threads=1)
    assert "no such weights" in (tmp_path / "log").read_text()


def test_yolo_text_holds_the_same_objects(nuclei_fixture: Path, tmp_path: Path) -> None:
    """Read back by the reader of YOLO sets: run lengths became outlines, and cover what they did."""
    coco = open_dataset(nuclei_fixture, "val")
    write_split(tmp_path / "val", coco)
    write_description(tmp_path, "val/images", "val/images", ["nucleus"])
    (tmp_path / "data.yaml").rename(tmp_path / "set.yaml")
    text = open_dataset(tmp_path / "set.yaml", "val", "yolo")
    places = {record.path.name: place for place, record in enumerate(text.records)}
    overlaps = []
    for index, record in enumerate(coco.records):
        both = coco.instances(index), text.instances(places[record.path.name])
        assert len(both[0]) == len(both[1]) > 0
        for one, other in zip(both[0].masks, both[1].masks, strict=True):
            first, second = (mask.full(record.height, record.width) > 0 for mask in (one, other))
            overlaps.append((first & second).sum() / (first | second).sum())
    assert min(overlaps) > 0.7 and np.mean(overlaps) > 0.93


def test_a_description_of_mask2former_is_one() -> None:
    made = Description.model_validate(description(["car", "bus"]))
    assert made.outputs.form == "separate" and made.outputs.masks == "masks" and made.names == ("car", "bus")


def test_answers_of_a_yardstick_whole_and_sliced(nuclei_fixture: Path, tmp_path: Path) -> None:
    dataset, path = open_dataset(nuclei_fixture, "val"), write_bright_cells(tmp_path)
    whole, sliced = answers_of(path, dataset, 1, ("0.25",), side=128)
    assert (whole.name, sliced.name) == ("all", "sliced 128")
    assert whole.contract.max_detections == 500 and whole.contract.timed is None
    assert "sliced side 128" in str(sliced.contract.postprocessing) and len(sliced.results) > len(whole.results) > 0
    write_run(tmp_path / "run", {"who": "bright"}, iter([whole, sliced]))
    facts, answers = read_run(tmp_path / "run")
    assert facts["who"] == "bright" and answers == [whole, sliced]


def test_the_sliced_description_is_what_was_sliced(tmp_path: Path) -> None:
    write_yardstick(tmp_path, description(["nucleus"]), side=96)
    sliced = read_description(tmp_path / "sliced.yaml").slicing
    assert sliced is not None and (sliced.side, sliced.match, sliced.overlap, sliced.whole) == (96, "iou", 0.2, True)
    assert read_description(tmp_path / "yardstick.yaml").slicing is None


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run\.json"):
        read_run(tmp_path)


def test_a_run_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    run = {"kind": "baseline-run", "format_version": 1, "answers": {"all": {"file": "../answers-all.json", "contract": {}}}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match="outside of its folder"):
        read_run(tmp_path)


@pytest.fixture(scope="module")
def bright(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = tmp_path_factory.mktemp("bright")
    return next(answers_of(write_bright_cells(folder), open_dataset(nuclei_fixture, "val"), 1, ()))


def worse(answer: Answer, seed: int, name: str = "all") -> Answer:
    """The same with other scores: other orders, other figures."""
    rng = np.random.default_rng(seed)
    return Answer(name, [entry | {"score": float(rng.random())} for entry in answer.results], answer.contract)


def write(folder: Path, who: str, seed: int, answer: Answer, seconds: float = 60.0, **training: object) -> str:
    terms = {"data": "d", "size": 256, "limit_seconds": 60.0, "threads": 1, "weights": "random"} | training
    facts = {"who": who, "seed": seed, "cpu_seconds": seconds, "training": terms, "model": {"sha256": who}, "epochs": 3}
    write_run(folder, facts, iter([answer]))
    return str(folder)


def asked(nuclei_fixture: Path, *words: object) -> tuple[int, str]:
    found = CliRunner().invoke(compare, [*map(str, words), "--data", str(nuclei_fixture), "--split", "val", "--resamples", "200"])
    return found.exit_code, found.output


def test_a_table_has_the_intervals_of_the_bootstrap(bright: Answer, nuclei_fixture: Path, tmp_path: Path) -> None:
    """Of one seed: as ``evaluation.bootstrap`` has them, which knows nothing of this program."""
    other = worse(bright, 1)
    folders = [
        write(tmp_path / "a", "ours", 0, Answer("1.0", bright.results, bright.contract)),
        write(tmp_path / "b", "yolo", 0, other),
    ]
    code, said = asked(nuclei_fixture, *folders, "--output", tmp_path / "table.json")
    assert code == 0 and "yolo all" in said
    written = json.loads((tmp_path / "table.json").read_text())
    first, second = written["rows"]
    truth = open_dataset(nuclei_fixture, "val").ground_truth()
    matches = [matches_of(run_coco_eval(truth, each.results, "segm", 500)) for each in (bright, other)]
    assert second["figures"]["AP_segm"] == pytest.approx(vars(bootstrap_interval(matches[1], samples=200)))
    assert second["minus"]["AP_segm"] == pytest.approx(vars(paired_bootstrap(*matches, samples=200)))
    assert first["minus"] == {} and second["figures"]["AP_segm"]["value"] != first["figures"]["AP_segm"]["value"]
    assert written["contracts"] == [bright.contract.sha256()] and second["cpu_minutes"]["mean"] == 1.0


def test_seeds_are_averaged_and_drawn(bright: Answer, nuclei_fixture: Path, tmp_path: Path) -> None:
    folders = [write(tmp_path / f"{seed}", "ours", seed, worse(bright, seed, "1.0")) for seed in range(3)]
    code, _ = asked(nuclei_fixture, *folders, "--output", tmp_path / "table.json")
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert code == 0 and row["seeds"] == [0, 1, 2] and row["intervals_over"] == "images and seeds"
    assert row["figures"]["AP_bbox"]["value"] == pytest.approx(np.mean([each["AP_bbox"] for each in row["by_seed"]]))


def test_an_interval_over_seeds_is_as_wide_as_seeds_differ() -> None:
    """Three seeds that differ and images that do not: a mean of three draws of 0, 3 and 6 has the variance 6 / 3."""
    means = over_seeds(np.repeat([[0.0], [3.0], [6.0]], 20_001, axis=1), 0)
    assert means[0] == 3.0 and means[1:].mean() == pytest.approx(3.0, abs=0.05) and means[1:].var() == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"limit_seconds": 600.0}, "seconds": 600.0}, "training limit_seconds 600.0, not 60.0"),
        ({"training": {"weights": "coco.pt"}}, "training weights coco.pt, not random"),
        ({"seconds": 67.0}, "1.12 minutes, not within 10% of 1"),
        ({"contract": {"precision": "fp16"}}, "precision fp16, not"),
        ({"contract": {"max_detections": 100}}, "max_detections 100, not 500"),
        ({"contract": {"data": "0" * 64}}, "data " + "0" * 64),
    ],
)
def test_unequal_terms_are_refused(change: dict, said: str, bright: Answer, nuclei_fixture: Path, tmp_path: Path) -> None:
    contract = bright.contract.model_copy(update=change.get("contract", {}))
    first = write(tmp_path / "a", "ours", 0, Answer("1.0", bright.results, bright.contract))
    second = write(
        tmp_path / "b",
        "yolo",
        0,
        Answer("all", bright.results, contract),
        change.get("seconds", 60.0),
        **change.get("training", {}),
    )
    code, output = asked(nuclei_fixture, first, second, "--output", tmp_path / "table.json")
    assert code == 1 and said in output and not (tmp_path / "table.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"decode": "nms"}, "decode nms, not topk"), ({}, "postprocessing NMS, not"), ({"recipe": "b"}, "recipe b")],
)
def test_a_row_is_of_seeds_of_one_thing(change: dict, said: str, bright: Answer, nuclei_fixture: Path, tmp_path: Path) -> None:
    ended = bright.contract.model_copy(update={} if change else {"postprocessing": "NMS"})
    folders = []
    for seed, contract in enumerate((bright.contract, ended)):
        folder = tmp_path / str(seed)
        write(folder, "ours", seed, Answer("1.0", bright.results, contract))
        facts = json.loads((folder / RUN_NAME).read_text()) | {"decode": "topk", "recipe": "a"} | (change if seed else {})
        (folder / RUN_NAME).write_text(json.dumps(facts))
        folders.append(folder)
    code, output = asked(nuclei_fixture, *folders)
    assert code == 1 and said in output


@pytest.mark.parametrize("recipe", sorted(RECIPE.parent.glob("ours*.yaml")), ids=lambda path: path.stem)
def test_ours_is_trained_and_exported_as_it_was_asked(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of the commands, which the program itself reads: a key that there is not would end here."""
    called: list[list[str]] = []

    def remember(command: list[str], _log: Path, _threads: int) -> float:
        called.append([str(word) for word in command])
        return 10.0 * int(called[-1][called[-1].index("--epochs") + 1]) if "--epochs" in called[-1] else 1.0

    monkeypatch.setattr("baselines.ours.ran", remember)
    found = train_ours(Task(tmp_path, tmp_path, 50.0, 320, 7, 1), recipe, "nms")
    fit, export = called[-2:]
    settings = dict(word.split("=") for word in fit[fit.index("--set") + 1 :: 2])
    config = load_config(recipe, {})
    assert config.loss.mask_region == "box" and settings["train.crop"] == "128" and settings["train.seed"] == "7"
    assert fit[fit.index("--epochs") + 1] == "5" == str(found.facts["epochs"]) and settings["train.evaluate_every"] == "5"
    assert export[export.index("--decode") + 1] == "nms" == found.facts["decode"] and export[export.index("--size") + 1] == "320"


@pytest.mark.parametrize(("size", "crop"), [(64, 64), (128, 64), (256, 128), (320, 128), (512, 256), (1000, 448)])
def test_a_crop_is_half_of_the_side_in_whole_tiles(size: int, crop: int) -> None:
    assert crop_of(size) == crop


def test_what_belongs_to_a_detector_may_differ(bright: Answer, nuclei_fixture: Path, tmp_path: Path) -> None:
    contract = bright.contract.model_copy(update={"postprocessing": "none", "image_policy": "stretch"})
    first = write(tmp_path / "a", "ours", 0, Answer("1.0", bright.results, bright.contract))
    second = write(tmp_path / "b", "yolo", 0, Answer("all", bright.results, contract))
    assert asked(nuclei_fixture, first, second)[0] == 0
    code, said = asked(nuclei_fixture, first, first)
    assert code == 1 and "given twice" in said


def test_times_are_found_by_model_and_answer(bright: Answer, nuclei_fixture: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")

    def contender(digest: str, postprocessing: str, *rows: tuple[str, str | None, float]) -> dict:
        listed = [{"line": line, "budget": budget, "image_ms": ms} for line, budget, ms in rows]
        return {"subject": {"model_sha256": digest}, "fairness": {"postprocessing": postprocessing}, "rows": listed}

    report = {
        "contenders": [
            contender("ours", "", ("router", "0.25", 20.0), ("all tiles", None, 40.0), ("random", "0.25", 21.0)),
            contender("yolo", "NMS", ("yardstick", None, 30.0)),
            contender("yolo", "NMS, sliced side 128", ("yardstick", None, 90.0)),
        ]
    }
    path = tmp_path / "frontier.json"
    path.write_text(json.dumps(report))
    assert read_times(path) == {("ours", "0.25"): 20, ("ours", "1.0"): 40, ("yolo", "all"): 30, ("yolo", "sliced"): 90}
    folders = [
        write(tmp_path / "a", "ours", 0, Answer("1.0", bright.results, bright.contract)),
        write(tmp_path / "b", "yolo", 0, worse(bright, 1, "sliced 128")),
    ]
    code, said = asked(nuclei_fixture, *folders, "--times", path, "--png", tmp_path / "plot.png")
    assert code == 0 and "40.0" in said and "90.0" in said
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
