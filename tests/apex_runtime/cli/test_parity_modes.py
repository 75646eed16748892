"""What ``apex-rt parity`` refuses before it runs anything: nothing that was asked for is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

MODES = {
    "--record": ("gpu.json", [("--against", "b.onnx"), ("--profile", "edge"), ("--html", "p.html"), ("--sweep", "s")]),
    "--bisect": ("found", [("--batch", "4"), ("--html", "p.html"), ("--output", "r.json"), ("--polygraphy", "p")]),
    "--sweep": ("bundles", [("--against", "b.onnx"), ("--polygraphy", "p")]),
}
PAIRS = [(mode, value, option) for mode, (value, options) in MODES.items() for option in options]


@pytest.mark.parametrize(("mode", "value", "option"), PAIRS)
def test_an_option_that_would_not_be_read(apex_rt, tiny_onnx, tmp_path, monkeypatch, mode: str, value: str, option) -> None:
    monkeypatch.chdir(tmp_path)
    ran = apex_rt("parity", tiny_onnx, mode, value, *option)
    assert ran.code == 2 and ran.err.startswith(f"error: {mode}: {option[0]} would not be read."), ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [("m.onnx",), ("--images", "a.png"), ("--sweep", "s"), ("--budget", "4"), ("--bisect", "d")])
def test_the_ops_need_nothing_else(apex_rt, tmp_path, monkeypatch, given: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    ran = apex_rt("parity", "--ops", *given)
    word = given[0] if given[0].startswith("--") else "REFERENCE"
    assert ran.code == 2 and f"--ops: {word} would not be read" in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--images", "--html", "--polygraphy", "--output", "--record"])
def test_an_empty_path_is_a_variable_that_was_not_set(apex_rt, tiny_onnx, tmp_path, monkeypatch, option: str) -> None:
    monkeypatch.chdir(tmp_path)
    ran = apex_rt("parity", tiny_onnx, "--against", tiny_onnx, option, "")
    assert ran.code == 2 and "the path is empty" in ran.err and option in ran.err
    assert not list(tmp_path.iterdir())


def test_an_empty_reference(apex_rt, tiny_onnx) -> None:
    ran = apex_rt("parity", "", "--against", tiny_onnx)
    assert ran.code == 2 and "the path is empty" in ran.err


@pytest.mark.parametrize("option", ["--output", "--html", "--polygraphy", "--record"])
def test_a_place_that_cannot_be_written_is_said_before_anything_runs(
    apex_rt, tiny_onnx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr("apex_runtime.parity.check.check_parity", None)
    monkeypatch.setattr("apex_runtime.parity.record.record", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json" / "inputs.json").mkdir(parents=True)
    rest = () if option == "--record" else ("--against", tiny_onnx)
    for place in (tmp_path / "file" / "r.json", tmp_path / "folder.json"):
        ran = apex_rt("parity", tiny_onnx, *rest, option, place)
        assert ran.code == 2 and f"{option} {place}" in ran.err and "cannot be written" in ran.err


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("--output", "m.onnx"), "--output m.onnx: cannot be written (it is what is read)"),
        (("--html", "./other.json"), "--html other.json: cannot be written (it is what is read)"),
        (("--output", "p.html", "--html", "p.html"), "--html p.html: cannot be written (it is the file of --output)"),
    ],
)
def test_no_file_takes_the_place_of_another(
    apex_rt, tiny_onnx, tmp_path, monkeypatch, files: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(tiny_onnx.read_bytes())
    (tmp_path / "other.json").write_text("{}")
    ran = apex_rt("parity", "m.onnx", "--against", "other.json", *files)
    assert ran.code == 2 and words in ran.err
    assert (tmp_path / "m.onnx").read_bytes() == tiny_onnx.read_bytes() and (tmp_path / "other.json").read_text() == "{}"
