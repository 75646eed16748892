"""Results of tests, from the JUnit XML that ``pytest --junitxml`` writes.

Read by expat, event by event. A document type is refused where it begins, so that no entity is ever defined, expanded or fetched
(the "billion laughs"); a file beyond ``MOST_BYTES`` is refused unread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn
from xml.parsers.expat import ExpatError, ParserCreate

from apex_runtime.errors import DataError

Outcome = Literal["passed", "failed", "skipped"]
MOST_BYTES = 64 * 2**20
_OUTCOMES: dict[str, Outcome] = {"failure": "failed", "error": "failed", "skipped": "skipped"}


@dataclass
class Case:
    """One test: the module with dots, the name with its parameters."""

    module: str
    name: str
    outcome: Outcome = "passed"


@dataclass
class TestResults:
    """All tests of a file, and the properties of its suite."""

    __test__ = False  # pytest collects what is called Test

    cases: list[Case] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        """How many tests ended so."""
        return sum(case.outcome == outcome for case in self.cases)


def read_junit(path: Path) -> TestResults:
    """The results in ``path``. Raises DataError for anything but JUnit XML, OSError (a missing file: FileNotFoundError)."""
    with path.open("rb") as stream:
        text = stream.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise DataError(f"{path.name} is longer than {MOST_BYTES} bytes.")
    reader = _Reader(path.name)
    try:
        reader.parser.Parse(text, True)
    except (ExpatError, ValueError, LookupError) as error:  # the last two: an encoding that is none
        raise DataError(f"{path.name} is not XML: {error}.") from error
    return reader.found


class _Reader:
    """What expat calls, and what was found so far."""

    def __init__(self, name: str) -> None:
        self.found = TestResults()
        self._name = name
        self._case: Case | None = None
        self._inside = False
        self.parser = ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._document_type
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _document_type(self, *_words: object) -> NoReturn:
        raise DataError(f"{self._name} has a document type, which pytest never writes; it is not read.")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._inside and tag not in ("testsuites", "testsuite"):
            raise DataError(f"{self._name} is not JUnit XML: it begins with <{tag}>.")
        self._inside = True
        if tag == "testcase":
            self._case = Case(attributes.get("classname", ""), attributes.get("name", ""))
            self.found.cases.append(self._case)
        elif self._case is None and tag == "property":
            self._property(attributes.get("name", ""), attributes.get("value", ""))
        elif self._case is not None and tag in _OUTCOMES and self._case.outcome != "failed":
            self._case.outcome = _OUTCOMES[tag]

    def _end(self, tag: str) -> None:
        if tag == "testcase":
            self._case = None

    def _property(self, name: str, value: str) -> None:
        """Several suites in one file may repeat a property; that they disagree is an error, whichever came last."""
        if self.found.properties.setdefault(name, value) != value:
            raise DataError(f"{self._name}: two values of {name}: {self.found.properties[name]!r} and {value!r}.")
