"""Looks that are kept: what comes back is what was put there, and what cannot be one is looked at again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apex_train.mining.kept import KeptLooks
from apex_train.mining.look import Fared, Hard

LOOK = Fared(3, 4.5, None, 0.25, (Hard("missed", 0.75, 2, (1.0, 2.0, 30.5, 40.0)), Hard("false", 0.5, -1, (0.0, 0.0, 9.0, 9.0))))


def test_a_look_comes_back_at_the_place_where_the_image_now_is(tmp_path: Path) -> None:
    kept = KeptLooks(tmp_path, {"model": "a"})
    kept.add("x.png", LOOK)
    assert kept.find("x.png", 7) == replace(LOOK, place=7)
    assert kept.find("y.png", 3) is None and KeptLooks(tmp_path, {"model": "b"}).find("x.png", 3) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"loss": "hard"},
        {"loss": float("nan")},
        {"regret": float("inf")},
        {"loss": None},
        {"instances": [{"kind": "other", "difficulty": 0.5, "annotation": 1, "box": [0, 0, 1, 1]}]},
        {"instances": [{"kind": "loose", "difficulty": 0.5, "annotation": 1, "box": [0, 0, 1]}]},
    ],
)
def test_a_file_that_cannot_be_one_is_none(tmp_path: Path, damage: dict[str, Any]) -> None:
    kept = KeptLooks(tmp_path, {})
    kept.add("x.png", LOOK)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    assert kept.find("x.png", 3) is None
    file.write_text(file.read_text()[:30])
    assert kept.find("x.png", 3) is None
