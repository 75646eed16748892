"""Weights without their configuration: read off their shapes, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from apex_runtime.bundle.load import open_engine
from apex_runtime.errors import ModelError, UsageError
from apex_train.checkpoint import save_checkpoint
from apex_train.cli.main import main
from apex_train.config import ModelSection
from apex_train.foreign import is_foreign, load_foreign
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector


def network(**changes) -> ApexDetector:
    classes = ({"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"})
    return ApexDetector(ModelConfig(classes=classes, **changes)).eval()


@pytest.mark.parametrize(
    "changes", [{}, {"size": "small", "mask_quality": True}, {"prototypes": 16, "scan_heads": 2, "scan_state": 8}]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_the_network_is_read_off_the_weights(changes: dict, wrapper: str | None, tmp_path: Path) -> None:
    model, path = network(**changes), tmp_path / "raw.pt"
    torch.save(model.state_dict() if wrapper is None else {wrapper: model.state_dict()}, path)
    assert is_foreign(path)
    found, report = load_foreign(path, ModelSection(tile=128, halo=16), ["x", "y", "z"])
    assert report.fits and found.config.model_dump(exclude={"classes", "tile", "halo"}) == model.config.model_dump(
        exclude={"classes", "tile", "halo"}
    )
    assert (found.config.tile, found.config.halo, [item.name for item in found.config.classes]) == (128, 16, ["x", "y", "z"])
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in model.state_dict().items())


def test_what_does_not_fit_is_refused_or_reported(tmp_path: Path) -> None:
    path, state = tmp_path / "raw.pt", network().state_dict()
    del state["neck.down4.0.weight"]
    torch.save(state | {"other": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"1 missing \(neck.down4.0.weight\); 1 unexpected \(other\)"):
        load_foreign(path)
    _, report = load_foreign(path, strict=False)
    assert report.missing == ("neck.down4.0.weight",) and report.unexpected == ("other",)
    with pytest.raises(UsageError, match="2 names for 3 classes"):
        load_foreign(path, class_names=["x", "y"], strict=False)
    torch.save({"fc.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ModelError, match="not weights of this network"):
        load_foreign(path)


@pytest.mark.slow
def test_raw_weights_are_exported(tmp_path: Path) -> None:
    model, raw, onnx = network(), tmp_path / "raw.pt", tmp_path / "raw.onnx"
    torch.save(model.state_dict(), raw)
    words = ["export", raw, "-o", onnx, "--size", "128", "--class-names", "x,y,z", "--json"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tiles"] == 4 and "tile 64" in result.stderr
    assert [item.name for item in open_engine(onnx).session.info.classes] == ["x", "y", "z"]


def test_a_checkpoint_of_our_own_takes_no_advice(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    save_checkpoint(path, network(), network().config)
    result = CliRunner().invoke(main, ["export", str(path), "-o", str(tmp_path / "x.onnx"), "--class-names", "x"])
    assert result.exit_code == 2 and "configuration of its own" in result.output
