"""What must not be in the tree: long files, paths of one machine, package hosts, large files, words of the unfinished."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400
MAX_BYTES = 12 * 2**20
CODE = {".py", ".sh", ".h", ".cu"}

# Each pattern is written so that it does not match itself: a bracket around one letter.
FORBIDDEN = {
    "a path of one machine": r"(/wor[k]/[a-z.]|/hom[e]/[a-z]|/roo[t]/|/op[t]/(wheels|pyp))",
    "a package host": r"(pyp[i][.]org|pythonhoste[d]|de[b][.]debian|npmj[s][.]|download[.]pytorc[h])",
    "a merge conflict": r"^(<{7}|>{7}) ",
}
UNFINISHED = r"\b(TOD[O]|FIXM[E]|XX[X]|NotImplemente[d]Error)\b"


def tracked() -> list[Path]:
    """Files under version control, and new ones that are not ignored; without git the whole tree that was unpacked."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60
        ).stdout.decode()
        names = [name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = re.compile(r"(^|/)(\.venv[^/]*|__pycache__|build|out|\.[a-z]+_cache|\.hypothesis|[^/]*\.egg-info)(/|$)")
        every = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
        names = [name for name in every if not hidden.search(name)]
    return [ROOT / name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


FILES = tracked()


def text_of(path: Path) -> str | None:
    """The text of a file, None when it is binary."""
    data = path.read_bytes()
    return None if b"\0" in data[:8192] else data.decode("utf-8")


def hits(pattern: str, paths: list[Path]) -> list[str]:
    """``file:line: text`` of every line that matches."""
    expression = re.compile(pattern)
    found = []
    for path in paths:
        for number, line in enumerate((text_of(path) or "").splitlines(), 1):
            if expression.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def test_the_listing_is_not_empty() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"pyproject.toml", "README.md", "apex_runtime/__init__.py"} <= names


@pytest.mark.parametrize("what", sorted(FORBIDDEN))
def test_the_tree_is_free_of(what: str) -> None:
    assert hits(FORBIDDEN[what], FILES) == []


def test_nothing_is_left_unfinished_in_the_code() -> None:
    assert hits(UNFINISHED, [path for path in FILES if path.suffix in CODE]) == []


@pytest.mark.parametrize(
    ("what", "line"), [("a path of one machine", "see /wor" + "k/main"), ("a package host", "pyp" + "i.org/simple")]
)
def test_the_patterns_match_what_they_are_for(what: str, line: str) -> None:
    assert re.search(FORBIDDEN[what], line)


def test_no_code_file_is_long() -> None:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES if path.suffix in CODE}
    assert {str(path): lines for path, lines in counts.items() if lines > MAX_LINES} == {}


def test_no_tracked_file_is_huge() -> None:
    assert {str(path): path.stat().st_size for path in FILES if path.stat().st_size > MAX_BYTES} == {}


def test_no_module_is_a_drawer_for_strangers() -> None:
    names = {path.name for path in FILES if path.suffix == ".py"}
    assert names.isdisjoint({"utils.py", "helpers.py", "misc.py", "common.py"})
    for path in FILES:
        if path.suffix == ".py":
            classes = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
            assert not [name for name in classes if name.endswith("Manager")], path
