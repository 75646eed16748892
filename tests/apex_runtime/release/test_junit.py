"""Results of tests, from files of pytest and from files that mean harm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apex_runtime.errors import DataError
from apex_runtime.release import junit
from apex_runtime.release.junit import read_junit

SUITE = """
import pytest

def test_right(): pass
@pytest.mark.parametrize("name", ["a b", "<&>"])
def test_named(name): assert name == "a b"
@pytest.mark.skip
def test_left_out(): pass
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.fixture
def broken(): yield; raise OSError
def test_teardown(broken): pass
def test_property(record_property): record_property("commit", "not of the suite")
"""


def test_what_pytest_writes_is_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=out.xml"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60).returncode == 1
    found = read_junit(tmp_path / "out.xml")
    outcomes: dict[str, list[str]] = {}
    for case in found.cases:
        outcomes.setdefault(case.outcome, []).append(case.name)
    assert {"test_right", "test_named[a b]", "test_property"} <= set(outcomes["passed"])
    assert outcomes["failed"] == ["test_named[<&>]", "test_teardown"]
    assert outcomes["skipped"] == ["test_left_out", "test_expected"]
    assert found.properties == {} and {case.module for case in found.cases} == {"test_it"}


def laughs(depth: int) -> str:
    """Ten of ten of ten ... : small as a file, 10 ** depth as a text."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, depth))
    return f'<!DOCTYPE t [<!ENTITY l0 "ha">{entities}]><testsuites><testsuite name="&l{depth - 1};"/></testsuites>'


HARM = {
    "a billion laughs": laughs(10),
    "a few laughs": laughs(2),
    "a file from outside": '<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/hosts">]><testsuites name="&x;"></testsuites>',
    "a document type from outside": '<!DOCTYPE t SYSTEM "http://127.0.0.1:9/x.dtd"><testsuites/>',
}


@pytest.mark.parametrize("text", HARM.values(), ids=list(HARM))
def test_a_document_type_is_refused_before_it_is_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    path.write_text(text)
    with pytest.raises(DataError, match="document type"):
        read_junit(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not XML"),
        (b"<testsuites><testsuite>", "not XML"),
        (b"{}", "not XML"),
        (b"\x00" * 100, "not XML"),
        (b'<?xml version="1.0" encoding="no-such"?><testsuites/>', "not XML"),
        (b"<html><testcase/></html>", "not JUnit"),
        (b"<testsuites>&nothing;</testsuites>", "not XML"),
        (
            b'<testsuites><testsuite><properties><property name="commit" value="a"/></properties></testsuite>'
            b'<testsuite><properties><property name="commit" value="b"/></properties></testsuite></testsuites>',
            "two values of commit",
        ),
    ],
)
def test_what_is_no_junit_file_is_named(text: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    path.write_bytes(text)
    with pytest.raises(DataError, match=says) as caught:
        read_junit(path)
    assert "tests.xml" in caught.value.message


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junit, "MOST_BYTES", 1000)
    path = tmp_path / "tests.xml"
    path.write_bytes(b"<testsuites>" + b" " * 1000 + b"</testsuites>")
    with pytest.raises(DataError, match="longer than 1000 bytes"):
        read_junit(path)
