from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.data.findings import Fault
from apex_runtime.data.satellite.box_files import is_box_table, is_voc, read_box_table, read_voc

OBJECT = (
    "<object><name>{name}</name>{extra}<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def voc(tmp_path: Path, objects: str, head: str = "") -> Path:
    path = tmp_path / "a.xml"
    size = "<size><width>40</width><height>30</height></size>"
    path.write_text(f"{head}<annotation><filename>a.png</filename>{size}{objects}</annotation>")
    return path


def test_boxes_of_a_voc_file(tmp_path: Path) -> None:
    objects = OBJECT.format(1, 2, 11, 12, name="oak", extra="") + OBJECT.format(
        3, 4.5, 5, 6, name="elm", extra="<difficult>1</difficult>"
    )
    found = read_voc(voc(tmp_path, objects))
    assert [(box.box, box.name, box.ignore) for box in found.boxes] == [
        ((1.0, 2.0, 11.0, 12.0), "oak", False),
        ((3.0, 4.5, 5.0, 6.0), "elm", True),
    ]
    assert (found.file_name, found.size, found.faults) == ("a.png", (40, 30), ())


def test_faulty_objects_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    objects = "".join(
        [
            OBJECT.format(1, 2, 11, 12, name="oak", extra=""),
            OBJECT.format(9, 2, 3, 12, name="oak", extra=""),
            OBJECT.format("nan", 2, 3, 12, name="oak", extra=""),
            OBJECT.format("one", 2, 3, 12, name="oak", extra=""),
            OBJECT.format(1, 2, 3, 12, name="", extra=""),
        ]
    )
    found = read_voc(voc(tmp_path, objects))
    assert len(found.boxes) == 1
    assert [fault.fault for fault in found.faults] == [Fault.INVALID_BOX, Fault.INVALID_BOX, Fault.MALFORMED, Fault.MALFORMED]
    assert [fault.message.split(":")[0] for fault in found.faults] == ["object 2", "object 3", "object 4", "object 5"]
    assert [each.line for each in (*found.boxes, *found.faults)] == [1] * 5


def test_objects_know_their_lines(tmp_path: Path) -> None:
    good, bad = (OBJECT.format(1, 2, right, 12, name="oak", extra="\n<part><object>inner</object></part>") for right in (11, 0))
    found = read_voc(voc(tmp_path, f"\n<!-- <object> -->\n{good}\n\n{bad}\n", '<?xml version="1.0" encoding="windows-1252"?>\n'))
    assert [box.line for box in found.boxes] == [4] and [fault.line for fault in found.faults] == [7]


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]>',
        '<!doctype a SYSTEM "file:///etc/passwd">',
        '<?xml version="1.0"?><! ENTITY x "y">',
    ],
)
def test_document_types_and_entities_are_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(ValueError, match="document type or entities"):
        read_voc(voc(tmp_path, "", head))


def test_entities_hidden_by_an_encoding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes('<!DOCTYPE a [<!ENTITY x "y">]><annotation/>'.encode("utf-16"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_voc(path)


def test_what_is_no_voc_file(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotation><object>")
    with pytest.raises(ValueError, match="not valid XML"):
        read_voc(path)
    path.write_text("<PAMDataset/>")
    assert not is_voc(path)
    with pytest.raises(ValueError, match="PAMDataset"):
        read_voc(path)
    path.write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(ValueError, match="not valid XML"):
        read_voc(path)


def test_boxes_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("label,image_path,xmin,ymin,xmax,ymax,score\noak,b/a.png,1,2,3,4,1\nelm,c.png,5,6,7,8,1\n,empty.png,,,,,\n")
    assert is_box_table(path)
    table = read_box_table(path)
    assert table.lines == {"b/a.png": 2, "c.png": 3, "empty.png": 4}
    assert {name: [(box.box, box.name, box.line) for box in boxes] for name, boxes in table.boxes.items()} == {
        "b/a.png": [((1.0, 2.0, 3.0, 4.0), "oak", 2)],
        "c.png": [((5.0, 6.0, 7.0, 8.0), "elm", 3)],
        "empty.png": [],
    }


def test_faulty_rows_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    rows = [
        "a.png,1,2,3,4,oak",
        "a.png,3,2,1,4,oak",
        "../a.png,1,2,3,4,oak",
        "a.png,1,2,3,4,",
        "a.png,1,2,3",
        ".,1,2,3,4,oak",
        "./,1,2,3,4,oak",
    ]
    path.write_text("image_path,xmin,ymin,xmax,ymax,label\n" + "\n".join(rows))
    table = read_box_table(path)
    assert len(table.boxes["a.png"]) == 1
    assert [(fault.line, fault.fault) for fault in table.faults] == [
        (3, Fault.INVALID_BOX),
        (4, Fault.MALFORMED),
        (5, Fault.MALFORMED),
        (6, Fault.MALFORMED),
        (7, Fault.MALFORMED),
        (8, Fault.MALFORMED),
    ]


@pytest.mark.parametrize("body", ["x" * 200_000, "a.png,1,2,3,4,\xff"])
def test_tables_that_cannot_be_read_are_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(f"image_path,xmin,ymin,xmax,ymax,label\n{body}\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"CSV|decode"):
        read_box_table(path)


def test_spaces_around_names_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("image_path , xmin, ymin, xmax, ymax, label\na.png, 1, 2, 3, 4, oak \n")
    assert is_box_table(path) and read_box_table(path).boxes["a.png"][0].name == "oak"


def test_other_tables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss\n1,2\n")
    assert not is_box_table(path)
    with pytest.raises(ValueError, match="no header"):
        read_box_table(path)
