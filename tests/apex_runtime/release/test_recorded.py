"""What tests/conftest.py writes into a JUnit file, by real runs of pytest in a checkout of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from release_checkout import Made, releasable

from apex_runtime.release.junit import TestResults, read_junit

SUITE = """
import pytest

@pytest.mark.parametrize("page", ["page"])
def test_the_commands_of_a_document_run(page):
    pass

@pytest.mark.slow
def test_slow():
    pass
"""
SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "--import-mode=importlib -m 'not slow' --dist loadscope"
markers = ["slow: minutes"]
"""


@pytest.fixture
def suite(tmp_path: Path, repo_root: Path) -> Made:
    made = releasable(tmp_path / "checkout")
    shutil.copy(repo_root / "tests" / "conftest.py", made.write("tests/conftest.py", ""))
    made.write("tests/test_docs.py", SUITE)
    made.write("pyproject.toml", (made.root / "pyproject.toml").read_text() + SETTINGS)
    made.commit()
    made.regression()
    return made


def run(made: Made, repo_root: Path, *words: str, **environment: str) -> TestResults:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "APEX_"))}
    variables |= {"PYTHONPATH": str(repo_root), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=release/tests.xml", *words]
    ran = subprocess.run(command, cwd=made.root, env=variables, capture_output=True, text=True, timeout=120)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return read_junit(made.root / "release" / "tests.xml")


@pytest.mark.parametrize("words", [("-n", "0"), ("-n", "2", "-m", "slow or not slow")], ids=["alone", "two"])
def test_a_whole_run_may_be_released(words: tuple[str, ...], suite: Made, repo_root: Path) -> None:
    found = run(suite, repo_root, *words)
    commit = suite.git("rev-parse", "HEAD")
    assert found.properties == {"commit": commit, "changed_files": "0", "whole_suite": "yes", "exit_status": "0"}
    assert len(found.cases) == (2 if "-m" in words else 1)
    assert {row.status for row in suite.rows().values()} == {"pass"}, suite.rows()


@pytest.mark.parametrize("words", [("tests/test_docs.py",), ("-k", "commands"), ("-m", "slow")], ids=["path", "keyword", "mark"])
def test_a_part_is_not_the_whole(words: tuple[str, ...], suite: Made, repo_root: Path) -> None:
    assert run(suite, repo_root, "-n", "0", *words).properties["whole_suite"] == "no"


def test_changes_and_failures_are_recorded(suite: Made, repo_root: Path) -> None:
    suite.write("tests/test_docs.py", SUITE.replace("pass", "assert 0", 1))
    found = run(suite, repo_root, "-n", "2")
    assert found.properties["changed_files"] == "1" and found.properties["exit_status"] == "1"
    suite.commit()
    run(suite, repo_root, "-n", "0")
    assert suite.rows()["tests"].status == "fail"


def test_too_many_skips_are_a_failure_that_is_recorded(suite: Made, repo_root: Path) -> None:
    suite.write("tests/test_docs.py", SUITE + "\n@pytest.mark.skip\ndef test_left_out():\n    pass\n")
    suite.commit()
    assert run(suite, repo_root, "-n", "0").properties["exit_status"] == "1"


def test_a_copy_without_git_is_of_the_commit_that_it_is_told(suite: Made, repo_root: Path) -> None:
    commit = suite.git("rev-parse", "HEAD")
    (suite.root / ".git").rename(suite.root.parent / "git")
    assert run(suite, repo_root, "-n", "0").properties["commit"] == ""
    assert run(suite, repo_root, "-n", "0", APEX_COMMIT=commit).properties["commit"] == commit
    (suite.root.parent / "git").rename(suite.root / ".git")
    assert suite.rows()["tests"].status == "pass"
