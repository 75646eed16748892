import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data import json_lines
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.sampled_from([None, 0, 1, 3]), st.booleans())
def test_every_document_reads_as_the_standard_library_reads_it(
    folder: Path, document: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    path = folder / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if ascii_only else text.encode("utf-8", "replace"))
    assert JsonFile(path).values == json.loads(path.read_bytes())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 2))
def test_every_entry_knows_its_line(folder: Path, gaps: list[int], before: int) -> None:
    """Entry n follows ``gaps[n]`` line breaks; it spans a line break of its own."""
    text, lines, line = "{" + "\n" * before + '"näme": 1, "list": [', [], before + 1
    first = line
    for number, gap in enumerate(gaps):
        text += ("," if number else "") + "\n" * gap
        line += gap
        lines.append(line)
        text += f'{{"id":\r\n {number}}}'
        line += 1
    document = JsonFile(write(folder, text + "]}"))
    assert [document.where("list", n).line for n in range(len(gaps))] == lines
    assert document.where("list").line == first and document.values["list"][-1] == {"id": len(gaps) - 1}


def test_the_lines_of_a_committed_file() -> None:
    path = Path(__file__).parents[2] / "fixtures" / "nuclei" / "annotations" / "val.json"
    document = JsonFile(path)
    text = path.read_text()
    last = len(document.values["images"]) - 1
    line = text[: text.index(document.values["images"][last]["file_name"])].count("\n") + 1
    assert document.where("images", last).line == line


def test_a_byte_order_mark_and_numbers_that_are_none(tmp_path: Path) -> None:
    values = JsonFile(write(tmp_path, b'\xef\xbb\xbf{"a": [NaN, Infinity,\n-Infinity, 1e999]}')).values["a"]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, math.inf]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1: expected an object"),
        ("[1, 2]", "line 1, column 1: expected an object"),
        ('{"a": [1,\n 2,\n nul]}', "line 3, column 2"),
        ('{"a": [1,\n 2', "line 2, column 3: expected ',' or ']'"),
        ('{"a": [1,\n]}', "line 2, column 1"),
        ('{"a": 1,}', "expected a key in double quotes"),
        ('{"a" 1}', "expected ':'"),
        ('{"a": 1}\n{}', "line 2, column 1: expected nothing more"),
        ('{"a": 1,\n"a": 2}', "the key 'a' appears twice"),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a": "\xff"}'.encode("latin-1"), "byte 8 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "byte 1 is not UTF-8"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=reason) as caught:
        JsonFile(path)
    assert str(path) in str(caught.value) and caught.value.remedy


def test_a_file_that_is_absent_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="not found"):
        JsonFile(tmp_path / "absent.json")
    monkeypatch.setattr(json_lines, "MAX_BYTES", 4)
    with pytest.raises(DataError, match="the limit is"):
        JsonFile(write(tmp_path, '{"a": 1}'))
