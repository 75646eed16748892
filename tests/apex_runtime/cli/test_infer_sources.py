"""``apex-rt infer LIST.txt`` and ``apex-rt infer -``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pictures import discs, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/a.png", "in/sub/b.png", "c.png"):
        save(tmp_path / name, discs(64, 64, (20, 20, 9)))
    return tmp_path


def done(out: Path) -> list[str]:
    return [image["file_name"] for image in json.loads((out / "results.json").read_text())["images"]]


def test_a_list_of_paths(apex_rt, tiny_onnx: Path, folder: Path) -> None:
    """Relative to the list; blank lines, remarks, spaces, a byte order mark, Windows' line ends and repetitions mean nothing."""
    text = "\ufeff# mine\r\n\r\n  a.png \r\nsub/b.png\r\nsub/../a.png\r\n" + f"{folder / 'c.png'}\r\n"
    (folder / "in" / "list.txt").write_bytes(text.encode())
    ran = apex_rt("infer", folder / "in" / "list.txt", "--engine", tiny_onnx, "-o", folder / "out")
    assert ran.code == 0, ran.err
    assert done(folder / "out") == ["c.png", "in/a.png", "in/sub/b.png"], "named from the folder that holds them all"
    assert (folder / "out" / "annotated" / "in" / "a.png.png").is_file()


def test_standard_input(apex_rt, tiny_onnx: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "in")
    ran = apex_rt("infer", "-", "--engine", tiny_onnx, "-o", folder / "out", stdin="./sub/b.png\na.png\n")
    assert ran.code == 0 and done(folder / "out") == ["a.png", "sub/b.png"]


def test_what_is_not_there_is_named_and_the_rest_is_done(apex_rt, validate, tiny_onnx: Path, folder: Path) -> None:
    text = "in/a.png\nin/lost.png\nin\nc.png\nin/lost.mp4\n"
    ran = apex_rt(
        "infer", "-", "--engine", tiny_onnx, "-o", folder / "out", stdin="\n".join(str(folder / line) for line in text.split())
    )
    assert ran.code == 1 and "Traceback" not in ran.err
    assert done(folder / "out") == ["c.png", "in/a.png"]
    failures = json.loads((folder / "out" / "failures.json").read_text())
    validate("failures", failures)
    assert [failure["file_name"] for failure in failures] == ["in", "in/lost.mp4", "in/lost.png"]
    assert all(failure["reason"] and failure["remedy"] and "Report this" not in failure["remedy"] for failure in failures)


@pytest.mark.parametrize("text", [b"", b"\n \n# nothing\n", "a.png".encode("utf-16"), b"a.png\0b.png\0"])
def test_lists_that_are_none(apex_rt, tiny_onnx: Path, folder: Path, text: bytes) -> None:
    (folder / "list.txt").write_bytes(text)
    for source, stdin in ((folder / "list.txt", None), ("-", text)):
        ran = apex_rt("infer", source, "--engine", tiny_onnx, "-o", folder / "out", stdin=stdin)
        assert ran.code == 2 and "remedy:" in ran.err and ("list.txt" if stdin is None else "standard input") in ran.err
    assert not (folder / "out").exists()
