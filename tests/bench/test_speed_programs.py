"""The programs about whole runs, very small: what they time is what they say, and their quotients are the right way round."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import against_yolo
import large_scene
import numpy as np
import pytest
import throughput
from click.testing import CliRunner
from infer_rounds import Recorder, infer, parts
from tiny_model import write_tiny_model

from apex_runtime.bundle.load import open_engine
from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import resolve_sources
from apex_runtime.image_size import parse_size


@pytest.fixture
def images(nuclei_fixture: Path) -> Path:
    return nuclei_fixture / "images"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model.onnx", height=192, width=192)


def ran(main: Any, *words: object) -> Any:
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(Path(words[-1]).read_text())


def test_the_graph_alone_makes_the_calls_of_the_run(images: Path, engine: Path) -> None:
    opened = open_engine(engine, 1)
    items = resolve_sources(str(images))
    first = Recorder(opened.session)
    summary = infer(opened, first, items, "3", 0.001)
    second = Recorder(first)
    second.calls = list(first.calls)
    first.calls.clear()
    second.again(first, 1)
    assert len(second.calls) >= len(items) == summary["images"]["done"] and first.seconds > 0
    for (a, tiles, bonus), (b, again, bonus_again) in zip(first.calls, second.calls, strict=True):
        assert tiles == again and np.array_equal(a, b) and np.array_equal(bonus, bonus_again)


def test_in_lanes_the_graph_alone_makes_every_call_once(images: Path, engine: Path) -> None:
    opened = open_engine(engine, 2, many=True)
    first = Recorder(opened.session)
    infer(opened, first, resolve_sources(str(images)), "3", 0.001)
    second = Recorder(opened.session)
    first.again(second, opened.lanes)
    assert opened.lanes == 2 and len(first.calls) > 2
    inputs = [sorted((call[0].tobytes(), call[1], call[2].tobytes()) for call in one.calls) for one in (first, second)]
    assert inputs[0] == inputs[1]


def test_parts_are_all_of_the_images_once(images: Path) -> None:
    items = resolve_sources(str(images))
    cut = list(parts(items, 3))
    assert [len(part) for part in cut] == [3, 3, 2] and sorted(itertools.chain(*cut), key=items.index) == items


def test_throughput(images: Path, engine: Path, tmp_path: Path) -> None:
    words = ["--data", images, "--engine", engine, "--budget", "2,1.0", "--images", 6, "--rounds", 2]
    found = ran(throughput.main, *words, "--output", tmp_path / "t.json")
    assert [row["budget"] for row in found["rows"]] == ["2", "1.0"]
    for row in found["rows"]:
        speed, alone = row["images_per_second"], row["lanes_graph_per_second"]
        assert row["ratio"] == pytest.approx(speed / row["graph_per_second"])
        assert row["ratio_to_lanes"] == pytest.approx(speed / alone)
        assert row["ratio_to_lanes"] == pytest.approx(row["lanes_busy"] * row["lanes_alone_over_within"])
        assert 0 < row["lanes_busy"] < 1 and row["gain"] == pytest.approx(speed / row["single_images_per_second"])
    assert [one["images"] for one in found["samples"]["2"]] == [3, 3]


def test_a_scene_is_covered_by_the_images_at_their_size(images: Path, tmp_path: Path) -> None:
    scene = large_scene.tiled(str(images), 700, 900)
    first = decode_image(resolve_sources(str(images))[0].path)
    rows = min(64, first.shape[0])
    np.testing.assert_array_equal(scene[:rows, : first.shape[1]], first[:rows, :900])
    assert scene.any(2).mean() > 0.9
    for file in large_scene.write_scene(scene, tmp_path):
        assert np.abs(decode_image(file).astype(int) - scene).mean() < 4


def test_large_scene(images: Path, engine: Path, tmp_path: Path) -> None:
    words = ["--data", images, "--engine", engine, "--size", "400x600", "--min-score", "0.05", "--budget", 0.5]
    found = ran(large_scene.main, *words, "--output", tmp_path / "s.json")
    assert [row["file"] for row in found["rows"]] == ["jpg", "tif"] and parse_size("400x600") == tuple(found["size"])
    for row in found["rows"]:
        assert row["exit_code"] == 0 and row["windows"] > 1 and row["detections"] > 0 and row["peak_bytes"] > 30e6


OTHER = """
import time
__version__ = "0"
class YOLO:
    def __init__(self, path, task): pass
    def predict(self, listed, **asked):
        print("a line that is no answer")
        for _path in open(listed):
            time.sleep(0.02)
            yield type("Result", (), {"boxes": [1, 2], "speed": {"inference": 20.0}})
"""


def test_against_yolo(images: Path, engine: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ultralytics.py").write_text(OTHER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    words = [engine, "--program", sys.executable, "--data", images, "--engine", engine, "--images", 6, "--rounds", 2]
    found = ran(against_yolo.main, *words, "--min-score", 0.25, "--output", tmp_path / "y.json")
    yolo, one, quarter = found["rows"]
    assert yolo["ratio"] == 1 and yolo["detections"] == 12 and 25 < yolo["images_per_second"] < 50
    for row in (one, quarter):
        assert row["ratio"] == pytest.approx(row["images_per_second"] / yolo["images_per_second"])


def test_a_program_that_leaves_images_out_is_no_yardstick(images: Path, engine: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ultralytics.py").write_text(OTHER.replace("open(listed)", "list(open(listed))[1:]"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with against_yolo.Other(sys.executable, engine, 192, 1) as other, pytest.raises(RuntimeError, match="1 of 2 images"):
        other.predict(resolve_sources(str(images))[:2])
