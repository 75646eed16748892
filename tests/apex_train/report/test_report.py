"""What a report says is what was measured: figures computed again with pycocotools, hashes with hashlib, links followed."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, ImageError, ModelError
from apex_runtime.evaluation.coco_ap import predict_results
from apex_runtime.pipeline.predictor import Predictor
from apex_train.checkpoint import load_model
from apex_train.cli.main import main
from apex_train.predictor import TorchSession
from apex_train.report import facts
from apex_train.report.report import selection, write_report

SIZE = 256


def content(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def schema(repo_root: Path) -> dict:
    return json.loads((repo_root / "apex_runtime" / "schemas" / "report.schema.json").read_text())


def pycocotools_ap(folder: Path, data: Path, budget: str, kind: str, peripheral_only: bool = False) -> float:
    """COCO AP by pycocotools' own loader, loop and summary."""
    dataset = open_dataset(data, "test")
    session = TorchSession(load_model(folder / "best.pt"), SIZE, SIZE, peripheral_only=peripheral_only)
    results = predict_results(Predictor(session), dataset, budget, max_detections=100, batch=1)
    truth = COCO(str(data / "annotations" / "test.json"))
    evaluator = COCOeval(truth, truth.loadRes(results), kind)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return float(evaluator.stats[0])


def test_figures_are_those_of_pycocotools(measured: Path, held_out: Path) -> None:
    report = content(measured)["test"]
    assert report["contract"]["max_detections"] == 100, "COCO's own limit, so that its own summary can be compared"
    rows = {row["budget"]: row for row in report["budgets"]}
    assert list(rows) == ["0.25", "0.5", "1.0"]
    for kind in ("bbox", "segm"):
        expected = pycocotools_ap(measured, held_out, "1.0", kind)
        assert expected > 0.2
        assert rows["1.0"]["figures"][f"mAP_{kind}"] == pytest.approx(expected, abs=1e-6)
    # The row without tiles was computed with one tile; every other number of them gives the same.
    blind = pycocotools_ap(measured, held_out, "1.0", "segm", peripheral_only=True)
    assert report["peripheral_only"]["figures"]["mAP_segm"] == pytest.approx(blind, abs=1e-6)
    for row in (*rows.values(), report["peripheral_only"]):
        for key, (low, high) in row["intervals"].items():
            assert low <= row["figures"][key] <= high


def test_the_files_fit_the_schema_and_each_other(measured: Path, schema: dict, held_out: Path) -> None:
    report = content(measured)
    jsonschema.validate(report, schema, cls=jsonschema.Draft202012Validator)
    page = (measured / "report.md").read_text()
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page)
    assert len(links) == 4, "the curves, the best two and the worst one of three images"
    for link in links:
        assert not Path(link).is_absolute()
        with Image.open(measured / link) as picture:
            assert min(picture.size) > 300
    best, worst = report["test"]["pictures"]["best"], report["test"]["pictures"]["worst"]
    assert {entry["file"] for entry in best + worst} | {report["curves"]["file"]} == set(links)
    assert min(entry["f1"] for entry in best) >= max(entry["f1"] for entry in worst)
    assert f"{100 * report['test']['budgets'][1]['figures']['mAP_segm']:.1f} (" in page
    assert report["checkpoint"]["sha256"] == hashlib.sha256((measured / "best.pt").read_bytes()).hexdigest()
    assert report["checkpoint"]["sha256"] in page
    assert report["data"]["test"]["fingerprint"] == open_dataset(held_out, "test").fingerprint()
    assert report["data"]["test"]["fingerprint"] in page
    assert (report["test"]["images"], report["test"]["objects"]) == (3, 61)


def test_counts_of_a_picture_add_up(measured: Path, held_out: Path) -> None:
    truth = json.loads((held_out / "annotations" / "test.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    objects = [names[entry["image_id"]] for entry in truth["annotations"]]
    shown = content(measured)["test"]["pictures"]
    for entry in shown["best"] + shown["worst"]:
        assert entry["objects"] == objects.count(entry["image"]) == entry["found"] + entry["missed"]
        total = 2 * entry["found"] + entry["false"] + entry["missed"]
        assert entry["f1"] == pytest.approx(2 * entry["found"] / total, abs=1e-4)


def test_the_best_epoch_and_the_figure_of_val_that_chose_it(measured: Path) -> None:
    assert content(measured)["selection"] == {"metric": "mAP_segm", "split": "val", "value": 0.4375, "epoch": 2}
    test = (measured / "report.md").read_text().partition("## Held-out test split")[2].partition("## Curves")[0]
    assert "43.8" not in test and " val" not in test, "the figure of val is no test figure"


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("mAP_bbox", [None, 0.2, 0.5, 0.5, 0.4], (0.5, 3)),
        ("val_loss", [3.0, 1.0, 2.0], (1.0, 2)),
        ("mAP_segm", [-1.0, float("nan")], (None, 2)),
        ("", [None, None, None], (None, 3)),
    ],
)
def test_selection_takes_the_first_best_usable_value(metric: str, values: list, expected: tuple) -> None:
    history = [{"epoch": n} | ({} if value is None else {metric: value}) for n, value in enumerate(values, start=1)]
    chosen = selection(history, metric)
    assert (chosen["value"], chosen["epoch"]) == expected
    assert (chosen["metric"] is None) == (expected[0] is None)


def test_nothing_of_the_machine_is_in_it(measured: Path, held_out: Path, repo_root: Path) -> None:
    text = (measured / "report.md").read_text() + (measured / "report.json").read_text()
    for secret in (str(measured), str(held_out), str(repo_root), socket.gethostname(), f"/{getpass.getuser()}", "/tmp/"):
        assert secret not in text
    assert not re.search(r'[ "`(]/\w', text), "no absolute path"


def test_the_commit_is_that_of_the_checkout_or_none(
    measured: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["git", "-C", str(repo_root), "ls-files", "--error-unmatch", "apex_train/__init__.py"]
    if subprocess.run(asked, capture_output=True).returncode == 0:
        head = subprocess.run(["git", "-C", str(repo_root), "rev-parse", "HEAD"], capture_output=True, text=True)
        assert re.fullmatch(r"[0-9a-f]{40}", head.stdout.strip())
        assert facts.code()["commit"] == head.stdout.strip()
    # Installed into an environment inside of another repository: that one's commit says nothing of this code.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    installed = tmp_path / "venv" / "apex_train" / "__init__.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(facts.apex_train, "__file__", str(installed))
    assert facts.code() == {"commit": None, "dirty": None}


def test_without_a_test_split_nothing_is_measured(
    tmp_path: Path, run_folder: Callable, report: Callable, schema: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apex_train.report.report.measure", lambda *_: pytest.fail("measured"))
    folder = run_folder(tmp_path / "run")
    report(folder, None)
    jsonschema.validate(content(folder), schema, cls=jsonschema.Draft202012Validator)
    assert content(folder)["test"] == {"measured": False, "reason": "the data set has no split test"}
    page = (folder / "report.md").read_text()
    assert "Not measured: the data set has no split test" in page and "apex-train eval" not in page
    assert sorted(path.name for path in (folder / "report").iterdir()) == ["curves.png"]


def test_a_split_without_objects_is_not_measured(tmp_path: Path, held_out: Path, run_folder: Callable, report: Callable) -> None:
    data = tmp_path / "empty"
    shutil.copytree(held_out, data)
    document = json.loads((data / "annotations" / "test.json").read_text())
    (data / "annotations" / "test.json").write_text(json.dumps(document | {"annotations": []}))
    folder = run_folder(tmp_path / "run")
    report(folder, open_dataset(data, "test"))
    assert content(folder)["test"]["reason"] == "its split test has no object"


def test_without_a_checkpoint_nothing_is_written(tmp_path: Path, run_folder: Callable, report: Callable) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "best.pt").unlink()
    with pytest.raises(ModelError, match=r"best\.pt"):
        report(folder, None)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "log.jsonl"}


def broken(data: Path, held_out: Path, how: str) -> InstanceDataset:
    """The held-out set with classes that the model does not know, or with a picture that broke after the set was opened."""
    shutil.copytree(held_out, data)
    file = data / "annotations" / "test.json"
    document = json.loads(file.read_text())
    if how == "classes":
        document["categories"][0]["name"] = "roof"
        file.write_text(json.dumps(document))
    dataset = open_dataset(data, "test")
    if how == "image":
        dataset.records[-1].path.write_bytes(b"no longer a picture")
    return dataset


@pytest.mark.parametrize(
    ("how", "error", "words"), [("classes", DataError, "none of its classes"), ("image", ImageError, "fa73f24532b36677.jpg")]
)
def test_what_cannot_be_measured_is_said_and_raised(
    tmp_path: Path, held_out: Path, run_folder: Callable, report: Callable, schema: dict, how: str, error: type, words: str
) -> None:
    test = broken(tmp_path / "data", held_out, how)
    folder = run_folder(tmp_path / "run")
    with pytest.raises(error, match=re.escape(words)):
        report(folder, test)
    jsonschema.validate(content(folder), schema, cls=jsonschema.Draft202012Validator)
    assert words in content(folder)["test"]["reason"] and str(tmp_path) not in content(folder)["test"]["reason"]
    page = (folder / "report.md").read_text()
    assert "Not measured" in page and "curves.png" in page and "| budget |" not in page


def test_the_command_writes_the_same_figures(tmp_path: Path, held_out: Path, run_folder: Callable, measured: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "report").mkdir()
    (folder / "report" / "worst-3.jpg").write_bytes(b"of an earlier report")
    result = CliRunner().invoke(main, ["report", str(folder), "--data", str(held_out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "report.md" in result.output and not (folder / "report" / "worst-3.jpg").exists()
    again, before = content(folder), content(measured)
    for old, new in zip(before["test"]["budgets"], again["test"]["budgets"], strict=True):
        for key, value in old["figures"].items():
            assert new["figures"][key] == pytest.approx(value, abs=1e-6)
    assert again["selection"] == before["selection"]
    assert again["test"]["pictures"] == before["test"]["pictures"]


def test_the_command_says_what_is_wrong(tmp_path: Path, held_out: Path, run_folder: Callable) -> None:
    def leave(folder: Path, data: Path) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["report", str(folder), "--data", str(data), "--device", "cpu"])
        return result.exit_code, result.output

    assert leave(tmp_path / "absent", held_out)[0] == 2
    folder = run_folder(tmp_path / "run")
    assert leave(folder, tmp_path / "absent")[0] == 2
    (folder / "log.jsonl").write_text('{"epoch": 1}\n{"epo')
    code, text = leave(folder, held_out)
    assert code == 1 and "log.jsonl" in text
    (folder / "log.jsonl").unlink()
    (folder / "best.pt").write_bytes(b"no checkpoint")
    code, text = leave(folder, held_out)
    assert code == 1 and "best.pt" in text


def test_figures_that_nothing_defines_are_null_or_left_out(
    tmp_path: Path, run_folder: Callable, report: Callable, held_out: Path, schema: dict
) -> None:
    """Boxes without masks: no mask figure is shown, and the pictures are ranked by boxes."""
    data = tmp_path / "boxes"
    shutil.copytree(held_out, data)
    file = data / "annotations" / "test.json"
    document = json.loads(file.read_text())
    for entry in document["annotations"]:
        entry["segmentation"] = []
    file.write_text(json.dumps(document))
    folder = run_folder(tmp_path / "run")
    report(folder, open_dataset(data, "test"))
    jsonschema.validate(content(folder), schema, cls=jsonschema.Draft202012Validator)
    figures = content(folder)["test"]["budgets"][-1]["figures"]
    assert figures["mAP_segm"] == -1 and figures["mAP_bbox"] > 0.2
    page = (folder / "report.md").read_text()
    assert "mask AP" not in page and "box AP" in page and not re.search(r"\bnan\b", page.lower())
    assert content(folder)["test"]["pictures"]["score"]["overlap"] == "box"


def test_the_function_has_the_signature_that_fit_calls() -> None:
    names = ("output", "config", "history", "metric", "data", "test", "device", "console")
    assert write_report.__code__.co_varnames[: write_report.__code__.co_argcount] == names
