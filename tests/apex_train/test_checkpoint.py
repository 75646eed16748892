"""Checkpoints: what goes in comes out, foreign and damaged files are named, no pickle is ever run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from apex_runtime.errors import ModelError, UsageError
from apex_train.checkpoint import load_model, load_weights, read_checkpoint, save_checkpoint, state_dict_of
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector
from apex_train.predictor import open_checkpoint


@pytest.fixture(scope="module")
def model() -> ApexDetector:
    return ApexDetector(ModelConfig(classes=({"id": 4, "name": "roof"}, {"id": 9, "name": "car"}))).eval()


@pytest.fixture
def saved(model: ApexDetector, tmp_path: Path) -> Path:
    path = tmp_path / "sub" / "best.pt"
    save_checkpoint(path, model, model.config)
    return path


def test_what_goes_in_comes_out(model: ApexDetector, saved: Path) -> None:
    loaded = load_model(saved)
    assert loaded.config == model.config and loaded.config.classes[1].name == "car"
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [path.name for path in saved.parent.iterdir()] == ["best.pt"]


def test_a_failed_write_leaves_the_old_file(saved: Path, model: ApexDetector) -> None:
    before = saved.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(saved, model, model.config, {"bad": lambda: 0})
    assert saved.read_bytes() == before and len(list(saved.parent.iterdir())) == 1


@pytest.mark.parametrize("wrapper", [None, "model", "model_state_dict", "state_dict", "ema"])
def test_raw_and_wrapped_state_dicts(model: ApexDetector, tmp_path: Path, wrapper: str | None) -> None:
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "raw.pt")
    other = ApexDetector(model.config)
    report = load_weights(other, state_dict_of(read_checkpoint(tmp_path / "raw.pt"), tmp_path / "raw.pt"))
    assert report.fits and str(report) == "all weights fit"


def test_another_class_count_is_reported_and_the_rest_loads(model: ApexDetector) -> None:
    state = model.state_dict() | {"extra.weight": torch.zeros(1)}
    del state["masks.expand.bias"]
    report = load_weights(ApexDetector(ModelConfig()), state)
    assert report.missing == ("masks.expand.bias",) and report.unexpected == ("extra.weight",)
    assert {key.split(".")[2] for key in report.reshaped} == {"many", "one"} and len(report.reshaped) == 12


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04 not a zip", pickle.dumps({"model": Evil()})],
    ids=["empty", "text", "broken zip", "pickle"],
)
def test_damaged_and_hostile_files_are_named_and_not_run(content: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.pt"):
        load_model(path)
    assert not (tmp_path / "pwned").exists()


def test_hostile_objects_inside_a_torch_file_are_not_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "x.pt")
    with pytest.raises(ModelError):
        load_model(tmp_path / "x.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 99}, "format 99"),
        ({"model_config": {"tile": 48}}, "configuration"),
        ({"model": {"a": torch.zeros(1)}}, "missing"),
        ({"model": {}}, "no weights"),
    ],
)
def test_files_of_another_kind_say_why(saved: Path, change: dict, words: str) -> None:
    content = torch.load(saved, weights_only=True) | change
    torch.save(content, saved)
    with pytest.raises(ModelError, match=words):
        load_model(saved)


def test_a_missing_file_and_a_wrong_size(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not found"):
        open_checkpoint(tmp_path / "none.pt")
    with pytest.raises(UsageError, match="100x100"):
        open_checkpoint(saved, (100, 100))
