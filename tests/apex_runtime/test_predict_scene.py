"""``Engine.predict_scene`` gives what ``apex-rt infer`` writes for the same large image."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import discs, save

import apex_runtime
from apex_runtime.cli.main import main
from apex_runtime.data.scenes import scene as scene_module
from apex_runtime.engine import Engine
from apex_runtime.errors import ImageError, UsageError
from apex_runtime.routing.budget import parse_budget


@pytest.fixture(scope="module")
def engine(tiny_onnx: Path) -> Engine:
    return apex_runtime.load(tiny_onnx, threads=1)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Four times the area of the engine's input, a disc across the seam."""
    return discs(250, 300, (128, 124, 20), (40, 40, 12), (260, 200, 15))


@pytest.mark.parametrize("budget", ["1.0", "0.3", "9"])
def test_it_is_what_the_command_writes(engine: Engine, pixels: np.ndarray, tiny_onnx: Path, tmp_path: Path, budget: str) -> None:
    path = save(tmp_path / "scene.png", pixels)
    words = [
        "infer",
        str(path),
        "--engine",
        str(tiny_onnx),
        "--budget",
        budget,
        "--overlap",
        "32",
        "--save",
        "none",
        "--threads",
        "1",
    ]
    ran = CliRunner().invoke(main, [*words, "--output", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    (record,) = [
        json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines() if '"annotations"' in line
    ]
    for source in (path, pixels):
        scene = engine.predict_scene(source, budget, overlap=32)
        assert scene.shape == (250, 300) and scene.source == (path if source is path else None)
        assert [list(window.bbox) for window in scene.windows] == [window["bbox"] for window in record["windows"]]
        assert [list(tile.bbox) for tile in scene.tiles] == [tile["bbox"] for tile in record["tiles"]]
        assert (scene.budget.tiles, scene.budget.spent) == (record["budget"]["tiles"], record["budget"]["spent"])
        keys = ("category_id", "bbox", "score", "segmentation")
        found, written = scene.to_coco(record["id"]), record["annotations"]
        assert len(scene) == len(written) > 0
        assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in written]
        assert [mask.area for mask in scene.masks] == [row["area"] for row in written]
        assert scene.masks[-1].area == written[-1]["area"] and len(scene.masks[:2]) == 2
        assert scene.names[scene.labels[0]] == engine.info.classes[scene.labels[0]].name


def test_a_small_image_is_one_window(engine: Engine) -> None:
    image = discs(100, 128, (60, 50, 20))
    scene, one = engine.predict_scene(image, 5), engine.predict_one(image, 5)
    assert [window.bbox for window in scene.windows] == [(0, 0, 128, 100)]
    np.testing.assert_allclose(scene.boxes, one.boxes, atol=1e-4)
    np.testing.assert_array_equal(scene.scores, one.scores)
    assert scene.tiles == one.tiles


def test_a_file_is_decoded_once_whoever_else_reads_files(
    engine: Engine, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path / f"{name}.png", pixels) for name in "ab"]
    expected = [engine.predict_scene(path, 0.3).scores for path in paths]
    decoded = []
    decode = scene_module.read_picture
    monkeypatch.setattr(scene_module, "read_picture", lambda path: (decoded.append(path), decode(path))[1])
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda path: engine.predict_scene(path, 0.3).scores, paths * 2))
    assert sorted(decoded) == sorted(paths * 2)
    for one, other in zip(found, expected * 2, strict=True):
        np.testing.assert_array_equal(one, other)


def test_limits(engine: Engine, pixels: np.ndarray) -> None:
    assert len(engine.predict_scene(pixels, max_detections=1)) == 1
    assert (engine.predict_scene(pixels, min_score=0.2).scores >= 0.2).all()
    assert len(engine.predict_scene(pixels, window="none").windows) == 1
    assert len(engine.predict_scene(pixels, window="64x100", overlap=0).windows) == 12


def test_what_it_refuses(engine: Engine, pixels: np.ndarray, tmp_path: Path) -> None:
    for image, words in (
        (pixels[..., 0], "expected uint8"),
        (pixels / 255, "float64"),
        (pixels[:0], "expected uint8"),
        (7, "a int"),
    ):
        with pytest.raises(UsageError, match=words):
            engine.predict_scene(image)
    with pytest.raises(UsageError, match="a deadline says nothing of 12 windows"):
        engine.predict_scene(pixels, "8ms")
    with pytest.raises(UsageError, match="its limit is of one image, not of 12 windows"):
        engine.predict_scene(pixels, parse_budget("1.0").at_most(parse_budget("4")))
    with pytest.raises(UsageError, match="--overlap 999"):
        engine.predict_scene(pixels, overlap=999)
    with pytest.raises(UsageError, match="at least 32 pixels"):
        engine.predict_scene(pixels, window=1)
    for words in ({"window": None}, {"window": (64, 64)}, {"overlap": 1.5}, {"overlap": "12"}):
        with pytest.raises(UsageError, match="is no"):
            engine.predict_scene(pixels, **words)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="broken"):
        engine.predict_scene(broken)
