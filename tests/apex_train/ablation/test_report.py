"""What a study leaves behind: the document, the picture, the table, the entry of a log, and a journal that can be believed."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from rich.console import Console

from apex_runtime.errors import ApexError, DataError, UsageError
from apex_train.ablation.analysis import compare
from apex_train.ablation.journal import Entry, Journal
from apex_train.ablation.picture import png
from apex_train.ablation.plan import arms
from apex_train.ablation.report import add_to_log, document, log_entry
from apex_train.ablation.study import Study
from apex_train.ablation.table import comparison_table

ABOUT = {"code": {"commit": "1" * 40, "dirty": False}, "data_sha256": "a" * 64}
# of level b, harmful, and of level c, nothing, for seven seeds
LOWER = [-0.031, -0.028, -0.035, -0.027, -0.03, -0.029, -0.033]
MIXED = [0.01, -0.012, 0.004, -0.003, 0.006, -0.008, 0.002]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    levels = [{"name": "a"}, {"name": "b", "set": {"loss.cls": 0}}, {"name": "c", "set": {"loss.cls": 1}}]
    factor = {"name": "class [loss]", "levels": levels}
    study = Study(name="classes", data=Path("sets/nuclei"), epochs=3, seeds=(*range(7),), factors=(factor,))  # type: ignore[arg-type]
    entries = {}
    for (level,) in arms(study):
        for seed in study.seeds:
            shift = {"a": 0.0, "b": LOWER[seed], "c": MIXED[seed]}[level.name]
            entries[(level.name,), seed] = an_entry(value=0.4 + 0.01 * seed + shift)
    return document(study, entries, compare(study, {place: entry.value for place, entry in entries.items()}), ABOUT)


def an_entry(key: str = "k1", value: float = 0.25) -> Entry:
    return Entry(key=key, metric="mAP_segm", value=value, training_seconds=3.5, commit=None)


def test_the_document_is_its_schema(report: dict[str, Any], repo_root: Path) -> None:
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "ablation.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), schema)
    assert [each["verdict"] for each in report["comparisons"]] == ["harmful", "no difference shown"]
    assert report["comparisons"][0]["difference"] == pytest.approx(sum(LOWER) / 7)
    assert report["study"]["data"] == "nuclei"  # no folder of a machine
    assert report["cells"][0] == {"levels": ["a"], "seed": 0, "value": 0.4, "training_seconds": 3.5, "commit": None}
    for broken in (report | {"more": 1}, {key: value for key, value in report.items() if key != "cells"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_the_table_shows_every_comparison(report: dict[str, Any]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=150).print(comparison_table(report))
    text = stream.getvalue()
    assert "class [loss]" in text and "harmful" in text and "no difference shown" in text
    assert "-3.04" in text and "43.00" in text and "39.96" in text and "commits" not in text
    of_two = report | {"cells": [*report["cells"][1:], report["cells"][0] | {"commit": "2" * 40}]}
    assert "the cells are of 2 commits" in str(comparison_table(of_two).caption)


def test_the_picture_is_a_png_that_grows_with_the_comparisons(report: dict[str, Any]) -> None:
    def height(data: bytes) -> int:
        assert data.startswith(b"\x89PNG")
        return int.from_bytes(data[20:24], "big")

    assert height(png(report)) > height(png(report | {"comparisons": report["comparisons"][:1]})) > 100


def test_a_long_name_is_not_cut_off_at_the_edge_of_the_picture(report: dict[str, Any]) -> None:
    named = report | {"study": report["study"] | {"name": "mask losses, " * 12}}
    image = cv2.imdecode(np.frombuffer(png(named), np.uint8), cv2.IMREAD_COLOR)
    assert (image[:60, -4:] == 255).all() and (image[:60] < 128).any()


def test_an_interval_without_ends_is_null_and_a_question_mark(report: dict[str, Any]) -> None:
    open_ended = report["comparisons"][0] | {"interval": [None, None]}
    changed = report | {"comparisons": [open_ended]}
    assert png(changed).startswith(b"\x89PNG")
    assert "(? to ?)" in log_entry(changed, "apex-train ablate s.yaml", date(2026, 1, 2))


def test_the_newest_entry_of_a_log_comes_first_and_once(report: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "LOG.md"
    log.write_text("# What was tried\n\nNewest first.\n\n## 2025-01-01: old\n\n* it.\n")
    entry = log_entry(report, "apex-train ablate study.yaml", date(2026, 1, 2))
    assert "**class [loss] b** against a: harmful, -3.04 (" in entry
    add_to_log(log, entry)
    add_to_log(log, entry)
    add_to_log(log, log_entry(report, "apex-train ablate study.yaml", date(2026, 1, 3)))
    text = log.read_text()
    assert text.count("## 2026-01-02: classes (ablation)") == 1 == text.count("(ablation)")
    assert text.index("Newest first.") < text.index("2026-01-02") < text.index("## 2025-01-01: old")
    assert text.endswith("\n\n## 2025-01-01: old\n\n* it.\n")
    with pytest.raises(UsageError, match="no such file"):
        add_to_log(tmp_path / "none.md", entry)


def test_the_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    entry = an_entry()
    assert journal.find("k1") is None
    journal.add(entry)
    assert Journal(tmp_path).find("k1") == entry
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["k1.json"]


@pytest.mark.parametrize("damage", [lambda text: text[:20], lambda text: text.replace("k1", "k2"), lambda text: "{}"])
def test_an_entry_that_cannot_be_believed_is_named(tmp_path: Path, damage: Any) -> None:
    journal = Journal(tmp_path)
    journal.add(an_entry())
    path = tmp_path / "cells" / "k1.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=r"k1\.json") as refused:
        journal.find("k1")
    assert isinstance(refused.value, ApexError) and "Remove the file" in refused.value.remedy
