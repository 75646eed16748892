"""Every command line in the documents is run, or at least read by click; what no test runs says so, and where it last ran.

* A block in backticks under ``docs/`` is run by ``tests/test_docs.py``.
* Any other block has beside it ``<!-- run by FILE -->``, or to the reader: *Not run by the tests: needs a GPU; last ran
  2026-11-28 on an H200 ([evidence](...)).* or *...; never ran: `unproven`.* Only forms (``apex-rt infer SOURCE``) have neither.
* Commands and options within sentences are those of the programs.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from command_lines import NOT_RUN, RUN_BY, Shown, beside, fragments, shown
from command_tree import any_file_will_do, every_command, parse
from documents import DOCUMENTS, ROOT, Piece, pieces

from apex_train.config import FitConfig, load_config, parse_assignment

EVERY = [line for document in DOCUMENTS for line in shown(pieces(document))]
OURS = [line for line in EVERY if line.ours]
FOREIGN = [line for line in EVERY if not line.ours]
# tests/test_docs.py runs those in fences.
MEASURING = [line for line in FOREIGN if line.piece.kind != "fence" and line.words[1:] and line.words[1].startswith("bench/")]
HELP = [
    line.strip().rpartition("| ")[2]
    for command in every_command().values()
    for line in (command.help or "").partition("Examples:")[2].splitlines()
    if "apex-" in line
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = ("onnx", "pt", "json", "yaml")  # model.onnx is no key
HARDWARE = re.compile(r"cuda:|=gpu|tensorrt\b|torchrun")


def named(line: Shown) -> str:
    return f"{line.piece.place} {' '.join(line.words)}"


@pytest.fixture
def any_file(monkeypatch: pytest.MonkeyPatch) -> None:
    any_file_will_do(monkeypatch)


def test_there_are_commands_to_look_at() -> None:
    assert len(OURS) > 100 and len(FOREIGN) > 25 and len(HELP) > 40
    assert len({line.piece.document for line in OURS}) > 0.8 * len(DOCUMENTS)


@pytest.mark.usefixtures("any_file")
def test_a_renamed_option_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(shlex.split("apex-rt infer images --ouput out"))
    with pytest.raises(click.BadParameter):
        parse(shlex.split("apex-rt bench model.onnx --repeat none"))
    with pytest.raises(click.UsageError, match="no command"):
        parse(shlex.split("apex-rt guess images"))
    assert parse(shlex.split("apex-rt bench compare one.json --across threads")).command.name == "compare"


@pytest.mark.usefixtures("any_file")
@pytest.mark.parametrize("line", OURS, ids=named)
def test_click_reads_it(line: Shown) -> None:
    assert line.ours is not None
    try:
        context = parse(line.ours)
    except click.MissingParameter:
        assert not line.block, "a line to type lacks something"
    except click.BadOptionUsage:  # `apex-rt eval --data`: a sentence names the option alone
        assert not line.block
    else:
        load_config(None, dict(parse_assignment(text) for text in context.params.get("assignments", ())))


@pytest.mark.usefixtures("any_file")
@pytest.mark.parametrize("text", HELP)
def test_click_reads_the_examples_of_the_help(text: str) -> None:
    words = shlex.split(text)
    assert parse(words[next(place for place, word in enumerate(words) if word.startswith("apex-")) :])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_options_within_sentences_exist(document: Path) -> None:
    options = {
        words: {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
        for words, command in every_command().items()
    }
    for piece, command, option in fragments(pieces(document)):
        where = [names for words, names in options.items() if command in ("", *words)]
        assert any(option in names for names in where), f"{piece.place}: {command} {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_keys_of_the_configuration_exist(document: Path) -> None:
    sections = FitConfig()
    for piece in pieces(document):
        for section, key in re.findall(
            r"(?<![\w./-])(train|model|augment|routing|loss)\.([a-z_]+)\b(?!\()", "\n".join(piece.spans)
        ):
            assert hasattr(getattr(sections, section), key) or key in FILES, f"{piece.place}: {section}.{key}"


@pytest.mark.parametrize("line", FOREIGN, ids=named)
def test_what_other_programs_are_given_exists(line: Shown) -> None:
    extras, markers = PROJECT["project"]["optional-dependencies"], PROJECT["tool"]["pytest"]["ini_options"]["markers"]
    for extra in re.findall(r"(?<=^\.\[)[\w,-]+", "\n".join(line.words), re.MULTILINE):
        assert set(extra.split(",")) <= set(extras)
    for flag, value in zip(line.words, line.words[1:], strict=False):
        if flag == "-m" and line.program == "pytest":
            asked = set(value.split()) - {"or", "and", "not"}
            assert asked <= {marker.partition(":")[0] for marker in markers}
        elif flag == "-m" and value != "venv":
            assert importlib.util.find_spec(value), value
    for word in line.words:
        if re.match(r"(\.ci|tests|bench|docs|engines)/", word):
            assert (ROOT / word).exists(), word


@pytest.mark.usefixtures("any_file")
@pytest.mark.parametrize("line", MEASURING, ids=named)
def test_click_reads_what_programs_that_measure_are_given(line: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / line.words[1]
    monkeypatch.syspath_prepend(str(path.parent))
    program = importlib.import_module(path.stem).main
    assert program.make_context(line.words[1], list(line.words[2:]))


def marks(piece: Piece) -> list[re.Match[str]]:
    texts = [" ".join(other.content.split()) for other in beside(piece)]
    return [found for text in texts for found in (NOT_RUN.search(text), RUN_BY.search(text)) if found]


@pytest.mark.parametrize("piece", {line.piece: None for line in EVERY if line.block}, ids=lambda piece: piece.place)
def test_a_block_is_run_or_says_why_not(piece: Piece) -> None:
    if piece.kind == "fence" and piece.document.parent.name == "docs":
        assert not marks(piece), "tests/test_docs.py runs it"
        return
    forms = [line for line in shown((piece,)) if any(re.fullmatch(r"[A-Z]{2,}", word) for word in line.words)]
    assert marks(piece) or forms == list(shown((piece,)))
    for mark in marks(piece):
        if mark.re is RUN_BY:
            runs = (ROOT / mark["file"]).read_text(encoding="utf-8")
            assert mark["file"].startswith((".ci/", "tests/"))
            assert all(part in runs for part in asked_of(piece)) or "README.md" in runs, "that file runs something else"


def asked_of(piece: Piece) -> set[str]:
    """What must be in a file that runs a block: the commands of our programs, the names of programs that measure."""
    lines = list(shown((piece,)))
    programs = {Path(word).stem for line in lines for word in line.words[1:2] if word.startswith("bench/")}
    return programs | {line.ours[1] for line in lines if line.ours}


SAID = [
    (piece, mark)
    for document in DOCUMENTS
    for piece in pieces(document)
    for mark in NOT_RUN.finditer(" ".join(piece.content.split()))
]


@pytest.mark.parametrize(("piece", "mark"), SAID, ids=lambda value: value.place if isinstance(value, Piece) else "")
def test_where_it_last_ran_is_where_the_evidence_says(piece: Piece, mark: re.Match[str]) -> None:
    if mark["file"] is None:
        return
    file = (piece.document.parent / mark["file"]).resolve()
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content["circumstances"]["utc"].startswith(mark["date"])
        gpu = re.search(r"[A-Z]+\d{2,}", mark["where"])
        assert gpu is None or gpu[0] in json.dumps(content)
    else:
        assert f"## {mark['date']}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_word_of_not_running_has_the_one_form(document: Path) -> None:
    text = " ".join(document.read_text(encoding="utf-8").split())
    assert text.count("*Not run by the tests") == len(NOT_RUN.findall(text))


def test_a_sentence_with_a_command_for_hardware_says_where_that_ran() -> None:
    for line in EVERY:
        if not line.block and HARDWARE.search(line.piece.content) and HARDWARE.search(" ".join(line.words)):
            section = [other for other in pieces(line.piece.document) if other.section == line.piece.section]
            assert any(NOT_RUN.search(" ".join(other.content.split())) for other in section), named(line)
