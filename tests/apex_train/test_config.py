"""Values that cannot work are refused with the name of the field, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.errors import ConfigError
from apex_train.config import FitConfig, load_config, parse_assignment


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.tile", 0),
        ("model.tile", -64),
        ("model.tile", 48),
        ("model.halo", 5),
        ("model.halo", -8),
        ("model.max_detections", 0),
        ("model.prototypes", 7),
        ("train.seed", -1),
        ("train.batch", True),
        ("train.batch", "many"),
        ("train.learning_rate", float("inf")),
        ("train.learning_rate", float("nan")),
        ("train.crop", 32),
        ("train.size", 500),
        ("augment.scale_min", 3.0),
        ("loss.box_kind", "siou"),
    ],
)
def test_a_value_that_cannot_work_is_named(key: str, value: object) -> None:
    overrides = {key: value} | ({"model.tile": 32} if key == "train.crop" else {})
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert key in str(caught.value) or key.split(".")[1] in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_empty_section_is_the_default_one(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("train:\n")
    assert load_config(file, {"train.batch": 3}).train.batch == 3


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("train: {epochs: 7, batch: 2}\nloss: {box: 1.5}\n")
    config = load_config(file, {"train.epochs": 9})
    assert (config.train.epochs, config.train.batch, config.loss.box) == (9, 2, 1.5)
    assert config.augment == FitConfig().augment


@pytest.mark.parametrize("key", ["amp", "kernels"])
def test_the_word_off_is_no_boolean_though_yaml_reads_it_as_one(key: str, tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(f"train:\n  {key}: off\n")
    assert getattr(load_config(tmp_path / "fit.yaml", {}).train, key) == "off"
    assert getattr(load_config(None, dict([parse_assignment(f"train.{key}=off")])).train, key) == "off"
    with pytest.raises(ConfigError, match="true or false"):
        load_config(None, {f"train.{key}": True})
