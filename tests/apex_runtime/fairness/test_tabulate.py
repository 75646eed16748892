"""Rows stand in one table exactly when their contracts are equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contracts import made_contract

from apex_runtime.errors import DataError, UsageError
from apex_runtime.fairness.contract import Contract
from apex_runtime.fairness.rows import Row, read_reports
from apex_runtime.fairness.tabulate import check_across, tables


def bench_report(contract: Contract, batches: tuple[int, ...] = (1,), **changed: Any) -> dict[str, Any]:
    head = contract.model_copy(update={"batch": None})
    rows = [
        {
            "budget": "0.25",
            "batch": batch,
            "graph": {"median": 10.0 * batch},
            "end_to_end": {"median": 20.0 * batch, "images_per_second": 50.0},
            "contract_sha256": contract.model_copy(update={"batch": batch}).sha256(),
        }
        for batch in batches
    ]
    return {"fairness": head.model_dump(mode="json"), "rows": rows} | changed


def read_rows(path: Path) -> list[Row]:
    return read_reports([path])


def eval_report(contract: Contract, figures: dict[str, float]) -> dict[str, Any]:
    times = {name: {"median": 5.0} for name in ("graph_milliseconds", "image_milliseconds")}
    return {"fairness": contract.model_dump(mode="json"), "budgets": [{"budget": "1.0", "figures": figures, **times}]}


@pytest.fixture
def written(tmp_path: Path):
    def write(name: str, report: Any) -> Path:
        path = tmp_path / name
        path.write_text(report if isinstance(report, str) else json.dumps(report))
        return path

    return write


def test_equal_contracts_share_a_table_and_others_do_not(written) -> None:
    first = read_rows(written("a.json", bench_report(made_contract(), (1, 4))))
    second = read_rows(written("b.json", bench_report(made_contract(), (4,))))
    third = read_rows(written("c.json", bench_report(made_contract(precision="int8"))))
    made = tables([*first, *second, *third])
    assert [[(row.source, row.contract.batch) for row in table.rows] for table in made] == [
        [("a.json", 1)],
        [("a.json", 4), ("b.json", 4)],
        [("c.json", 1)],
    ]
    assert len(tables([*first, *second, *third], across=["batch", "precision"])) == 1
    assert first[1].figures == {"graph ms": 40.0, "end to end ms": 80.0, "images/s": 50.0}


def test_figures_of_eval_are_percent_and_what_is_not_measured_is_none(written) -> None:
    (row,) = read_rows(written("e.json", eval_report(made_contract(), {"mAP_segm": 0.5, "AP50_segm": -1.0, "APs_segm": 0.3})))
    assert row.figures == {"segm AP": 50.0, "segm AP50": None, "graph ms": 5.0, "image ms": 5.0}


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"rows": []}, "it lacks 'fairness'"),
        (bench_report(made_contract(), ()), "without rows"),
        (bench_report(made_contract(), fairness={"data": 1}), "damaged"),
        (bench_report(made_contract(), rows=[1]), "damaged"),
        (bench_report(made_contract(), rows=None), "damaged"),
        (bench_report(made_contract(), fairness=made_contract(threads=8).model_dump(mode="json")), "is not the one it names"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_report_is_refused(written, report: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_rows(written("r.json", report))


def test_a_figure_must_be_a_number(written) -> None:
    report = bench_report(made_contract())
    report["rows"][0]["graph"]["median"] = "fast"
    with pytest.raises(DataError, match="not a number"):
        read_rows(written("r.json", report))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "true", '"9"'])
def test_a_figure_is_finite(written, number: str) -> None:
    text = json.dumps(bench_report(made_contract())).replace("10.0", number)
    assert number in text
    with pytest.raises(DataError, match="damaged"):
        read_rows(written("r.json", text))


def test_a_budget_is_text(written) -> None:
    report = bench_report(made_contract())
    report["rows"][0]["budget"] = ["0.25"]
    with pytest.raises(DataError, match="is not text"):
        read_rows(written("r.json", report))


def test_the_second_engine_of_a_report_has_rows_too(written) -> None:
    other = bench_report(made_contract(precision="int8"))
    first, second = read_rows(written("r.json", bench_report(made_contract(), against=other)))
    assert (first.source, second.source) == ("r.json", "r.json, against")
    assert (first.contract.precision, second.contract.precision) == ("fp32", "int8")


def test_reports_of_one_name_are_told_apart(written, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(f"{folder}/r.json", bench_report(made_contract()))
    rows = read_reports([tmp_path / "a" / "r.json", tmp_path / "b" / "r.json"])
    assert [row.source for row in rows] == ["a/r.json", "b/r.json"]


def test_a_field_must_exist(tmp_path: Path) -> None:
    rows = [Row("a", "1", made_contract(), {})]
    check_across(["precision", "versions.numpy", "hardware", "hardware.processor"], rows)
    for field in ("speed", "versions.numpi"):
        with pytest.raises(UsageError, match="no such field"):
            check_across([field], rows)
    with pytest.raises(UsageError, match="no such report"):
        read_rows(tmp_path / "nothing.json")
