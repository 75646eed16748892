"""What takes the row "parity" away: comparisons that fail, and sweeps of something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from release_checkout import Made, sweep

from apex_runtime.parity.report import SCHEMA_VERSION
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.parity_row import PARITY as FILE
from apex_runtime.release.parity_row import parity_row
from apex_runtime.release.row import Row

Only = Callable[[str, str], Row]


def comparisons(*verdicts: str) -> list[dict[str, Any]]:
    return [{"candidate": {"path": f"c{number}"}, "verdict": verdict} for number, verdict in enumerate(verdicts)]


PARITY = {
    "a comparison fails": ({"comparisons": comparisons("pass", "fail")}, "fail", "1 of 2"),
    "the verdict fails": ({"verdict": "fail"}, "fail", "verdict fail"),
    "no comparison": ({"comparisons": []}, "fail", "comparisons"),
    "another engine": ({"reference": {"sha256": "0" * 64}}, "not run", "000000000000"),
    "another version": ({"schema_version": SCHEMA_VERSION - 1}, "not run", "version"),
    "no hash": ({"reference": {}}, "fail", "sha256"),
}


@pytest.mark.parametrize(("fields", "status", "says"), PARITY.values(), ids=list(PARITY))
def test_parity(fields: dict[str, Any], status: str, says: str, made: Made, only: Only) -> None:
    made.json("bench/evidence/parity-sweep.json", sweep(made.git("rev-parse", "HEAD"), **fields))
    made.commit()
    made.results()
    made.regression()
    assert says in only("parity", status).reason


def test_parity_of_an_engine_that_was_exchanged(made: Made) -> None:
    made.write("engines/nuclei-nano/model.onnx", b"a better engine")
    made.commit()
    made.results()
    made.regression()
    rows = made.rows()
    assert {name for name, row in rows.items() if row.status == "not run"} == {"parity", "regression"}


def test_the_parity_of_this_project_is_understood(repo_root: Path) -> None:
    """The file that is kept has the form that the row reads, and the row says what the file does."""
    written = json.loads((repo_root / FILE).read_text())
    row = parity_row(Checkout(repo_root))
    digest = hashlib.sha256((repo_root / "engines" / "nuclei-nano" / "model.onnx").read_bytes()).hexdigest()
    if written["parity"]["reference"]["sha256"] != digest:
        assert row.status == "not run"
    else:
        assert row.status == written["parity"]["verdict"]
        assert f"{len(written['parity']['comparisons'])} comparisons" in row.reason
