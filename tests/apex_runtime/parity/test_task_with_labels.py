"""AP of both sides on a labelled set: the figures that apex-rt eval gives, from the runs that parity makes anyway."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import onnx
import pytest
from click.testing import CliRunner
from discs_coco import write_discs
from onnx import numpy_helper
from tiny_model import write_tiny_model

from apex_runtime.backends.ort import OrtSession
from apex_runtime.cli.main import main
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, UsageError
from apex_runtime.evaluation.coco_ap import evaluate_coco, evaluate_predictor, predict_results
from apex_runtime.parity.average_precision import Labels
from apex_runtime.pipeline.predictor import Predictor


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def write_pair(folder: Path, **size: int) -> dict[str, Path]:
    """The tiny model, and one whose boxes lie four pixels further right."""
    good, moved = write_tiny_model(folder / "good.onnx", **size), folder / "moved.onnx"
    model = onnx.load(good)
    (xs,) = (each for each in model.graph.initializer if each.name == "xs")
    xs.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(xs) + 4, "xs"))
    onnx.save(model, moved)
    return {"good": good, "moved": moved}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the size of the images."""
    return write_pair(tmp_path_factory.mktemp("models"))


def run(*arguments: object):
    return CliRunner().invoke(main, ["parity", *map(str, arguments)])


def report(schema_root: Path, file: Path) -> dict:
    document = json.loads(file.read_text())
    jsonschema.validate(document, json.loads((schema_root / "apex_runtime/schemas/parity.schema.json").read_text()))
    return document


@pytest.mark.parametrize(("batch", "height"), [("1", 128), ("4", 96)])
def test_the_figures_are_those_of_eval(data: Path, repo_root: Path, tmp_path: Path, batch: str, height: int) -> None:
    """Also where images of 128 pixels are made smaller and padded."""
    output, models = tmp_path / "r.json", write_pair(tmp_path, height=height)
    given = ("--data", data, "--budget", "0.25,1.0", "--batch", batch, "-o", output)
    result = run(models["good"], "--against", models["moved"], *given)
    assert result.exit_code == 1 and "data set recognised as coco" in result.output
    (comparison,) = report(repo_root, output)["comparisons"]
    assert [image["name"] for image in comparison["images"][:7]] == [*(f"{n}.png" for n in range(1, 7)), "synthetic/noise"]
    dataset = open_dataset(data, "test")
    for row in comparison["budgets"]:
        found = row["task"]["average_precision"]
        assert (found["images"], found["objects"]) == (6, len(dataset.ground_truth()["annotations"]))
        wanted = [evaluate_predictor(Predictor(OrtSession(models[name])), dataset, row["asked"]) for name in ("good", "moved")]
        for kind, figure in (("box", "mAP_bbox"), ("mask", "mAP_segm")):
            reference, candidate = (figures[figure] for figures in wanted)
            assert reference > candidate + 0.05
            assert found[kind]["reference"] == pytest.approx(reference, abs=1e-9)
            assert found[kind]["candidate"] == pytest.approx(candidate, abs=1e-9)
            assert found[kind]["drop_points"] == pytest.approx(100 * (reference - candidate), abs=1e-3)
    assert any("task: box AP drops by" in why for why in comparison["reasons"])
    assert any("task: mask AP drops by" in why for why in comparison["reasons"])


def test_the_same_model_passes_and_says_so(data: Path, models, repo_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    result = run(models["good"], "--against", models["good"], "--data", data, "--limit", 3, "--budget", "1.0", "-o", output)
    assert result.exit_code == 0, result.output
    assert "drop of box AP" in result.output and "match rate" in result.output
    task = report(repo_root, output)["comparisons"][0]["budgets"][0]["task"]
    assert (task["images"], task["average_precision"]["images"]) == (3, 3)
    assert task["matched"] >= 3 and task["match_rate"] == 1.0
    dataset, predictor = open_dataset(data, "test"), Predictor(OrtSession(models["good"]))
    chosen = [0, 2, 5]
    results = predict_results(predictor, dataset, 1.0, indices=chosen)
    wanted = evaluate_coco(dataset.ground_truth(), results, image_ids=[dataset.records[at].image_id for at in chosen])
    assert task["average_precision"]["box"]["reference"] == pytest.approx(wanted["mAP_bbox"], abs=1e-9)
    assert wanted["mAP_bbox"] > 1.5 * evaluate_coco(dataset.ground_truth(), results)["mAP_bbox"], "objects elsewhere do not count"


def test_a_recording_is_scored_like_what_it_recorded(data: Path, models, repo_root: Path, tmp_path: Path) -> None:
    recorded, output = tmp_path / "moved.json", tmp_path / "r.json"
    given = ("--data", data, "--budget", "0.5")
    assert run(models["moved"], "--record", recorded, *given).exit_code == 0
    tasks = []
    for candidate in (models["moved"], recorded):
        assert run(models["good"], "--against", candidate, *given, "-o", output).exit_code == 1
        tasks.append(report(repo_root, output)["comparisons"][0]["budgets"][0]["task"])
    assert tasks[0] == tasks[1] and tasks[0]["matched"] > 3


def test_images_without_a_detection_are_said_and_pass(models, repo_root: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "blank.png"), np.zeros((128, 128, 3), np.uint8))
    output = tmp_path / "r.json"
    result = run(models["good"], "--against", models["good"], "--images", tmp_path / "blank.png", "--budget", "1.0", "-o", output)
    assert result.exit_code == 0, result.output
    (comparison,) = report(repo_root, output)["comparisons"]
    assert comparison["budgets"][0]["task"]["verdict"] == "empty"
    assert comparison["notes"] == [
        "budget 1.0: task: neither side has a detection of 0.3 or more on 1 images: nothing was matched"
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{data}", "--images", "{data}"], "--images and --data"),
        (["--split", "test"], "--split: there is no --data"),
        (["--limit", "3"], "--limit: there is no --data"),
        (["--data", "{data}", "--split", "val"], "no split 'val'"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage(data: Path, models, monkeypatch, tmp_path: Path, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(models["good"], "--against", models["good"], *(each.format(data=data) for each in arguments))
    assert result.exit_code == 2 and words in result.output.replace("\n", " ")


def test_a_limit_spreads_over_the_split(data: Path) -> None:
    assert Labels.open(data, "test").indices == tuple(range(6))
    chosen = Labels.open(data, "test", limit=2)
    assert chosen.indices == (0, 5) and chosen.image_ids == {1, 6}
    with pytest.raises(UsageError, match="train"):
        Labels.open(data, "train")


def test_a_set_of_which_the_model_knows_no_class(data: Path, models, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    (copy / "annotations").mkdir(parents=True)
    (copy / "images").symlink_to(data / "images")
    text = (data / "annotations" / "test.json").read_text()
    (copy / "annotations" / "test.json").write_text(text.replace('"blob"', '"boat"'))
    with pytest.raises(DataError, match="none of its classes"):
        Labels.open(copy, "test").cases(OrtSession(models["good"]).info)
    result = run(models["good"], "--against", models["good"], "--data", copy, "-o", tmp_path / "r.json")
    assert result.exit_code == 1 and "boat" in result.output and not (tmp_path / "r.json").exists()
