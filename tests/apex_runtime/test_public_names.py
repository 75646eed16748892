"""The names that ``import apex_runtime`` offers: all there, none of them imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import apex_runtime

NOTHING_EARLY = """
import sys, apex_runtime
assert not {"numpy", "pydantic", "onnxruntime", "cv2"} & set(sys.modules)
assert set(apex_runtime.__all__) <= set(dir(apex_runtime))
apex_runtime.ApexError
assert "numpy" not in sys.modules
assert apex_runtime.Result.__module__ == "apex_runtime.result" and "numpy" in sys.modules
assert not {"onnxruntime", "cv2", "torch"} & set(sys.modules)
"""


def test_every_name_is_there() -> None:
    for name in apex_runtime.__all__:
        assert getattr(apex_runtime, name).__module__.startswith("apex_runtime")
    with pytest.raises(AttributeError, match="nothing"):
        _ = apex_runtime.nothing  # type: ignore[attr-defined]


def test_nothing_is_imported_early() -> None:
    run = subprocess.run([sys.executable, "-c", NOTHING_EARLY], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
