"""``apex-rt infer --save``: every kind of file, read back by other means and held against results.json."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import moving_disc, write_clip
from pictures import discs, save
from pycocotools import mask as coco_mask

from apex_runtime.data.yolo.labels import read_labels

TILE = "386690-220241-19"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "in" / "a.png", discs(128, 160, (30, 40, 17), (120, 100, 14)))
    save(tmp_path / "in" / "sub" / f"{TILE}.png", discs(128, 128, (64, 50, 18)))
    return tmp_path / "in"


def run(apex_rt: Any, source: Path, engine: Path, out: Path, *more: object) -> dict[str, dict[str, Any]]:
    """The records of results.jsonl by file name."""
    ran = apex_rt("infer", source, "--engine", engine, "-o", out, "--min-score", 0.2, *more)
    assert ran.code == 0, ran.err
    lines = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    return {line["file_name"]: line for line in lines}


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


_ALWAYS = ["failures.json", "results.json", "results.jsonl", "summary.json"]


def test_yolo_text_is_read_by_the_reader_of_yolo_sets(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    records = run(apex_rt, folder, tiny_onnx, tmp_path / "out", "--save", "yolo")
    assert files(tmp_path / "out") == sorted([*_ALWAYS, "labels/a.txt", f"labels/sub/{TILE}.txt"])
    for name, record in records.items():
        lines = (tmp_path / "out" / "labels" / name).with_suffix(".txt").read_text().splitlines()
        assert [float(line.split()[-1]) for line in lines] == pytest.approx([item["score"] for item in record["annotations"]])
        plain = tmp_path / "plain.txt"  # sets that were labelled by hand have no scores
        plain.write_text("\n".join(line.rsplit(" ", 1)[0] for line in lines))
        labels, findings = read_labels(plain, 1, record["height"], record["width"])
        assert not findings and len(labels) == len(record["annotations"]) > 0
        for found, item in zip(labels, record["annotations"], strict=True):
            corners = (found.numbers.reshape(-1, 2) * (record["width"], record["height"])).reshape(1, -1).tolist()
            read = coco_mask.frPyObjects(corners, record["height"], record["width"])
            assert coco_mask.iou(read, [item["segmentation"]], [0])[0, 0] > 0.9


def test_mask_pictures_are_the_run_lengths(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records = run(apex_rt, folder, tiny_onnx, out, "--save", "masks", "--draw-score", 0.5)
    for name, record in records.items():
        strong = [item for item in record["annotations"] if item["score"] >= 0.5]
        pictures = sorted((out / "masks" / name).iterdir())
        assert [path.name for path in pictures] == [f"{number:04d}-blob.png" for number in range(1, len(strong) + 1)]
        for path, item in zip(pictures, strong, strict=True):
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(picture, coco_mask.decode(item["segmentation"]) * 255)
    run(apex_rt, folder, tiny_onnx, out, "--save", "masks", "--draw-score", 1)
    assert files(out) == _ALWAYS, "masks of the run before are gone"


def _slippy(points: np.ndarray, size: int) -> np.ndarray:
    """Longitude and latitude to pixels of the tile, as the wiki of OpenStreetMap has it."""
    x, y, zoom = map(int, TILE.split("-"))
    latitude = np.radians(points[:, 1])
    column = (points[:, 0] + 180) / 360 * 2**zoom
    row = (1 - np.arcsinh(np.tan(latitude)) / np.pi) / 2 * 2**zoom
    return np.stack([column - x, row - y], axis=1) * size


def test_geojson_of_a_tile_leads_back_to_its_pixels(apex_rt, validate, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    record = run(apex_rt, folder, tiny_onnx, tmp_path / "out", "--save", "geojson")[f"sub/{TILE}.png"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    validate("summary", summary)
    assert summary["images_without_place"] == 1, "a.png"
    assert files(tmp_path / "out") == sorted([*_ALWAYS, f"geojson/sub/{TILE}.png.geojson"])
    collection = json.loads((tmp_path / "out" / "geojson" / "sub" / f"{TILE}.png.geojson").read_text())
    assert collection["type"] == "FeatureCollection" and len(collection["features"]) == len(record["annotations"]) > 0
    for feature, item in zip(collection["features"], record["annotations"], strict=True):
        assert feature["properties"]["class"] == "blob" and feature["properties"]["score"] == item["score"]
        shape = feature["geometry"]
        polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
        filled = np.zeros((128, 128), np.uint8)
        for rings in polygons:
            for place, ring in enumerate(rings):
                points = np.array(ring)
                assert ring[0] == ring[-1] and len(ring) >= 5
                x, y = (points - points[0]).T
                turn = x[:-1] @ y[1:] - y[:-1] @ x[1:]
                assert (turn > 0) == (place == 0), "RFC 7946: outer rings counterclockwise, holes clockwise"
                pixels = _slippy(points, 128)
                assert np.abs(pixels - pixels.round()).max() < 0.01
                filled ^= _filled(pixels.round()[:-1])
        np.testing.assert_array_equal(filled, coco_mask.decode(item["segmentation"]))


def _filled(ring: np.ndarray) -> np.ndarray:
    """A ring of corners of pixels, filled: a pixel is inside when a line to its right meets the ring an odd number of times."""
    crossings = np.zeros((128, 129), np.uint8)
    for (x1, y1), (x2, y2) in zip(ring.astype(int), np.roll(ring, -1, axis=0).astype(int), strict=True):
        if x1 == x2:
            crossings[min(y1, y2) : max(y1, y2), x1] ^= 1
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :128]


def test_the_table_has_a_row_per_image(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    records = run(apex_rt, folder, tiny_onnx, tmp_path / "out", "--save", "csv", "--budget", 3, "--draw-score", 0.6)
    with (tmp_path / "out" / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = "file_name width height detections shown blob budget tiles spent decode_ms graph_ms post_ms total_ms"
    assert list(rows[0]) == columns.split() and [row["file_name"] for row in rows] == sorted(records)
    for row in rows:
        record = records[row["file_name"]]
        shown = sum(item["score"] >= 0.6 for item in record["annotations"])
        assert [int(row["detections"]), int(row["shown"]), int(row["blob"])] == [len(record["annotations"]), shown, shown]
        assert [row["budget"], row["tiles"], row["spent"]] == ["3", "3", "3"]
        assert float(row["total_ms"]) == record["milliseconds"]["total"]


def test_kinds_together_and_none(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "all", "--save", "annotated,yolo", "--save", "csv")
    assert ran.code == 0 and "summary.csv" in ran.out and "annotated" in ran.out and "labels" in ran.out
    pictures = ["annotated/a.png.png", f"annotated/sub/{TILE}.png.png"]
    assert files(tmp_path / "all") == sorted([*_ALWAYS, *pictures, "labels/a.txt", f"labels/sub/{TILE}.txt", "summary.csv"])
    run(apex_rt, folder, tiny_onnx, tmp_path / "none", "--save", "none")
    assert files(tmp_path / "none") == _ALWAYS


@pytest.mark.parametrize("kinds", ["pdf", "none,yolo", ""])
def test_other_kinds_are_wrong_usage(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path, kinds: str) -> None:
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", "--save", kinds)
    assert ran.code == 2 and "--save" in ran.err and "remedy:" in ran.err and not (tmp_path / "out").exists()


def test_images_of_one_stem_keep_their_endings(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    """Also where a name looks like one that kept its ending."""
    for number, name in enumerate(["a.png", "a.jpg", "a.png.png", "b.png"]):
        save(tmp_path / "in" / name, discs(128, 128, *[(20 + 40 * place, 30, 12) for place in range(number)]))
    records = run(apex_rt, tmp_path / "in", tiny_onnx, tmp_path / "out", "--save", "yolo")
    names = {"a.png": "a.png.txt", "a.jpg": "a.jpg.txt", "a.png.png": "a.png.png.txt", "b.png": "b.txt"}
    assert files(tmp_path / "out" / "labels") == sorted(names.values())
    for name, text in names.items():
        lines = (tmp_path / "out" / "labels" / text).read_text().splitlines()
        assert len(lines) == len(records[name]["annotations"])


def test_clips(apex_rt, validate, tiny_onnx: Path, tmp_path: Path) -> None:
    """Without annotated no clip is written; frames have text and no place on the earth."""
    write_clip(tmp_path / "clip.mp4", moving_disc(3))
    run(apex_rt, tmp_path / "clip.mp4", tiny_onnx, tmp_path / "none", "--save", "none")
    assert files(tmp_path / "none") == _ALWAYS
    summary = json.loads((tmp_path / "none" / "summary.json").read_text())
    validate("summary", summary)
    assert [clip["annotated"] for clip in summary["video"]["clips"]] == [None]
    run(apex_rt, tmp_path / "clip.mp4", tiny_onnx, tmp_path / "out", "--save", "yolo,geojson")
    assert files(tmp_path / "out") == sorted([*_ALWAYS, *(f"labels/clip.mp4#{number:06d}.txt" for number in range(3))])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["images_without_place"] == 3
