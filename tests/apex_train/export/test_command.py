"""``apex-train export`` as a user meets it: what it refuses. What it writes is the fixture ``exported``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from apex_runtime.cli.options import parse_size
from apex_runtime.errors import ModelError, UsageError
from apex_train.cli.export import export


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
