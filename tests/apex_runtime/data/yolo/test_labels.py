"""The lines of label files: what is read, what is refused and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.findings import Fault, Findings
from apex_runtime.data.yolo import labels as yolo_labels
from apex_runtime.data.yolo.labels import ImageLabels, label_places, parse_line, read_labels


def read(folder: Path, content: bytes) -> tuple[ImageLabels, Findings]:
    (folder / "a.txt").write_bytes(content)
    return read_labels(folder / "a.txt", 3, 100, 200)


def test_boxes_and_polygons_in_one_file(tmp_path: Path) -> None:
    text = "0 0.5 0.5 0.2 0.4\r\n\n 2.0\t0.1 0.1 0.2 0.1 .2 2e-1\n1 0.5 0.5 1 1"
    labels, findings = read(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert findings == []
    assert [(item.label, item.is_box, item.line) for item in labels] == [(0, True, 1), (2, False, 3), (1, True, 4)]
    assert [item.numbers.tolist() for item in labels] == [[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.2, 0.1, 0.2, 0.2], [0.5, 0.5, 1, 1]]
    assert [item.bounds() for item in labels][2] == (0, 0, 1, 1)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_objects(tmp_path: Path, content: bytes) -> None:
    labels, findings = read(tmp_path, content)
    assert len(labels) == 0 and list(labels) == [] == findings


def test_a_missing_file_is_the_callers_to_judge(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "absent.txt", 1, 10, 10)


@pytest.mark.parametrize(
    ("text", "fault", "reason"),
    [
        ("0", Fault.MALFORMED, "1 columns"),
        ("0 .5 .5 .1 .1 .9", Fault.MALFORMED, "confidence"),
        ("0 .1 .1 .2 .2 .3 .3 .4", Fault.MALFORMED, "8 columns"),
        ("0,0.5,0.5,0.1,0.1", Fault.MALFORMED, "1 columns"),
        ("0 .5 .5 .1 a", Fault.MALFORMED, "'a'"),
        ("0 .5 .5 .1 " + "a" * 9999, Fault.MALFORMED, "could not convert"),
        ("0 320 240 30 20", Fault.MALFORMED, "320 is not a fraction of the image; are these pixels"),
        ("car .5 .5 .1 .1", Fault.UNKNOWN_CLASS, "'car' is not an integer"),
        ("1.5 .5 .5 .1 .1", Fault.UNKNOWN_CLASS, "not an integer"),
        ("nan .5 .5 .1 .1", Fault.UNKNOWN_CLASS, "not an integer"),
        ("inf .5 .5 .1 .1", Fault.UNKNOWN_CLASS, "not an integer"),
        ("3 .5 .5 .1 .1", Fault.UNKNOWN_CLASS, "not one of 0 to 2"),
        ("-1 .5 .5 .1 .1", Fault.UNKNOWN_CLASS, "not one of 0 to 2"),
        ("0 .5 inf .1 .1", Fault.INVALID_BOX, "finite"),
        ("0 .1 .1 .2 nan .3 .3", Fault.INVALID_BOX, "finite"),
        ("0 .5 .5 .1 -.1", Fault.INVALID_BOX, "height -0.1"),
        ("0 .5 .5 0 .1", Fault.INVALID_BOX, "width 0"),
        ("0 -.5 .5 .2 .2", Fault.BOX_OUTSIDE, "wholly outside"),
        ("0 .5 1.1 .2 .2", Fault.BOX_OUTSIDE, "wholly outside"),
    ],
)
def test_a_line_that_is_refused_says_why(text: str, fault: Fault, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_line(text, 3)
    assert caught.value.fault == fault and len(str(caught.value)) < 200  # type: ignore[attr-defined]


def test_faults_have_the_line_and_the_rest_is_read(tmp_path: Path) -> None:
    labels, findings = read(tmp_path, b"0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n\n0 1 .5 .5 .1\nx\n1 .5 .5 .1 .1\n")
    assert [item.line for item in labels] == [1, 4, 6]
    assert [(finding.fault, str(finding.where)) for finding in findings] == [
        (Fault.UNKNOWN_CLASS, f"{tmp_path}/a.txt:2"),
        (Fault.BOX_CLIPPED, f"{tmp_path}/a.txt:4"),
        (Fault.MALFORMED, f"{tmp_path}/a.txt:5"),
    ]
    assert "goes 50 px beyond the 200x100 image" in findings[1].message


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    labels, (finding,) = read(tmp_path, "0 .5 .5 .1 .1\n".encode("utf-16"))
    assert len(labels) == 0 and finding.fault == Fault.MALFORMED and "not UTF-8 text (byte 0)" in finding.message


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    labels, (finding,) = read_labels(tmp_path / "a.txt", 1, 10, 10)
    assert len(labels) == 0 and finding.fault == Fault.MALFORMED and "cannot be read" in finding.message


def test_files_without_end_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, findings = read(tmp_path, b"x\n" * 50_000)
    assert len(findings) == yolo_labels.MAX_FAULTS + 1 and "the rest was not read" in findings[-1].message
    monkeypatch.setattr(yolo_labels, "MAX_BYTES", 20)
    labels, (finding,) = read(tmp_path, b"0 .5 .5 .1 .1\n" * 2)
    assert len(labels) == 0 and "larger than 20 bytes" in finding.message


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80) | st.text("0123456789.- \nnaife+_", max_size=80).map(str.encode))
def test_nothing_in_a_file_ends_in_anything_but_objects_and_findings(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    labels, findings = read(tmp_path_factory.getbasetemp(), content)
    lines = content.count(b"\n") + 80
    assert len(labels) + len(findings) <= 2 * lines
    assert all(0 <= item.label < 3 and len(item.numbers) >= 4 for item in labels)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("set/images/train/a.b.jpg", ["set/labels/train/a.b.txt", "set/images/train/a.b.txt"]),
        ("images/set/images/a.png", ["images/set/labels/a.txt", "images/set/images/a.txt"]),
        ("set/train/a.png", ["set/train/a.txt"]),
        ("set/my-images/images.png", ["set/my-images/images.txt"]),
    ],
)
def test_where_labels_lie(image: str, labels: list[str]) -> None:
    assert label_places(Path(image)) == [Path(label) for label in labels]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    labels, findings = read_labels(tmp_path / "a.txt", 3, 100, 200)
    assert len(labels) == 0 and [(each.fault, each.message) for each in findings] == [
        (Fault.MALFORMED, "no file, but a pipe or a device")
    ]
