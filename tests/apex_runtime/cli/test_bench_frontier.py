"""``apex-rt bench frontier`` from the outside, against ``apex-rt eval``, which it must agree with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_cells import write_bright_cells

from apex_runtime.fairness.evidence import read_evidence

OPTIONS = ("--split", "val", "--threads", "1", "--rounds", "2", "--resamples", "100")


@pytest.fixture
def engine(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano"


def test_figures_are_those_of_eval_and_everything_is_drawn(
    apex_rt, validate, engine: Path, nuclei_fixture: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    files = {name: tmp_path / f"new/frontier.{name}" for name in ("json", "png", "html")}
    ran = apex_rt(
        *(
            "bench",
            "frontier",
            engine,
            engine / "model.onnx",
            "--data",
            nuclei_fixture,
            *OPTIONS,
            "--budget",
            "0.25",
            "--seeds",
            "1",
        ),
        *("--slice", "off", "-o", files["json"], "--png", files["png"], "--html", files["html"]),
    )
    assert ran.code == 0, ran.err
    report = json.loads(files["json"].read_text())
    validate("frontier", report)
    assert [each["title"] for each in report["contenders"]] == ["nuclei-nano", "model.onnx"]
    first, second = report["contenders"]
    assert first["differences"] == {} == second["differences"] and first["contract_sha256"] == second["contract_sha256"]
    ran = apex_rt("eval", engine, "--data", nuclei_fixture, "--split", "val", "--budget", "0.25,1.0", "--threads", "1", "--json")
    expected = [row["figures"] for row in json.loads(ran.out)["budgets"]]
    for contender in report["contenders"]:
        rows = {(row["line"], row["seed"]): row for row in contender["rows"]}
        assert set(rows) == {("router", None), ("all tiles", None), ("random", 0), ("random", None), ("coverage", None)}
        for row, figures in zip((rows["router", None], rows["all tiles", None]), expected, strict=True):
            for kind in ("bbox", "segm"):
                assert row[f"AP_{kind}"]["value"] == pytest.approx(figures[f"mAP_{kind}"], abs=1e-9)
                assert row[f"AP50_{kind}"]["value"] == pytest.approx(figures[f"AP50_{kind}"], abs=1e-9)
        assert {bound for row in rows.values() for bound in (row["AP_segm"]["low"], row["AP_segm"]["high"])} == {None}, "3 images"
        assert rows["random", 0]["tiles"] == rows["router", None]["tiles"] < rows["all tiles", None]["tiles"]
        assert rows["coverage", None]["image_ms"] == rows["router", None]["image_ms"], "the same number of tiles"
    picture = cv2.imread(str(files["png"]))
    assert picture is not None and picture.shape[1] > 1000 and picture.std() > 5
    page = files["html"].read_text()
    assert "data:image/png;base64," in page and "nuclei-nano" in page and "http" not in page.replace("http-equiv", "")
    ran = apex_rt("bench", "compare", files["json"], "--json")
    assert ran.code == 0 and len(json.loads(ran.out)["tables"][0]["rows"]) == 8


def test_a_yardstick_has_one_mark_and_says_how_it_differs(
    apex_rt, validate, engine: Path, nuclei_fixture: Path, tmp_path: Path
) -> None:
    description, folder = write_bright_cells(tmp_path / "yardstick"), tmp_path / "evidence"
    ran = apex_rt(
        *("bench", "frontier", engine, description, "--data", nuclei_fixture, *OPTIONS, "--budget", "0.25", "--seeds", "0"),
        *("--slice", "off", "--evidence", folder, "--json"),
    )
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    validate("frontier", report)
    ours, other = report["contenders"]
    (row,) = other["rows"]
    assert (row["line"], row["budget"], row["tiles"], other["subject"]["kind"]) == ("yardstick", None, None, "yardstick")
    assert {"postprocessing", "image_policy", "input"} <= set(other["differences"])
    assert row["relative"]["ratio"] == pytest.approx(
        np.median(np.array(other["samples"]["yardstick"]["image"]) / ours["samples"]["all tiles"]["image"]), abs=1e-3
    )
    head = read_evidence(folder)
    assert head["contracts"] == sorted({ours["contract_sha256"], other["contract_sha256"]})
    assert (
        head["hashes"]["data"] == report["data"]["fingerprint"]
        and other["subject"]["description_sha256"] in head["hashes"].values()
    )
    ran = apex_rt("bench", "compare", folder)
    assert ran.code == 1 and "postprocessing" in ran.out, "two contracts are two tables"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", "8ms"), "no deadlines"),
        (("--budget", "4,0.5"), "not both"),
        (("--twin", "dense"), "expected peripheral=FILE or dense=FILE"),
        (("--twin", "fast=x.onnx"), "expected peripheral=FILE or dense=FILE"),
        (("--split", "nowhere"), "no split"),
        (("--data", ""), "the path is empty"),
        (("--png", "frontier.svg"), "does not end in .png"),
        (("--html", "frontier.json"), "does not end in .html"),
        (("--output", "{engine}/manifest.json"), "it is a part of what is read"),
        (("--output", "{engine}/manifest.json/x.json"), "cannot be written"),
        (("--budget", " , "), "the list is empty"),
    ],
)
def test_wrong_usage_measures_nothing(apex_rt, engine: Path, nuclei_fixture: Path, options: tuple[str, ...], words: str) -> None:
    options = tuple(word.format(engine=engine) for word in options)
    ran = apex_rt("bench", "frontier", engine, "--data", nuclei_fixture, "--split", "val", *options)
    assert ran.code == 2 and words in ran.err and ran.out == ""


def test_a_twin_of_another_size_is_refused(apex_rt, engine: Path, nuclei_fixture: Path, tiny_onnx: Path) -> None:
    ran = apex_rt("bench", "frontier", engine, "--data", nuclei_fixture, "--split", "val", "--twin", f"dense={tiny_onnx}")
    assert ran.code == 2 and "are not those of the engine" in ran.err


def test_a_twin_runs_as_the_engine_does(apex_rt, engine: Path, nuclei_fixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an engine on a GPU, or of eight bits, a dense pass in fp32 on the CPU would look slow."""
    from apex_runtime.bundle import load

    real = load.open_engine
    monkeypatch.setattr(load, "open_engine", lambda path, *rest: replace(real(path), executed=f"by {Path(path).name}"))
    twin = engine / "model.onnx"
    ran = apex_rt("bench", "frontier", engine, "--data", nuclei_fixture, "--split", "val", "--twin", f"dense={twin}")
    assert ran.code == 2 and "is fp32 on by model.onnx, the engine is fp32 on by nuclei-nano" in ran.err


def test_a_detector_without_a_class_of_the_data_is_refused_before_the_others_are_measured(
    apex_rt, engine: Path, nuclei_fixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apex_runtime.frontier.measure.find", lambda *_arguments: pytest.fail("it was measured"))
    description = write_bright_cells(tmp_path)
    description.write_text(description.read_text().replace("[nucleus]", "[zebra]"))
    ran = apex_rt("bench", "frontier", engine, description, "--data", nuclei_fixture, "--split", "val")
    assert ran.code == 1 and "bright cells" in ran.err


def test_a_detector_of_boxes_brings_the_picture_to_boxes() -> None:
    from apex_runtime.frontier.picture import common_kind

    both, boxes = {"AP_bbox": {"value": 0.5}, "AP_segm": {"value": 0.4}}, {"AP_bbox": {"value": 0.5}}
    ours, other = {"rows": [both, both]}, {"rows": [boxes]}
    assert common_kind({"asked": {"kinds": ["bbox", "segm"]}, "contenders": [ours]}) == "segm"
    assert common_kind({"asked": {"kinds": ["bbox", "segm"]}, "contenders": [ours, other]}) == "bbox"


def test_without_matplotlib_the_picture_is_refused_at_once(
    apex_rt, engine: Path, nuclei_fixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    ran = apex_rt("bench", "frontier", engine, "--data", nuclei_fixture, "--png", tmp_path / "f.png")
    assert ran.code != 0 and "plot" in ran.err and not (tmp_path / "f.png").exists()
