"""A JSON document whose top-level lists know on which line each of their entries stands, so that a fault can be shown there."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apex_runtime.data.findings import Location
from apex_runtime.errors import DataError

# Objects take about eight times their text in memory; the instances of COCO's train2017 are 0.45 GB, those of LVIS 1.1 GB.
MAX_BYTES = 2 << 30

_SPACE = re.compile(r"[ \t\n\r]*")
_REMEDY = "Export the file again."


class JsonFile:
    """The object in a JSON file: ``values`` by key, and the place of each entry of the values that are lists.

    NaN and Infinity are read as floats, as Python's own reader does. Raises DataError for what is no such object.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.values: dict[str, Any] = {}
        self._lines: dict[str, _Lines] = {}
        text = _read(self.path)
        try:
            for key, value, lines in _Walk(text).members():
                if key in self.values:
                    raise DataError(f"{self.path}: the key {key!r} appears twice at the top.", _REMEDY, path=self.path)
                self.values[key] = value
                self._lines[key] = lines
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise DataError(f"{self.path}: not valid JSON at {where}: {error.msg}.", _REMEDY, path=self.path) from error
        except RecursionError as error:
            raise DataError(f"{self.path}: not valid JSON: nested too deeply.", _REMEDY, path=self.path) from error
        except ValueError as error:  # an integer of thousands of digits
            raise DataError(f"{self.path}: not valid JSON: {error}.", _REMEDY, path=self.path) from error

    def where(self, key: str, index: int | None = None) -> Location:
        """The place of entry ``index`` of the list ``key``; without an index, of the list itself."""
        first, entries = self._lines[key]
        return Location(self.path, first if index is None or entries is None else entries[index])


_Lines = tuple[int, "array[int] | None"]  # of a value, and of each entry of a list of several lines


def _read(path: Path) -> str:
    """The text of a file. Raises DataError when it is absent, too large or not UTF-8 (a byte order mark is skipped)."""
    if not path.is_file():
        raise DataError(f"{path}: file not found.", "Check the path.", path=path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        message = f"{path}: {size / 2**30:.1f} GB of JSON, the limit is {MAX_BYTES >> 30} GB."
        raise DataError(message, "Split it into several files.", path=path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path}: not valid JSON: byte {error.start + 1} is not UTF-8."
        raise DataError(message, "Save it in the encoding UTF-8.", path=path) from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error})."
        raise DataError(message, "Check its permissions.", path=path) from error


class _Walk:
    """Goes through a top-level object member by member, and through its lists entry by entry; C reads each entry."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decode = json.JSONDecoder().raw_decode
        self._last_newline = text.rfind("\n")
        self._at = 0
        self._line, self._counted = 1, 0

    def members(self) -> Iterator[tuple[str, Any, _Lines]]:
        """Key, value and lines of each member. Raises JSONDecodeError."""
        if self._peek() != "{":
            raise self._expected("an object {...}")
        for _ in self._items("}"):
            if self._peek() != '"':
                raise self._expected("a key in double quotes")
            key = self._value()
            if self._peek() != ":":
                raise self._expected("':'")
            self._at += 1
            opening = self._peek()
            line = self._here()
            # All on one line: read in one go, which also shares the keys of its entries in memory.
            if opening == "[" and self._at <= self._last_newline:
                yield key, *self._entries(line)
            else:
                yield key, self._value(), (line, None)
        if self._peek():
            raise self._expected("nothing more")

    def _entries(self, line: int) -> tuple[list[Any], _Lines]:
        values: list[Any] = []
        lines = array("L")
        for _ in self._items("]"):
            lines.append(self._here())
            values.append(self._value())
        return values, (line, lines)

    def _items(self, closing: str) -> Iterator[None]:
        """Stops before each item of the bracket that opens here, and after the closing one."""
        self._at += 1
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            self._peek()
            yield
            following = self._peek()
            if following not in (",", closing):
                raise self._expected(f"',' or {closing!r}")
            self._at += 1
            if following == closing:
                return

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _value(self) -> Any:
        value, self._at = self._decode(self._text, self._at)
        return value

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _expected(self, what: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(f"expected {what}", self._text, self._at)
