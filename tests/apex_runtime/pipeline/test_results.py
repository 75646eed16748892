"""The output folder: a journal that survives, ids that are right after a resume, files in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apex_runtime.errors import UsageError
from apex_runtime.model_info import Category
from apex_runtime.outputs.formats import ANNOTATED, relative_path
from apex_runtime.pipeline.results import (
    Failure,
    OutputFolder,
    annotation_id,
    read_journal,
    write_json,
)

SETTINGS = {"budget": "0.25", "min_score": 0.001}
CATEGORIES = (Category(id=7, name="cell"),)


def line(image_id: int, name: str, detections: int) -> dict[str, Any]:
    found = [
        {"id": annotation_id(image_id, rank), "image_id": image_id, "category_id": 7, "score": 0.5} for rank in range(detections)
    ]
    return {"id": image_id, "file_name": name, "width": 4, "height": 3, "annotations": found}


def folder(path: Path) -> OutputFolder:
    return OutputFolder(path, CATEGORIES)


def interrupted_run(path: Path, names: list[str]) -> None:
    """A run over ``names`` that was killed after its journal was written."""
    out = folder(path)
    out.start({name: number for number, name in enumerate(names, 1)}, SETTINGS, resume=False)
    for number, name in enumerate(names, 1):
        out.add(line(number, name, number))


def test_the_coco_file_is_in_the_order_of_ids_whatever_the_order_of_work(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.start({"a": 1, "b": 2, "c": 3}, SETTINGS, resume=False)
    for number, name in ((3, "c"), (1, "a"), (2, "b")):
        out.add(line(number, name, 2))
    out.failures.append(Failure("z", "broken", "mend it", "image"))
    out.failures.append(Failure("y", "broken", "mend it", "image"))
    out.finish({"status": "done"})
    value = json.loads((tmp_path / "results.json").read_text())
    assert [image["file_name"] for image in value["images"]] == ["a", "b", "c"]
    assert "annotations" not in value["images"][0]
    assert [item["image_id"] for item in value["annotations"]] == [1, 1, 2, 2, 3, 3]
    assert len({item["id"] for item in value["annotations"]}) == 6
    assert value["categories"] == [{"id": 7, "name": "cell"}]
    assert [item["file_name"] for item in json.loads((tmp_path / "failures.json").read_text())] == ["y", "z"]


def test_names_that_look_like_the_journal_and_images_without_detections(tmp_path: Path) -> None:
    """results.json is made of the text of the journal."""
    out, names = folder(tmp_path), ['a,"annotations":[', "]}", 'b\\","annotations":[{', "c"]
    out.start({name: number for number, name in enumerate(names, 1)}, SETTINGS, resume=False)
    for number, name in enumerate(names, 1):
        record = line(number, name, number % 3)
        out.add({"annotations": record["annotations"]} | record | {"after": {"x": [1]}})  # not in the last place
    out.finish({"status": "done"})
    value = json.loads((tmp_path / "results.json").read_text())
    assert [(image["file_name"], image["after"]) for image in value["images"]] == [(name, {"x": [1]}) for name in names]
    assert [item["image_id"] for item in value["annotations"]] == [1, 2, 2, 4]


def test_an_empty_run_still_writes_every_file(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.start({"a": 1}, SETTINGS, resume=False)
    out.finish({"status": "done"})
    assert json.loads((tmp_path / "results.json").read_text())["images"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failures.json", "results.json", "results.jsonl", "summary.json"]


def test_every_line_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    interrupted_run(tmp_path, ["a", "b"])
    assert [record["file_name"] for record in read_journal(tmp_path / "results.jsonl")] == ["a", "b"]
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "running"


@pytest.mark.parametrize(
    "tail", [b'{"id": 3, "file_na', b"\x00\x00\x00", b"\n", b'{"id": 3}\n', b"[]\n", b'{"id":3,"file_name":"c","annotations":[]}']
)
def test_resume_keeps_whole_lines_only(tmp_path: Path, tail: bytes) -> None:
    interrupted_run(tmp_path, ["a", "b"])
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(tail)
    out = folder(tmp_path)
    assert out.start({"a": 1, "b": 2, "c": 3}, SETTINGS, resume=True) == {"a", "b"}
    out.add(line(3, "c", 1))
    out.finish({})
    assert [image["file_name"] for image in json.loads((tmp_path / "results.json").read_text())["images"]] == ["a", "b", "c"]


def test_resume_renumbers_when_images_came_or_went(tmp_path: Path) -> None:
    interrupted_run(tmp_path, ["b", "c", "gone"])
    out = folder(tmp_path)
    assert out.start({"a": 1, "b": 2, "c": 3}, SETTINGS, resume=True) == {"b", "c"}
    out.add(line(1, "a", 3))
    out.finish({})
    value = json.loads((tmp_path / "results.json").read_text())
    assert [(image["id"], image["file_name"]) for image in value["images"]] == [(1, "a"), (2, "b"), (3, "c")]
    counts = {number: sum(item["image_id"] == number for item in value["annotations"]) for number in (1, 2, 3)}
    assert counts == {1: 3, 2: 1, 3: 2}
    assert len({item["id"] for item in value["annotations"]}) == 6


def test_resume_with_other_settings_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    interrupted_run(tmp_path, ["a"])
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"budget '0\.25', this one has '1\.0'"):
        folder(tmp_path).start({"a": 1}, SETTINGS | {"budget": "1.0"}, resume=True)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UsageError, match="cannot tell"):
        folder(tmp_path).start({"a": 1}, SETTINGS, resume=True)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_resume_of_nothing_is_a_start(tmp_path: Path) -> None:
    assert folder(tmp_path / "new").start({"a": 1}, SETTINGS, resume=True) == set()


def test_a_new_run_removes_the_older_ones_pictures_and_nothing_else(tmp_path: Path) -> None:
    interrupted_run(tmp_path, ["a", "sub/b"])
    for name in ("a", "sub/b", "mine"):
        path = tmp_path / relative_path(ANNOTATED, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
    (tmp_path / "notes.txt").write_text("mine")
    write_json(tmp_path / "summary.json", {"status": "done", "settings": SETTINGS})
    folder(tmp_path).start({"c": 1}, SETTINGS, resume=False)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"annotated/mine.png", "notes.txt", "results.jsonl", "summary.json"}


RECORD = '{"id": 1, "file_name": "a", "annotations": []}\n'


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"results.json": "{}"},
        {"failures.json": "[]"},
        {"summary.json": '{"accuracy": 0.9}'},
        {"summary.json": '{"status": "done"}', "results.json": "{}"},
        {"summary.json": "[1"},
        {"results.jsonl": RECORD.replace('"a"', "5")},
        {"results.jsonl": RECORD.replace('"a"', "5"), "summary.json": '{"status": "done", "settings": {}}'},
        {"results.jsonl": RECORD},
        {"annotated/a.png": "mine"},
    ],
)
def test_somebody_elses_files_are_not_touched(tmp_path: Path, files: dict[str, str], resume: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="cannot"):
        folder(tmp_path).start({"a": 1}, SETTINGS, resume=resume)
    left = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == files


@pytest.mark.parametrize("status", ["running", "interrupted", "done"])
def test_an_unfinished_run_is_not_replaced_and_a_finished_one_is(tmp_path: Path, status: str) -> None:
    interrupted_run(tmp_path, ["a"])
    write_json(tmp_path / "summary.json", {"status": status, "settings": SETTINGS})
    if status == "done":
        assert folder(tmp_path).start({"a": 1}, SETTINGS, resume=False) == set()
        return
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="--resume"):
        folder(tmp_path).start({"a": 1}, SETTINGS, resume=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("journal", ["", '{"id": 1, "file_na'])
def test_a_run_killed_before_its_first_image_can_be_resumed(tmp_path: Path, journal: str) -> None:
    interrupted_run(tmp_path, [])
    (tmp_path / "results.jsonl").write_text(journal)
    assert folder(tmp_path).start({"a": 1}, SETTINGS, resume=True) == set()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.png", "annotated/a.png.png"),
        ("x/a.tif", "annotated/x/a.tif.png"),
        ("../../etc/a.png", "annotated/_/_/etc/a.png.png"),
        ("/a", "annotated/_/a.png"),
    ],
)
def test_pictures_stay_in_the_output_folder(name: str, wanted: str) -> None:
    assert relative_path(ANNOTATED, name) == wanted


def test_json_is_written_in_one_step_and_never_with_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
