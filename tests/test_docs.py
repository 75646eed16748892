"""The commands in the documents are run as they stand, each document in a folder of its own; links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
EVERYWHERE = [*DOCUMENTS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks(document: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return FENCE.findall(document.read_text(encoding="utf-8"))


LARGE = "../shared/data"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the checkout to the commands, and where they may leave what they write."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("engines", "tests", "bench", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_blocks(document: Path, found: list[tuple[str, str]], folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    environment["APEX_CACHE_DIR"] = str(folder.parent / "cache")  # not that of the person who runs the tests
    for language, text in found:
        assert language in ("bash", "python"), f"{document.name}: a {language or 'nameless'} block is not run; indent it instead"
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, f"{document.name}:\n{text}\nexit code {run.returncode}\n{run.stdout}\n{run.stderr}"


# A minute and more each: not part of the default run, and a step of their own in .ci/run.
LONG = (
    *("ablation", "bench", "budgets", "little-data", "noisy-labels", "parity", "precision", "reports"),
    *("training", "training-nodes"),
)

# What the blocks of a document import of an extra that the tests do not need; with it they are run by a step of .ci/run.
EXTRAS = {"many-machines": "ray"}


@pytest.mark.parametrize(
    "document", [pytest.param(path, marks=pytest.mark.slow if path.stem in LONG else (), id=path.stem) for path in DOCUMENTS]
)
def test_the_commands_of_a_document_run(document: Path, checkout: Path) -> None:
    found = [block for block in blocks(document) if LARGE not in block[1]]
    assert found, f"{document.name} has no commands"
    if extra := EXTRAS.get(document.stem):
        pytest.importorskip(extra, reason=f"the extra {extra} is not installed")
    run_blocks(document, found, checkout)


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if any(LARGE in text for _, text in blocks(path))], ids=lambda path: path.stem
)
def test_the_commands_on_the_large_sets_run(document: Path, checkout: Path, shared_data: Path) -> None:
    (checkout.parent / "shared").symlink_to(shared_data.parent)
    run_blocks(document, [block for block in blocks(document) if LARGE in block[1]], checkout)


def test_the_python_of_the_readme_runs(checkout: Path) -> None:
    (code,) = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    assert len([line for line in code.splitlines() if line]) == 5
    run_blocks(ROOT / "README.md", [("python", code)], checkout)
    samples = {path.stem for path in (ROOT / "engines" / "samples").glob("*.jpg")}
    assert {path.stem for path in (checkout / "out").glob("*.png")} == samples


def test_every_command_is_shown_somewhere() -> None:
    shown = "\n".join(text for document in DOCUMENTS for _, text in blocks(document))
    for command in (
        "apex-rt infer",
        "apex-rt build-engine",
        "apex-rt eval",
        "apex-rt parity",
        "apex-rt doctor",
        "apex-rt bench",
        "apex-rt inspect",
        "apex-rt export-server",
        "apex-rt release-check",
    ):
        assert command in shown
    for command in ("apex-train fit", "apex-train export", "apex-train eval", "apex-train preflight", "apex-train init"):
        assert command in shown


def test_the_readme_begins_with_two_commands_that_set_themselves_up() -> None:
    language, text = blocks(ROOT / "README.md")[0]
    assert language == "bash"
    demonstration, tests = text.strip().split("\n")
    for line in (demonstration, tests):
        assert line.startswith("python3 -m venv "), "each line makes its own environment"
    assert "apex-rt infer engines/samples" in demonstration and "--output out" in demonstration
    assert "torch" not in demonstration and "train" not in demonstration, "the runtime needs no torch"
    assert tests.index("torch==") < tests.index("[train,test]"), "torch first, or pip picks a build of its own"
    assert tests.endswith("pytest")


@pytest.mark.parametrize("document", EVERYWHERE, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", EVERYWHERE, ids=lambda path: path.name)
def test_paths_in_the_text_exist(document: Path) -> None:
    """`apex_runtime/schemas/` and the like, in backticks, are files of this repository."""
    for path in re.findall(r"`((?:apex_runtime|apex_train|plugins|engines|tests|bench|docs)/[\w./*-]*)`", document.read_text()):
        assert list(ROOT.glob(path)), f"{document.name} speaks of {path}"
