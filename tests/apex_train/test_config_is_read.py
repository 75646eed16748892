"""Every field of the configuration is read by the code that trains, and by nothing that merely copies all of them."""

from __future__ import annotations

import io
import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train import config as config_module
from apex_train.config import FitConfig, load_config
from apex_train.engine.trainer import Trainer
from apex_train.model.config import ModelConfig

# Everything on, so that what is only read when something else is asked for is read too.
ALL_ON = {
    "train.size": 64,
    "train.crop": 64,
    "train.batch": 2,
    "train.workers": 0,
    "train.epochs": 3,
    "train.evaluate_every": 1,
    "train.save_every": 1,
    "train.patience": 3,
    "train.deterministic": False,
    "augment.affine": 1,
    "augment.mosaic": 0.5,
    "augment.copy_paste": 1,
    "augment.hue": 20,
    "augment.gamma": 0.3,
    "augment.saturation": 0.3,
    "loss.mask_lovasz": 1,
    "loss.mask_boundary": 1,
    "loss.mask_multiscale": 1,
    "loss.mask_quality": 1,
    "loss.pcgrad": True,
    "labels.first": 0.5,
    "labels.clip": 2,
    "model.mask_quality": True,
    "loss.budget": 0.1,
    "routing.all_tiles": 0,
    "routing.keep_all": 0.5,
}
ELSEWHERE = {("TrainSection", "dataset_type"), ("TrainSection", "peer_timeout")}  # read on the way to the trainer, by the command


@pytest.fixture
def reads(monkeypatch) -> dict[str, set[str]]:
    """Names of the fields that were looked up, per section. Dumping a section looks none of them up."""
    seen: dict[str, set[str]] = defaultdict(set)

    def watched(self: BaseModel, name: str) -> object:
        if name in type(self).model_fields:
            seen[type(self).__name__].add(name)
        return object.__getattribute__(self, name)

    for section in sections():
        monkeypatch.setattr(section, "__getattribute__", watched, raising=False)
    return seen


def sections() -> list[type[BaseModel]]:
    found = [field.annotation for field in FitConfig.model_fields.values()]
    return [section for section in found if isinstance(section, type)]


def test_every_field_is_read(nuclei_fixture: Path, tmp_path: Path, reads: dict[str, set[str]]) -> None:
    config = load_config(None, ALL_ON)
    reads.clear()  # validating is no reading
    data = weighted_copy(nuclei_fixture, tmp_path / "set")
    sets = open_dataset(data, "train"), open_dataset(data, "val")
    run = Trainer(config, *sets, tmp_path, Console(file=io.StringIO()))
    poison_once(run)  # how many bad steps are borne is asked when there is one
    run.fit()
    expected = {(section.__name__, name) for section in sections() for name in section.model_fields}
    found = {(section, name) for section, names in reads.items() for name in names}
    model = {("ModelSection", name) for name in config_module.ModelSection.model_fields}  # handed on to ModelConfig as a whole
    missing = expected - found - ELSEWHERE - model
    assert not missing, sorted(missing)


def weighted_copy(data: Path, target: Path) -> Path:
    """The set with weights of annotations that are not all equal."""
    shutil.copytree(data, target)
    file = target / "annotations" / "train.json"
    document = json.loads(file.read_text())
    for entry in document["annotations"]:
        entry["weight"] = 1 / (1 + entry["id"] % 7)
    file.write_text(json.dumps(document))
    return target


def poison_once(run: Trainer) -> None:
    """The pixels of the first step are not numbers."""
    whole = run.model.normalise

    def broken(images: torch.Tensor) -> torch.Tensor:
        run.model.normalise = whole  # type: ignore[method-assign]
        return whole(images) * float("nan")

    run.model.normalise = broken  # type: ignore[method-assign, assignment]


def test_every_field_of_the_model_changes_the_network() -> None:
    """The section ``model`` becomes a ModelConfig field by field; there each is used, or the network would not differ."""
    source = "".join(path.read_text() for path in Path(config_module.__file__).parent.joinpath("model").glob("*.py"))
    assert set(config_module.ModelSection.model_fields) <= set(ModelConfig.model_fields)
    for name in ModelConfig.model_fields:
        assert f"config.{name}" in source or f"self.{name}" in source, name


def test_the_watch_sees_what_is_not_read(reads: dict[str, set[str]]) -> None:
    """The instrument itself: a dump reads nothing, an access reads one field."""
    config = load_config(None, {})
    reads.clear()
    config.train.model_dump()
    assert not reads["TrainSection"]
    assert config.train.batch == 16 and reads["TrainSection"] == {"batch"}
