"""Every shipped recipe is a valid configuration, fits its data set, and trains on it."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.errors import UsageError
from apex_train.cli.main import main
from apex_train.config import FitConfig, load_config
from apex_train.data.loader import Batch
from apex_train.engine.trainer import Trainer
from apex_train.recipes import recipe_names, recipe_path

SMALL = {"train.size": 128, "train.crop": 64, "train.batch": 2, "train.workers": 0}
SHARED_REASON = ("flip_vertical", "transpose")  # may stand below the reason of the flip before them
WITHOUT_TRAIN = {"video-davis": "test"}  # sets whose only split is another


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small crops on a busy machine: threads that wait for each other cost more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(name: str, overrides: dict | None = None) -> FitConfig:
    path = recipe_path(name)
    assert path is not None
    return load_config(path, overrides or {})


def two_steps(run: FitConfig, data: Path, split: str, output: Path) -> None:
    dataset = open_dataset(data, split, run.train.dataset_type)
    trainer = Trainer(run, dataset, None, output, Console(file=io.StringIO()))
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    for batch in itertools.islice(trainer.loader, 2):
        assert isinstance(batch, Batch), batch
        assert math.isfinite(trainer.train_step(batch)["total"])
    assert trainer.step == 2
    assert any(not old.equal(new.detach()) for old, new in zip(before, trainer.model.parameters(), strict=True))


def test_names_lead_to_files() -> None:
    assert recipe_names() == sorted(path.stem for path in Path(__file__).parents[2].glob("apex_train/recipes/*.yaml"))
    assert len(recipe_names()) == 7
    for name in ("absent", "", "../recipes/coco-mini", "coco-mini.yaml"):
        assert recipe_path(name) is None


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_valid_names_its_layout_and_says_why(name: str) -> None:
    assert config(name).train.dataset_type in ("coco", "yolo", "satellite")
    path = recipe_path(name)
    assert path is not None
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ") and max(map(len, lines)) <= 130
    for above, line in itertools.pairwise(lines):
        key = line.strip().partition(":")[0]
        if line.startswith("  ") and not key.startswith("#") and key not in SHARED_REASON:
            assert above.startswith("  # "), f"{name}: {key} has no reason"


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_fits_its_data_set(name: str, shared_data: Path) -> None:
    """Detections for the fullest image, and the letterbox side no larger than the largest image needs."""
    run = config(name)
    splits = split_names(shared_data / name, run.train.dataset_type)
    assert ("train" in splits) == (name not in WITHOUT_TRAIN)
    document = json.loads((shared_data / name / "annotations" / f"{WITHOUT_TRAIN.get(name, 'train')}.json").read_text())
    fullest = max(Counter(entry["image_id"] for entry in document["annotations"]).values())
    longest = max(max(image["width"], image["height"]) for image in document["images"])
    assert fullest <= run.model.max_detections
    assert run.train.crop <= max(run.train.letterbox) < longest + run.model.tile
    assert run.train.batch <= len(document["images"])


@pytest.mark.parametrize("name", recipe_names())
def test_two_steps_on_the_data_set(name: str, shared_data: Path, tmp_path: Path) -> None:
    """Where there is no split to train on, another stands in: this asks whether the recipe runs, not what it learns."""
    two_steps(config(name, SMALL), shared_data / name, WITHOUT_TRAIN.get(name, "train"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_two_steps_with_every_value_of_the_recipe(name: str, shared_data: Path, tmp_path: Path) -> None:
    two_steps(config(name), shared_data / name, WITHOUT_TRAIN.get(name, "train"), tmp_path)


@pytest.mark.parametrize("name", sorted(WITHOUT_TRAIN))
def test_a_set_without_a_train_split_is_refused_by_name(name: str, shared_data: Path, tmp_path: Path) -> None:
    words = ["fit", recipe_path(name), "--data", shared_data / name, "--output", tmp_path / "run"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == UsageError.exit_code == 2
    assert "no split 'train'" in result.output and "test" in result.output
    assert not (tmp_path / "run").exists()
