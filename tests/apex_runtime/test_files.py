"""A file appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apex_runtime.files import replacing_text, write_atomically


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing_text(path) as stream:
        stream.write("half of the new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_a_new_file_in_a_new_folder_with_the_permissions_of_any_file(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / ("n" * 250 + ".bin")  # no room for a longer name beside it
    write_atomically(path, b"\0data", durable)
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    assert path.read_bytes() == b"\0data" and path.stat().st_mode == usual.stat().st_mode


def test_text_is_utf8_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("äöü\n", "kürzer"):
        with replacing_text(path) as stream:
            stream.write(text)
        assert path.read_bytes() == text.encode()
    assert os.listdir(tmp_path) == ["a.txt"]
