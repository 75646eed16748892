"""A checkout that may be released, for tests to take something away from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from release_checkout import Made, releasable

from apex_runtime.release.row import Row


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout that copies are made of."""
    return releasable(tmp_path_factory.mktemp("release") / "checkout").root


@pytest.fixture
def made(released: Path, tmp_path: Path) -> Made:
    return Made(Path(shutil.copytree(released, tmp_path / "checkout")))


@pytest.fixture
def only(made: Made) -> Callable[[str, str], Row]:
    """``only("tests", "fail")``: that row has that status, and all others pass."""

    def check(name: str, status: str) -> Row:
        rows = made.rows()
        assert {row.name: row.status for row in rows.values()} == dict.fromkeys(rows, "pass") | {name: status}, rows
        return rows[name]

    return check
