"""Names that are short and tell files apart."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.short_names import told_apart

parts = st.lists(st.sampled_from(["a", "b", "m.onnx"]), min_size=1, max_size=4).map(lambda words: "/" + "/".join(words))


def test_folders_are_added_where_names_are_equal() -> None:
    assert told_apart(["x/m.onnx", "/y/m.onnx", Path("z/n.onnx")]) == ["x/m.onnx", "y/m.onnx", "n.onnx"]
    assert told_apart(["a/b/m", "c/b/m", "b/m"])[:2] == ["a/b/m", "c/b/m"]


def test_a_folder_may_be_here(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path / "bundle")
    assert told_apart(["."]) == told_apart(["../bundle/"]) == ["bundle"]


@given(st.lists(parts, min_size=1, max_size=5))
def test_two_names_are_equal_only_for_one_path(paths: list[str]) -> None:
    names = told_apart(paths)
    for path, name in zip(paths, names, strict=True):
        assert os.path.abspath(path).endswith(name) and name
        assert [other for other, same in zip(paths, names, strict=True) if same == name] == [path] * names.count(name)
