"""The whole road with two levels of tiles: fit, export, bundle, infer, clips, eval, parity, from the outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from apex_runtime.bundle.load import open_engine
from apex_runtime.cli.main import main as apex_rt
from apex_runtime.engine import load
from apex_train.cli.main import main as apex_train

pytestmark = pytest.mark.slow  # half a minute of training and export; part of the long tests of .ci/run

SETTINGS = {
    "train.size": 128,
    "train.crop": 128,
    "train.batch": 4,
    "train.workers": 0,
    "model.tile": 32,
    "model.depth": 2,
    "model.ratio": "[1, 3]",
}
Road = tuple[Path, Path, Path]


def run(command: Any, *arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(item) for item in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return str(result.stdout)


@pytest.fixture(scope="module")
def road(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Checkpoint, ONNX file and bundle of a network that trained for one epoch."""
    folder = tmp_path_factory.mktemp("two")
    options = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    run(apex_train, "fit", "--data", nuclei_fixture, "--output", folder / "run", "--epochs", 1, *options)
    checkpoint, model, bundle = folder / "run" / "best.pt", folder / "model.onnx", folder / "bundle"
    run(apex_train, "export", checkpoint, "-o", model, "--size", "128x192")
    run(apex_rt, "build-engine", model, "--backend", "ort-cpu", "-o", bundle)
    return checkpoint, model, bundle


@pytest.fixture(scope="module")
def validate(repo_root: Path) -> Callable[[str, object], None]:
    def check(name: str, value: object) -> None:
        jsonschema.validate(value, json.loads((repo_root / "apex_runtime" / "schemas" / f"{name}.schema.json").read_text()))

    return check


def test_the_bundle_names_the_levels(road: Road, validate: Callable[[str, object], None]) -> None:
    manifest = json.loads((road[2] / "manifest.json").read_text())
    validate("manifest", manifest)
    assert manifest["tiles"] == {"tile": 32, "halo": 8, "rows": 2, "cols": 3, "depth": 2, "ratio": [1.0, 3.0]}
    assert [item["name"] for item in manifest["inputs"]] == ["images", "tiles", "tile_bonus", "tiles_1", "tile_bonus_1"]
    assert open_engine(road[2]).session.info.model["depth"] == 2


def test_results_name_the_tiles_of_every_level(road: Road, repo_root: Path, tmp_path: Path, validate: Any) -> None:
    images = repo_root / "engines" / "samples"
    run(apex_rt, "infer", images, "--engine", road[2], "--budget", 8, "--window", "none", "-o", tmp_path / "a")
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    validate("results", results)
    for image in results["images"]:
        first, below = image["budget"].pop("per_level")
        assert image["budget"] == {"asked": "8", "tiles": 8, "spent": 8}
        assert (first, below) in ((2, 6), (3, 5)), "1 to 3, but where half of a tile is padding more of them for their children"
        assert [tile["level"] for tile in image["tiles"]] == [0] * first + [1] * below
        scale = max(image["height"] / 128, image["width"] / 192)
        parents = {tile["id"]: tile["bbox"] for tile in image["tiles"] if tile["level"] == 0}
        for tile in image["tiles"]:
            cols, side = ((3, 64), (6, 32))[tile["level"]]
            x, y, w, h = tile["bbox"]
            assert x == pytest.approx(tile["id"] % cols * side * scale, rel=0.02, abs=1)
            assert w > 0 and h > 0, "a tile of padding"
            if tile["level"] == 1:
                row, col = divmod(tile["id"], 6)
                left, top, width, height = parents[row // 2 * 3 + col // 2]
                assert left - 1 <= x and x + w <= left + width + 1 and top - 1 <= y and y + h <= top + height + 1
    run(apex_rt, "infer", images, "--engine", road[1], "--tiles", "3,2", "--window", "none", "-o", tmp_path / "b")
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    validate("results", results)
    assert {tuple(image["budget"]["per_level"]) for image in results["images"]} == {(3, 2)}
    assert len(list((tmp_path / "b" / "annotated").iterdir())) == len(results["images"])


def test_a_share_spends_on_all_levels_and_never_on_padding(road: Road) -> None:
    engine = load(road[2])
    picture = np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8)  # 64 of 128 rows: the upper level-0 row
    (everything,) = engine.predict(picture, 1.0)
    assert everything.n_content == 3 + 12 and len(everything.tile_ids) == 15
    assert set(everything.tile_ids[everything.tile_levels == 1].tolist()) == set(range(12))
    (half,) = engine.predict(picture, 0.5)
    assert np.bincount(half.tile_levels).tolist() == [2, 5], "5 of 7 below in the ratio of the file, 4 children each"


def test_clips_keep_tiles_of_both_levels(road: Road, tmp_path: Path, repo_root: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    first = sorted((repo_root / "engines" / "samples").iterdir())[0]
    for number in range(3):
        shutil.copy(first, frames / f"{number}{first.suffix}")
    common = ("infer", frames, "--engine", road[1], "--video", "--tiles", "2,3")
    run(apex_rt, *common, "-o", tmp_path / "out")
    video = json.loads((tmp_path / "out" / "summary.json").read_text())["video"]
    assert (video["mean_tiles"], video["flip_rate"]) == (5.0, 0.0)
    run(apex_rt, *common, "-o", tmp_path / "out", "--resume")


def test_eval_and_parity(road: Road, nuclei_fixture: Path, tmp_path: Path, validate: Any) -> None:
    data = ("--data", nuclei_fixture, "--split", "val")
    report = json.loads(run(apex_rt, "eval", road[2], *data, "--budget", "1,1.0,2gflops", "--json"))
    validate("eval", report)
    assert [row["budget"] for row in report["budgets"]] == ["1", "1.0", "2gflops"]
    report = json.loads(run(apex_rt, "eval", road[0], "--size", "128", *data, "--tiles", "2,0", "--tiles", "2,2", "--json"))
    assert [row["tiles_per_image"] for row in report["budgets"]] == [2.0, 4.0]
    where = tmp_path / "parity.json"
    run(apex_rt, "parity", road[0], "--against", f"{road[1]},{road[2]}", "--budget", "1,0.5", "-o", where)
    document = json.loads(where.read_text())
    validate("parity", document)
    assert document["verdict"] == "pass"
    assert {"utilities", "utilities_1"} <= set(document["comparisons"][0]["budgets"][0]["tensor"])
    run(apex_rt, "parity", road[0], "--against", road[1], "--tiles", "3,0", "-o", where)


def test_a_scene_counts_the_tiles_of_both_levels(road: Road) -> None:
    scene = load(road[2], threads=1).predict_scene(np.full((200, 400, 3), 90, np.uint8), 0.5, window="128x192", overlap=0)
    levels = [sum(tile.level == level for tile in scene.tiles) for level in (0, 1)]
    assert len(scene.windows) == 6 and list(scene.budget.per_level) == levels and all(levels)
