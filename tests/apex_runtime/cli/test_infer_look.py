"""``apex-rt infer --look`` and ``--ignore`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import moving_disc, write_clip
from pictures import discs, save

DISC, EMPTY = 0, 15  # tiles of 32 pixels, 4 in a row: where the only disc is, and one that nothing draws the router to


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, discs(128, 128, (16, 16, 11)))
    return tmp_path / "in"


@pytest.fixture
def looked(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path):
    """``looked("--look", ...)``: the tiles of every image by name."""

    def run(*more: object, source: Path = folder) -> dict[str, set[int]]:
        ran = apex_rt("infer", source, "--engine", tiny_onnx, "-o", tmp_path / "out", "--save", "none", *more)
        assert ran.code == 0, ran.err
        images = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
        return {image["file_name"]: {tile["id"] for tile in image["tiles"]} for image in images}

    return run


def test_tiles_are_forced_and_forbidden_as_far_as_the_budget_goes(looked) -> None:
    assert looked("--budget", 1) == {"a.png": {DISC}, "b.png": {DISC}}, "the router alone"
    assert looked("--budget", 1, "--look", "100,100,20,20")["a.png"] == {EMPTY}
    assert looked("--budget", 2, "--look", "100,100,20,20")["b.png"] == {EMPTY, DISC}
    assert DISC not in looked("--budget", 15, "--ignore", "0,0,32,32")["a.png"]
    assert DISC in looked("--budget", 16, "--ignore", "0,0,32,32")["a.png"], "nothing else is left"
    assert looked("--budget", 1, "--look", "4,4,8,8", "--ignore", "0,0,128,128")["a.png"] == {DISC}, "looking wins"
    two = looked("--budget", 2, "--look", "96,96,32,32", "--look", " 96 , 0 , 32 , 32 ")
    assert two["a.png"] == {EMPTY, 3}


def test_regions_of_single_images(looked, tmp_path: Path) -> None:
    (tmp_path / "roi.json").write_text(json.dumps({"b.png": [[100, 100, 20, 20]]}))
    assert looked("--budget", 1, "--look", tmp_path / "roi.json") == {"a.png": {DISC}, "b.png": {EMPTY}}


def _collection(*rings: list[list[float]]) -> str:
    shapes = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in rings]
    return json.dumps({"type": "FeatureCollection", "features": shapes})


def test_geojson_in_pixels_for_pictures_and_clips(looked, tmp_path: Path) -> None:
    (tmp_path / "roi.geojson").write_text(_collection([[100, 100], [120, 100], [110, 120], [100, 100]]))
    assert looked("--budget", 1, "--look", tmp_path / "roi.geojson")["a.png"] == {EMPTY}
    write_clip(tmp_path / "clip.mp4", moving_disc(2))
    frames = looked("--budget", 1, "--look", tmp_path / "roi.geojson", source=tmp_path / "clip.mp4")
    assert list(frames.values()) == [{EMPTY}] * 2


def test_geojson_on_the_earth_for_tiles_of_a_map(looked, tmp_path: Path) -> None:
    """The lower right quarter of the tile, in degrees."""
    x, y, zoom = 386690, 220241, 19
    save(tmp_path / "map" / f"{x}-{y}-{zoom}.png", discs(128, 128, (16, 16, 11)))
    longitude = [(x + share) / 2**zoom * 360 - 180 for share in (0.8, 1.0)]
    latitude = [float(np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y + share) / 2**zoom))))) for share in (0.8, 1.0)]
    ring = [[longitude[i], latitude[j]] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
    (tmp_path / "roi.geojson").write_text(_collection(ring))
    assert looked("--budget", 1, "--look", tmp_path / "roi.geojson", source=tmp_path / "map") == {f"{x}-{y}-{zoom}.png": {EMPTY}}


WRONG = {
    "negative": "1,2,-3,4",
    "flat": "1,2,0,4",
    "three": "1,2,3",
    "absent.json": "absent.json",
    "broken.json": "{",
    "list.json": "[1]",
    "text.json": '{"a.png": "1,2,3,4"}',
    "nan.json": '{"a.png": [[1, 2, NaN, 4]]}',
    "flat.json": '{"a.png": [[1, 2, 0, 4]]}',
    "unknown.json": '{"z.png": [[1, 2, 3, 4]]}',
    "other.geojson": '{"type": "Topology"}',
    "point.geojson": '{"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [1, 2]}}',
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("option", ["--look", "--ignore"])
def test_what_is_wrong_is_named(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path, case: str, option: str) -> None:
    value: object = WRONG[case]
    if "." in case and case != "absent.json":
        value = tmp_path / case
        (tmp_path / case).write_text(WRONG[case])
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", option, value)
    assert ran.code == 2 and option in ran.err and "remedy:" in ran.err and "Traceback" not in ran.err
    assert (str(value) in ran.err) or case == "unknown.json"
    assert not (tmp_path / "out").exists()


def test_a_file_that_changed_does_not_resume(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    command = ("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", "--look", tmp_path / "roi.json", "--save", "none")
    (tmp_path / "roi.json").write_text('{"a.png": [[1, 2, 3, 4]]}')
    assert apex_rt(*command).code == 0 and apex_rt(*command, "--resume").code == 0
    (tmp_path / "roi.json").write_text('{"a.png": [[1, 2, 3, 5]]}')
    ran = apex_rt(*command, "--resume")
    assert ran.code == 2 and "look" in ran.err and "roi.json" in ran.err


def test_regions_are_drawn(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    apex_rt("infer", folder / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "without", "--budget", 1)
    regions = ("--look", "40,64,20,20", "--ignore", "80,64,20,20")
    assert apex_rt("infer", folder / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "with", "--budget", 1, *regions).code == 0
    before, after = (cv2.imread(str(tmp_path / name / "annotated" / "a.png.png")).astype(int) for name in ("without", "with"))
    scale = before.shape[1] / 128
    _blue, green, red = (after - before).transpose(2, 0, 1)
    for line, x in ((green, 40), (red, 80)):
        at = line[round(70 * scale), round((x - 1) * scale) : round((x + 1) * scale) + 1]
        assert at.max() > 60, "the left side of the rectangle"
