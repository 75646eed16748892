"""The reasons of kernels and plugins: each is raised somewhere, and docs/kernels.md lists them all and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from apex_plugins.kernels.reasons import REMEDIES, KernelReason
from apex_runtime.backends import reasons as runtime

ROW = re.compile(r"^\| `(\w+)` \| \S.* \| \S.* \|$", re.MULTILINE)


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(KernelReason)


@pytest.mark.parametrize("reason", KernelReason, ids=str)
def test_a_reason_is_given_somewhere(reason: KernelReason, repo_root: Path) -> None:
    """One that nothing gives would be read about in vain."""
    files = [path for path in (repo_root / "plugins").rglob("*.py") if path.name != "reasons.py"]
    assert any(f"KernelReason.{reason.name}" in path.read_text(encoding="utf-8") for path in files)


def test_the_document_lists_every_reason_once(repo_root: Path) -> None:
    listed = ROW.findall((repo_root / "docs" / "kernels.md").read_text(encoding="utf-8"))
    plugins = {code.value for code in runtime.ReasonCode if code.name.startswith("PLUGIN")}
    assert plugins
    assert sorted(listed) == sorted({reason.value for reason in KernelReason} | plugins)


def test_the_document_names_every_kernel(repo_root: Path) -> None:
    text = (repo_root / "docs" / "kernels.md").read_text(encoding="utf-8")
    families = set(re.findall(r"`(apex_\w+_)\*`", text))
    entries = [
        name for path in (repo_root / "plugins").glob("*/kernel.cu") for name in re.findall(r"\b(apex_\w+)\b", path.read_text())
    ]
    assert entries
    for name in entries:
        assert any(name.startswith(family) for family in families), name
    for family in families:
        assert any(name.startswith(family) for name in entries), family
