"""Two arms by seeds: the difference and its intervals of known answers; and, slow, both programs very small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import arms
import click
import little_labels
import mined_subset
import numpy as np
import pytest
from click.testing import CliRunner

from apex_runtime.data.open import open_dataset

TINY = ["--set", "train.size=128", "--set", "train.crop=64", "--set", "train.batch=2", "--set", "train.workers=0"]
ANYTHING = ["--min-score", 0.01, "--unsure-score", 0.01, "--min-stability", 0, "--min-agreement", 0, "--min-consistency", 0]


@pytest.fixture
def data(nuclei_fixture: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(nuclei_fixture, tmp_path / "nuclei")
    (folder / "annotations" / "val.json").rename(folder / "annotations" / "test.json")
    return folder


def of_truth(data: Path, missed: int) -> list[dict[str, Any]]:
    """The objects of the test images as a flawless model finds them, but for every ``missed``-th."""
    entries = open_dataset(data, "test", "coco").ground_truth()["annotations"]
    return [{**entry, "score": 0.9} for place, entry in enumerate(entries) if place % missed]


def test_the_difference_of_answers_that_are_known(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data, "test", "coco")
    for seed, (worse, better) in enumerate([(2, 4), (3, 5), (2, 5)]):
        arms.write_cell(tmp_path / "out" / str(seed) / "first.json", {"results": of_truth(data, worse)})
        arms.write_cell(tmp_path / "out" / str(seed) / "second.json", {"results": of_truth(data, better)})
    found = arms.compare(tmp_path / "out", [0, 1, 2], ("first", "second"), dataset)
    scores = {arm: np.array([row["mAP_segm"] for row in rows]) for arm, rows in found["arms"].items()}
    difference = found["difference"]
    assert difference["by_seed"] == pytest.approx((scores["second"] - scores["first"]).tolist(), abs=0.02)
    assert difference["mean"] == pytest.approx(np.mean(difference["by_seed"]), abs=0.02) and difference["mean"] > 10
    assert scores["first"][0] == pytest.approx(50, abs=2), "half of the objects, and nothing that is wrong"
    spread = np.std(difference["by_seed"], ddof=1) / 3**0.5 * 4.303  # Student's t of two degrees of freedom
    assert difference["over_seeds"] == pytest.approx([difference["mean"] - spread, difference["mean"] + spread], abs=0.05)
    for name in ("over_images", "over_both"):
        low, high = difference[name]
        assert low <= difference["mean"] <= high and high > low
    assert np.ptp(difference["over_both"]) > np.ptp(difference["over_images"])


def test_cells_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    arms.keep_settings(tmp_path, {"epochs": 1})
    arms.keep_settings(tmp_path, {"epochs": 1})
    with pytest.raises(click.UsageError, match="other settings"):
        arms.keep_settings(tmp_path, {"epochs": 2})


def ran(main: Any, *words: object) -> None:
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def cell(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "0" / f"{name}.json").read_text())
    return content


@pytest.mark.slow
def test_little_labels(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", data, "--output", out, "--share", 0.4, "--seeds", "0", "--epochs", 1, "--rounds", 1, *TINY]
    ran(little_labels.main, *words, "--", *ANYTHING, "--views", "none")
    taught, alone = cell(out, "self"), cell(out, "supervised")
    assert taught["labelled"]["images"] == 2 and alone["steps"] >= taught["steps"] >= 2 and taught["pseudo_labels"][0]["labels"]
    before = (out / "0" / "self.json").stat().st_mtime_ns
    (out / "0" / "supervised.json").unlink()
    ran(little_labels.main, *words, "--", *ANYTHING, "--views", "none")
    assert (out / "0" / "self.json").stat().st_mtime_ns == before and cell(out, "supervised")["results"] == alone["results"]
    ran(little_labels.main, "score", data, "--output", out, "--evidence", tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["difference"]["over_seeds"] is None


@pytest.mark.slow
def test_mined_subset(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sizes = ["--first-share", 0.4, "--share", 0.4, "--first-epochs", 1, "--epochs", 1]
    ran(mined_subset.main, "run", data, "--output", out, "--seeds", "0", *sizes, *TINY, "--", "--views", "flip-x")
    hardest, others = cell(out, "mined"), cell(out, "random")
    assert hardest["images"] == others["images"] == 2 and hardest["steps"] == others["steps"] == 1
    assert hardest["cost"]["mining_seconds"] > 0 and hardest["cost"]["first"]["images"] == 2
    ran(mined_subset.main, "score", data, "--output", out, "--evidence", tmp_path / "e.json")
    assert set(json.loads((tmp_path / "e.json").read_text())["arms"]) == {"random", "mined"}
