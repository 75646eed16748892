"""The command as another machine may read it."""

from __future__ import annotations

import shlex

import pytest

from apex_runtime.code_state import command_line


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/data/model.onnx", "model.onnx"),
        ("--twin=/data/dense.onnx", "--twin=dense.onnx"),
        ("dense=/data/dense.onnx", "dense=dense.onnx"),
        ("/a=b/c", "c"),
        ("bundle/", "bundle/"),
        ("graph_ms@*=0.5", "graph_ms@*=0.5"),
        ("my scans/*.png", "my scans/*.png"),
    ],
)
def test_it_can_be_typed_again_without_the_folders_of_this_machine(word: str, shown: str) -> None:
    assert shlex.split(command_line("apex-rt", ["bench", word])) == ["apex-rt", "bench", shown]
