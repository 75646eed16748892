"""One registry of reason codes: every code has a remedy, and no module invents codes of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from apex_runtime.backends.reasons import REMEDIES, ReasonCode, backend_error


@pytest.mark.parametrize("code", list(ReasonCode))
def test_every_code_has_a_remedy_and_a_stable_form(code: ReasonCode) -> None:
    assert len(REMEDIES[code]) > 15
    assert code.value == code.name.lower()
    error = backend_error(code, "it broke.")
    assert (error.code, error.remedy) == (code.value, REMEDIES[code])
    assert code.value in error.message


def literal_codes(path: Path) -> set[str]:
    """Values of ``code="..."`` in calls."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    keywords = [word.value for call in calls for word in call.keywords if word.arg == "code"]
    return {value.value for value in keywords if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def test_codes_written_as_text_are_in_the_registry(repo_root: Path) -> None:
    known = {code.value for code in ReasonCode} | {""}
    for path in (repo_root / "apex_runtime").rglob("*.py"):
        assert literal_codes(path) <= known, path


def test_every_code_is_used(repo_root: Path) -> None:
    rooms = ("apex_runtime", "apex_train")
    sources = [path for room in rooms for path in (repo_root / room).rglob("*.py") if path.name != "reasons.py"]
    text = "\n".join(path.read_text() for path in sources)
    unused = [code.name for code in ReasonCode if f"ReasonCode.{code.name}" not in text and f'"{code.value}"' not in text]
    assert not unused


def test_no_remedy_brings_two_onnxruntimes_together() -> None:
    remedy = REMEDIES[ReasonCode.ONNXRUNTIME_CUDA_NOT_INSTALLED]
    assert "pip uninstall onnxruntime onnxruntime-gpu" in remedy and "pip install onnxruntime-gpu" in remedy
    assert "[gpu]" not in remedy
