"""Which changes need a GPU: made-up lists of files, and real commits of a repository made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ci.gpu_needed import changed_files, critical_files, main, patterns


class Repository:
    """A repository with a history, in a folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        run = subprocess.run(
            ["git", "-C", str(self.root), *identity, *words], capture_output=True, text=True, check=True, timeout=30
        )
        return run.stdout.strip()

    def commit(self, **files: str | None) -> str:
        """Write files (``a__b_c`` is ``a/b.c``), None removes one; the commit."""
        for name, text in files.items():
            path = self.root / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink() if text is None else path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    made = Repository(tmp_path)
    made.commit(plugins__tile__kernel_cu="lines\n" * 30, docs__infer_md="text", README_md="text")
    return made


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        (["docs/infer.md"], False),
        (["docs/infer.md", "plugins/tile_pack/kernel.cu"], True),
        (["plugins/new_op/reference.py"], True),
        (["apex_runtime/backends/ort.py"], True),
        (["apex_runtime/precision/new_folder/deep.py"], True),
        (["somewhere/new/kernel.cuh"], True),
        (["docs/plugins/kernel.md"], False),
        (["apex_runtime/backends.py"], False),
        (["README.md", "engines/samples/a.jpg", "tests/apex_runtime/cli/test_help.py"], False),
        ([".github/workflows/gpu.yml"], True),
    ],
)
def test_made_up_changes(
    files: list[str], needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    assert main(files) == 0
    assert output.read_text() == f"needed={'true' if needed else 'false'}\n"
    assert capsys.readouterr().out.splitlines()[-1].startswith("needed:" if needed else "not needed:")


def test_a_change_is_what_its_branch_did(repository: Repository) -> None:
    start = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "-qb", "work")
    repository.commit(docs__infer_md="more")
    repository.git("checkout", "-q", "main")
    repository.commit(plugins__tile__kernel_cu="of another change")
    assert changed_files(repository.root, "main", "work") == ["docs/infer.md"]
    assert changed_files(repository.root, start, "main") == ["plugins/tile/kernel.cu"]


def test_a_kernel_that_moves_out_of_its_folder_is_a_change_of_it(repository: Repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    (repository.root / "docs" / "old.txt").write_text((repository.root / "plugins" / "tile" / "kernel.cu").read_text())
    repository.commit(plugins__tile__kernel_cu=None)
    assert critical_files(changed_files(repository.root, base, "HEAD"), ("plugins/",)) == ["plugins/tile/kernel.cu"]


def test_without_a_commit_to_compare_with_all_files_count(repository: Repository) -> None:
    assert changed_files(repository.root, "", "HEAD") == ["README.md", "docs/infer.md", "plugins/tile/kernel.cu"]


@pytest.mark.parametrize("base", ["0" * 40, "no-such-branch", "HEAD", "--help"])
def test_what_cannot_be_decided_is_no_answer(base: str, repository: Repository, tmp_path: Path, monkeypatch, capsys) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    assert main(["--checkout", str(repository.root), f"--base={base}"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "needed" not in said.out
    assert not output.exists()


def test_an_empty_list_is_no_list() -> None:
    with pytest.raises(ValueError, match="names nothing"):
        patterns("# plugins/\n\n")


def test_names_of_files_cannot_speak_to_the_runner(capsys: pytest.CaptureFixture) -> None:
    assert main(["plugins/\n::error::planted.cu", "::warning::b.cu"]) == 0
    assert not [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("::")]
