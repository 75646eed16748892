"""``apex-rt infer`` of images larger than the engine: windows, one budget, one picture; deadlines, which they do not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import discs, save
from pycocotools import mask as coco_mask

from apex_runtime.bundle.load import open_engine
from apex_runtime.routing.latency_table import LatencyTable, Point, TableKey, write_table

DISCS = ((60, 70, 14), (330, 250, 14), (200, 30, 10))  # the first two lie across seams of no overlap
WHERE = [(x, y) for x, y, _radius in DISCS]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """300 x 400 pixels for an engine of 128 x 128: at an overlap of 32, 3 rows of 4 windows."""
    return save(tmp_path / "in" / "scene.png", discs(300, 400, *DISCS))


def run(apex_rt: Any, source: Path, engine: Path, out: Path, *more: object) -> dict[str, Any]:
    ran = apex_rt("infer", source, "--engine", engine, "-o", out, "--overlap", 32, *more)
    assert ran.code == 0, ran.err
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize(("budget", "planned"), [("1", 1), ("20", 20), ("0.25", 48), ("191", 191), ("1.0", 192), ("9999", 192)])
def test_one_budget_over_all_windows(
    apex_rt, validate, tiny_onnx: Path, scene: Path, tmp_path: Path, budget: str, planned: int
) -> None:
    out = tmp_path / "out"
    results = run(apex_rt, scene, tiny_onnx, out, "--budget", budget, "--save", "none")
    validate("results", results)
    validate("journal", json.loads((out / "results.jsonl").read_text()))
    (image,) = results["images"]
    windows, tiles, spent = image["windows"], image["tiles"], image["budget"]
    shown = np.zeros((300, 400), int)
    for window in windows:
        x, y, width, height = window["bbox"]
        assert (width, height) == (128, 128)
        shown[y : y + height, x : x + width] += 1
    assert len(windows) == 12 and shown.min() == 1
    assert spent["asked"] == budget and spent["tiles"] == planned
    assert spent["spent"] == len(tiles) + spent["twice"] <= max(planned, len(windows))
    assert spent["spent"] >= planned - 1, "one tile may be left: the second of a window costs two"
    assert spent["twice"] == (0 if planned == 192 else sum(window["tiles"] > 1 for window in windows))
    assert [window["tiles"] for window in windows] == np.bincount([tile["window"] for tile in tiles], minlength=12).tolist()
    for tile in tiles:
        (x, y, width, height), (left, top, wide, high) = tile["bbox"], windows[tile["window"]]["bbox"]
        assert left <= x < x + width <= left + wide and top <= y < y + height <= top + high
    assert json.loads((out / "summary.json").read_text())["tiles_spent"] == spent["spent"]


def test_tiles_go_where_the_objects_are_and_no_two_outputs_are_one(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    """The tiny model finds what each tile shows of a disc, in every window anew."""
    results = run(apex_rt, scene, tiny_onnx, tmp_path / "out", "--budget", 30, "--min-score", 0.5)
    for x, y in WHERE:
        covered = [tile for tile in results["images"][0]["tiles"] if _holds(tile["bbox"], x, y)]
        assert covered, "the middle of every disc was looked at"
    middles = [(x + w / 2, y + h / 2) for item in results["annotations"] for x, y, w, h in (item["bbox"],)]
    for place in WHERE:
        assert min(np.hypot(*np.subtract(place, middle)) for middle in middles) < 10
    masks = [item["segmentation"] for item in results["annotations"]]
    overlaps = coco_mask.iou(masks, masks, [0] * len(masks))
    assert (overlaps - np.eye(len(masks))).max() <= 0.6


def _holds(bbox: list[float], x: float, y: float) -> bool:
    return bbox[0] <= x <= bbox[0] + bbox[2] and bbox[1] <= y <= bbox[1] + bbox[3]


def test_regions_are_in_pixels_of_the_scene(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    results = run(
        apex_rt, scene, tiny_onnx, tmp_path / "out", "--budget", 40, "--look", "250,100,60,60", "--ignore", "0,0,150,150"
    )
    tiles = results["images"][0]["tiles"]
    seen = np.zeros((300, 400), bool)
    for tile in tiles:
        x, y, width, height = (round(value) for value in tile["bbox"])
        seen[y : y + height, x : x + width] = True
    assert seen[100:160, 250:310].all()
    inside = [window for window in results["images"][0]["windows"] if window["bbox"][0] == window["bbox"][1] == 0]
    assert [window["tiles"] for window in inside] == [1], "nothing but the look of the first pass"


def test_the_picture_shows_the_whole_scene(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    run(apex_rt, scene, tiny_onnx, tmp_path / "out", "--budget", 30, "--draw-score", 1)
    picture = cv2.imread(str(tmp_path / "out" / "annotated" / "scene.png.png"))
    assert picture.shape[1] == 800 and picture.shape[0] > 600, "doubled, with a legend below"
    for x, y in WHERE:
        assert picture[2 * y, 2 * x].min() > 150
    assert picture[2 * 150, 2 * 30].max() < 80


def test_none_is_one_look_and_sizes_are_taken(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    (image,) = run(apex_rt, scene, tiny_onnx, tmp_path / "none", "--window", "none")["images"]
    assert "windows" not in image and image["budget"] == {"asked": "1.0", "tiles": 12, "spent": 12}
    (image,) = run(apex_rt, scene, tiny_onnx, tmp_path / "given", "--window", "150x400")["images"]
    assert [window["bbox"] for window in image["windows"]] == [[0, top, 400, 150] for top in (0, 75, 150)]
    ran = apex_rt("infer", scene, "--engine", tiny_onnx, "-o", tmp_path / "no", "--overlap", 128)
    assert ran.code == 2 and "--overlap 128" in ran.err and not (tmp_path / "no").exists()


def test_resume_skips_a_finished_scene(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    save(scene.parent / "small.png", discs(64, 64, (20, 20, 9)))
    first = run(apex_rt, scene.parent, tiny_onnx, tmp_path / "out", "--budget", 30)
    save(scene.parent / "other.png", discs(300, 200, (100, 200, 12)))
    again = run(apex_rt, scene.parent, tiny_onnx, tmp_path / "out", "--budget", 30, "--resume")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images"] == {"found": 3, "done": 3, "failed": 0, "resumed": 2}
    before, after = ({image["file_name"]: image for image in results["images"]} for results in (first, again))
    assert list(after) == ["other.png", "scene.png", "small.png"]
    for name in ("scene.png", "small.png"):
        assert {**before[name], "id": 0} == {**after[name], "id": 0}


CHANGES = {
    "save": ("--save", "yolo"),
    "window": ("--window", "none"),
    "overlap": ("--overlap", "16"),
    "look": ("--look", "1,1,5,5"),
    "ignore": ("--ignore", "1,1,5,5"),
    "budget": ("--budget", "31"),
    "classes": ("--classes", "blob"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_options_do_not_resume(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path, change: str) -> None:
    command = ("infer", scene, "--engine", tiny_onnx, "-o", tmp_path / "out", "--budget", "30", "--save", "csv")
    assert apex_rt(*command).code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    ran = apex_rt(*command, *CHANGES[change], "--resume")
    named = {"overlap": "window"}.get(change, change)
    assert ran.code == 2 and f"had {named} " in ran.err and "remedy:" in ran.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_another_engine_does_not_resume(apex_rt, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    from tiny_model import write_tiny_model

    other = write_tiny_model(tmp_path / "other.onnx", max_detections=11)
    assert apex_rt("infer", scene, "--engine", tiny_onnx, "-o", tmp_path / "out").code == 0
    ran = apex_rt("infer", scene, "--engine", other, "-o", tmp_path / "out", "--resume")
    assert ran.code == 2 and "model_sha256" in ran.err


@pytest.fixture
def deadline(apex_rt, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``deadline(source, ...)`` asks for 20 ms; without a table until ``table`` wrote one in which they are K tiles."""
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))

    def ask(source: Path, *more: object):
        return apex_rt(
            "infer",
            source,
            "--engine",
            tiny_onnx,
            "-o",
            tmp_path / "out",
            "--budget",
            "20ms",
            "--threads",
            2,
            "--batch",
            1,
            *more,
        )

    return ask


def table(engine: Path, tiles: int) -> None:
    opened = open_engine(engine, threads=2)
    points = tuple(Point(tiles=k, samples=20, p50=1, p95=ms) for k, ms in ((1, 10), (tiles, 20), (16, 99)))
    key = TableKey.of(opened, threads=2, batch=1)
    write_table(LatencyTable(key=key, points=points, created_utc="2026-01-01T00:00:00+00:00", circumstances={}))


def test_a_deadline_without_a_table_says_how_to_make_one(deadline, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    ran = deadline(scene)
    assert ran.code == 2 and "latency_table_missing" in ran.err
    assert f"apex-rt bench {tiny_onnx} --threads 2" in ran.err and not (tmp_path / "out").exists()


def test_a_deadline_is_for_images_that_are_not_cut(deadline, validate, tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    save(scene.parent / "small.png", discs(128, 128, (20, 20, 9)))
    table(tiny_onnx, 5)
    ran = deadline(scene.parent)
    assert ran.code == 1
    (image,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    assert image["file_name"] == "small.png" and image["budget"] == {"asked": "20ms", "tiles": 5, "spent": 5}
    (failure,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert failure["file_name"] == "scene.png" and "20ms" in failure["reason"] and "--window none" in failure["remedy"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    validate("summary", summary)
    assert summary["lanes"] == 1, "the table was made with all threads in one call"
    assert summary["settings"]["deadline_tiles"] == 5


def test_a_deadline_that_means_other_tiles_by_now_does_not_resume(deadline, tiny_onnx: Path, scene: Path) -> None:
    table(tiny_onnx, 5)
    assert deadline(scene, "--window", "none").code == 0 and deadline(scene, "--window", "none", "--resume").code == 0
    table(tiny_onnx, 6)
    ran = deadline(scene, "--window", "none", "--resume")
    assert ran.code == 2 and "deadline_tiles 5" in ran.err
