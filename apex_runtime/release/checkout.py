"""The folder that is to be released, and what git says about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from apex_runtime.code_state import git

ENGINE = Path("engines/nuclei-nano/model.onnx")  # the shipped one, in a checkout
_NAMED = 3


@dataclass(frozen=True)
class Checkout:
    """A checkout at ``root``; what git says is read when it is first asked for, and None where git does not say it."""

    root: Path

    @cached_property
    def commit(self) -> str | None:
        """The full name of the commit, None unless ``root`` itself is the top of a git checkout."""
        top = git(self.root, "rev-parse", "--show-toplevel")
        return git(self.root, "rev-parse", "HEAD") if top and Path(top).resolve() == self.root.resolve() else None

    @cached_property
    def changed(self) -> tuple[str, ...] | None:
        """Files that differ from the commit, and new ones that are not ignored: what only lies here makes tests pass too.

        Names are as git prints them, in quotes and escaped where they hold more than plain characters.
        """
        if self.commit is None:
            return None
        differing = git(self.root, "diff", "--name-only", "HEAD", "--")
        new = git(self.root, "ls-files", "--others", "--exclude-standard")
        return None if differing is None or new is None else (*differing.splitlines(), *new.splitlines())

    @cached_property
    def shallow(self) -> bool:
        """Whether the history was cut off, so that commits of the past are not here."""
        return git(self.root, "rev-parse", "--is-shallow-repository") == "true"

    def has(self, commit: str) -> bool:
        """Whether a commit of that full name is in the history here."""
        return len(commit) == 40 and git(self.root, "cat-file", "-e", f"{commit}^{{commit}}") is not None

    def commits_since(self, commit: str) -> int | None:
        """How many commits came after ``commit``; None when it is not in the history here."""
        count = git(self.root, "rev-list", "--count", f"{commit}..HEAD") if self.has(commit) else None
        return None if count is None else int(count)

    def why_not_of(self, commit: str | None) -> str:
        """Why a result of ``commit`` says nothing about these files; empty when it does."""
        if self.commit is None or self.changed is None:
            return "git does not say which commit this folder is"
        if self.changed:
            more = f" and {len(self.changed) - _NAMED} more" if len(self.changed) > _NAMED else ""
            return f"not everything is committed: {', '.join(self.changed[:_NAMED])}{more}"
        if not commit:
            return "it does not say of which commit it is"
        return "" if commit == self.commit else f"it is of commit {commit[:12]}, and this is {self.commit[:12]}"

    def name_of(self, path: Path) -> str:
        """A file as a reader on another machine may see it: from the root, or its last part where it lies elsewhere."""
        absolute, root = path.resolve(), self.root.resolve()
        return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name
