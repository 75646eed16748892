"""``apex-train export`` as a user meets it: what it refuses. What it writes is the fixture ``exported``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from apex_runtime.errors import ModelError, UsageError
from apex_runtime.image_size import parse_size
from apex_runtime.parity import cases
from apex_train.checkpoint import save_checkpoint
from apex_train.cli.export import export
from apex_train.export import exporter
from apex_train.export.agreement import budgets


def invoke(*arguments):
    return CliRunner().invoke(export, [str(item) for item in arguments])


@pytest.mark.parametrize("text, size", [("1024", (1024, 1024)), ("384x1280", (384, 1280)), (" 64X32 ", (64, 32))])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-64", "64x", "x64", "64x64x3", "1e3", "99999", "64.0"])
def test_bad_sizes(text):
    with pytest.raises(UsageError, match="--size"):
        parse_size(text)


def test_bad_checkpoints(tmp_path):
    absent = invoke(tmp_path / "no.pt", "-o", tmp_path / "m.onnx", "--size", "64")
    assert isinstance(absent.exception, ModelError) and "no.pt" in str(absent.exception)
    (tmp_path / "text.pt").write_text("hello")
    broken = invoke(tmp_path / "text.pt", "-o", tmp_path / "m.onnx", "--size", "64")
    assert isinstance(broken.exception, ModelError) and not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(("count", "wanted"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (9, (1, 5, 9))])
def test_three_budgets_also_on_few_tiles(count, wanted):
    assert budgets(count) == wanted


@pytest.mark.parametrize("installed", [True, False])
def test_the_shipped_samples_are_checked_by_default(checkpoint, tmp_path, monkeypatch, installed):
    seen = []

    def fake_export(_model, _size, path, _sha256, images, _decode):
        seen.extend(images)
        raise UsageError(f"{path}: enough.")

    monkeypatch.setattr(exporter, "export_onnx", fake_export)
    if not installed:
        monkeypatch.setattr(cases, "sample_folder", absent_samples)
    result = invoke(checkpoint, "-o", tmp_path / "m.onnx", "--size", "64x128")
    assert "enough" in str(result.exception)
    assert [image.shape for image in seen] == [(64, 128, 3)] * (2 if installed else 0)
    assert ("not installed" in result.output) is not installed
    assert not seen or (seen[0] != seen[1]).any()


def absent_samples():
    raise ModuleNotFoundError("No module named 'apex_engines'")


@pytest.mark.parametrize(
    ("trained", "asked", "said"), [("384x1280", (), True), (1024, (), False), (None, (), False), (512, ("--size", "64"), False)]
)
def test_another_size_than_that_of_the_training_is_mentioned(detector, tmp_path, monkeypatch, trained, asked, said):
    def fake_export(*_arguments):
        raise UsageError("enough.")

    monkeypatch.setattr(exporter, "export_onnx", fake_export)
    monkeypatch.setattr(cases, "sample_folder", absent_samples)
    training = None if trained is None else {"config": {"train": {"size": trained}}}
    save_checkpoint(tmp_path / "best.pt", detector, detector.config, training)
    result = invoke(tmp_path / "best.pt", "-o", tmp_path / "m.onnx", *asked)
    assert "enough" in str(result.exception)
    assert (f"--size {trained}" in result.output) is said
