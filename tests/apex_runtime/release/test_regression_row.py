"""What takes the row "regression" away: a regression, and answers about something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from release_checkout import Made

from apex_runtime.release.row import Row

Only = Callable[[str, str], Row]


REGRESSION = {
    "a regression": ({"verdict": "fail", "reasons": ["graph@1.0: slower"]}, "fail", "regression"),
    "another form": ({"format_version": 2}, "fail", "format_version"),
    "uncommitted": ({"code": {"commit": "HEAD", "dirty": True}}, "not run", "everything committed"),
    "perhaps uncommitted": ({"code": {"commit": "HEAD", "dirty": None}}, "not run", "everything committed"),
    "another verdict": ({"verdict": "maybe"}, "fail", "verdict"),
    "another engine": ({"engine": {"model_sha256": "0" * 64}}, "not run", "000000000000"),
    "another commit": ({"code": {"commit": "0" * 40, "dirty": False}}, "not run", "of commit 000000000000"),
    "no commit": ({"code": {"commit": None, "dirty": None}}, "not run", "does not say"),
    "no engine": ({"engine": None}, "fail", "engine"),
    "a number that is none": ({"verdict": float("nan")}, "fail", "verdict"),
}


@pytest.mark.parametrize(("fields", "status", "says"), REGRESSION.values(), ids=list(REGRESSION))
def test_regression(fields: dict[str, Any], status: str, says: str, made: Made, only: Only) -> None:
    if fields.get("code", {}).get("commit") == "HEAD":
        fields = {"code": fields["code"] | {"commit": made.git("rev-parse", "HEAD")}}
    made.regression(**fields)
    row = only("regression", status)
    assert says in row.reason and row.details == tuple(fields.get("reasons", ()))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"verdict": "pass"'])
def test_an_answer_that_is_none(text: str, made: Made, only: Only) -> None:
    made.write("release/regression.json", text)
    assert "regression.json" in only("regression", "fail").reason


def test_no_answer(made: Made, only: Only) -> None:
    (made.root / "release" / "regression.json").unlink()
    assert only("regression", "not run").reason == "regression.json is missing"
