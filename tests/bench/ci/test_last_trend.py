"""Which trend a week goes on with, asked of a ``gh`` of ours that knows four runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = [
    {"databaseId": 14, "event": "pull_request", "artifacts": [{"name": "trend", "expired": False}]},
    {"databaseId": 13, "event": "schedule", "artifacts": []},
    {"databaseId": 12, "event": "schedule", "artifacts": [{"name": "trend", "expired": True}]},
    {"databaseId": 11, "event": "workflow_dispatch", "artifacts": [{"name": "trend", "expired": False}]},
    {"databaseId": 10, "event": "schedule", "artifacts": [{"name": "trend", "expired": False}]},
]
GH = """#!{python}
import json, pathlib, re, sys
runs, broken = json.loads({runs!r}), {broken!r}
words = sys.argv[1:]
if words[:2] == ["run", "list"]:
    assert words[words.index("--branch") + 1] == "main" and words[words.index("--workflow") + 1] == "trend.yml"
    wanted = re.findall(r'[.]event == "(\\w+)"', words[words.index("--jq") + 1])
    print("\\n".join(str(run["databaseId"]) for run in runs if run["event"] in wanted))
elif words[0] == "api":
    number = re.fullmatch(r"repos/owner/name/actions/runs/(\\d+)/artifacts", words[1])[1]
    assert "trend" in words[3] and "expired | not" in words[3]
    found = next(run["artifacts"] for run in runs if run["databaseId"] == int(number))
    print(sum(item["name"] == "trend" and not item["expired"] for item in found))
elif words[:2] == ["run", "download"]:
    if broken:
        sys.exit("the line broke")
    pathlib.Path(words[words.index("--dir") + 1], "trend.jsonl").write_text(words[2])
"""


def last_trend(tmp_path: Path, repo_root: Path, runs: list[dict], broken: bool = False) -> tuple[int, str, Path]:
    """Exit code, what was said, and the folder."""
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH.format(python=sys.executable, runs=json.dumps(runs), broken=broken))
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "GITHUB_REPOSITORY": "owner/name"}
    command = [repo_root / ".ci" / "last-trend", "main", tmp_path / "trend"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout + run.stderr, tmp_path / "trend"


def test_the_newest_run_of_ours_that_has_a_trend(tmp_path: Path, repo_root: Path) -> None:
    """Not that of a request, though it is newer: its files are those of a stranger."""
    code, said, folder = last_trend(tmp_path, repo_root, RUNS)
    assert code == 0, said
    assert (folder / "trend.jsonl").read_text() == "11"


@pytest.mark.parametrize("runs", [[], RUNS[:3]], ids=["no run", "nothing that is left"])
def test_the_first_week(runs: list[dict], tmp_path: Path, repo_root: Path) -> None:
    code, said, folder = last_trend(tmp_path, repo_root, runs)
    assert code == 0 and "begins anew" in said, said
    assert list(folder.iterdir()) == []


def test_a_trend_that_cannot_be_fetched_is_not_lost(tmp_path: Path, repo_root: Path) -> None:
    code, said, _folder = last_trend(tmp_path, repo_root, RUNS, broken=True)
    assert code != 0 and "begins anew" not in said
