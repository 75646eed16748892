"""The contact sheet: which pictures are chosen, and that what is drawn lies where the objects are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from apex_train.cli.main import main
from apex_train.preflight.sheet import CELL, choose, class_colour
from apex_train.preflight.walk import Shown

NO_DATA: Any = None  # choosing looks at no pixel


def images(*rows: tuple[bool, int]) -> list[Shown]:
    return [Shown(NO_DATA, place, flagged, objects) for place, (flagged, objects) in enumerate(rows)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=40), st.integers(1, 20))
def test_as_many_as_there_are_each_once_and_in_order(rows: list[tuple[bool, int]], count: int) -> None:
    places = [image.place for image in choose(images(*rows), count)]
    assert places == sorted(set(places)) and len(places) == min(count, len(rows))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=40), st.integers(2, 20))
def test_findings_get_half_and_pictures_without_objects_come_last(rows: list[tuple[bool, int]], count: int) -> None:
    chosen = choose(images(*rows), count)
    flagged = sum(flag for flag, _ in rows)
    assert sum(image.flagged for image in chosen) >= min(flagged, count // 2)
    plain_empty = [image for image in chosen if not image.flagged and not image.objects]
    left_out = {place for place in range(len(rows))} - {image.place for image in chosen}
    assert not plain_empty or not [place for place in left_out if rows[place][1] > 0]


def test_the_choice_is_spread_over_the_set() -> None:
    places = [image.place for image in choose(images(*[(False, 1)] * 100), 4)]
    assert places == [12, 37, 62, 87]


@pytest.mark.parametrize("classes", [1, 2, 5, 12, 13, 80])
def test_every_class_has_its_own_colour(classes: int) -> None:
    assert len({class_colour(label, classes) for label in range(classes)}) == classes


def one_image(root: Path, width: int, height: int, **annotation: Any) -> Path:
    """A black image with one object."""
    (root / "images").mkdir(parents=True)
    cv2.imwrite(str(root / "images" / "a.png"), np.zeros((height, width, 3), np.uint8))
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **annotation}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(document))
    return root


def draw(data: Path, output: Path, count: int = 1) -> np.ndarray:
    result = CliRunner().invoke(main, ["preflight", str(data), "--draw", str(count), "--output", str(output)])
    assert str(output) in result.stderr, result.output
    return cv2.imread(str(output))[:, :, ::-1]


@pytest.mark.parametrize("factor", [0.25, 1, 4])
def test_a_mask_is_filled_where_the_object_is(factor: float, tmp_path: Path) -> None:
    """The object covers the right lower quarter; its colour (half covering black) must end where that ends."""
    side = round(CELL * factor)
    half = side / 2
    square = [half, half, side, half, side, side, half, side]
    data = one_image(tmp_path / "set", side, side, bbox=[half, half, half, half], segmentation=[square])
    sheet = draw(data, tmp_path / "sheet.png")[8 : 8 + CELL, 8 : 8 + CELL]
    red = sheet[:, :, 0] > 60
    middle = CELL // 2
    assert red[middle + 4 : -4, middle + 4 : -4].mean() > 0.99
    red[middle - 30 :, middle - 3 :] = False  # the object with its outline, and the name of its class above
    assert not red.any()


def test_a_box_without_a_mask_is_an_outline(tmp_path: Path) -> None:
    data = one_image(tmp_path / "set", CELL, CELL, bbox=[100, 100, 200, 200], segmentation=[])
    sheet = draw(data, tmp_path / "sheet.png")[8 : 8 + CELL, 8 : 8 + CELL]
    assert (sheet[100, 150:299, 0] > 200).all() and (sheet[299, 101:299, 0] > 200).all()
    assert sheet[102:298, 102:298].max() == 0


def test_crowds_are_grey(tmp_path: Path) -> None:
    square = [100, 100, 300, 100, 300, 300, 100, 300]
    data = one_image(tmp_path / "set", CELL, CELL, bbox=[100, 100, 200, 200], segmentation=[square], iscrowd=1)
    inside = draw(data, tmp_path / "sheet.png")[8 : 8 + CELL, 8 : 8 + CELL][105:295, 105:295]
    assert (inside.max(axis=2) == inside.min(axis=2)).all()
    hatched = (inside[:, :, 0] > 0).mean()
    assert 0.2 < hatched < 0.6


def test_a_picture_that_cannot_be_read_has_its_cell(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = tmp_path / "set"
    shutil.copytree(nuclei_fixture, data)
    for file in sorted((data / "images").iterdir())[:2]:
        file.write_bytes(b"no picture")
    sheet = draw(data, tmp_path / "sub" / "sheet.png", 8)
    assert sheet.shape[1] == 3 * (CELL + 8) + 8


def test_nothing_is_written_without_draw(nuclei_fixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["preflight", str(nuclei_fixture)]).exit_code == 0
    assert not list(tmp_path.iterdir())
    assert CliRunner().invoke(main, ["preflight", str(nuclei_fixture), "--draw", "3"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["preflight.png"]
