"""Probes say yes or give a stable code, whatever is broken on the machine."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from apex_runtime.backends import capabilities
from apex_runtime.backends.capabilities import BACKENDS, probe, probe_all, probe_cuda
from apex_runtime.backends.reasons import ReasonCode


@pytest.fixture(autouse=True)
def fresh_probe() -> None:
    probe_cuda.cache_clear()


def test_the_default_backend_is_available() -> None:
    row = probe("ort-cpu")
    assert row.build.available and row.run.available and row.version
    assert row.run.remedy == ""


def test_the_matrix_has_every_backend_and_every_no_has_a_remedy() -> None:
    matrix = probe_all()
    assert tuple(row.backend for row in matrix) == BACKENDS
    for answer in (answer for row in matrix for answer in (row.build, row.run) if not answer.available):
        assert answer.remedy and answer.detail


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_absent_and_broken(flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    word = flavour.replace("-", "_")
    monkeypatch.setattr(capabilities.importlib.util, "find_spec", lambda _name: None)
    for name in capabilities.TENSORRT_MODULES[flavour]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert probe(flavour).build.reason == f"{word}_python_not_installed"

    def fail(_name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(capabilities.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(capabilities.importlib, "import_module", fail)
    row = probe(flavour)
    assert row.build.reason == f"{word}_python_import_failed"
    assert "libnvinfer" in row.build.detail


class _Driver:
    """A CUDA driver library with a given state."""

    def __init__(self, init: int, count: int, count_status: int = 0) -> None:
        self.init, self.count, self.count_status = init, count, count_status

    def cuInit(self, _flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, pointer: object) -> int:
        pointer._obj.value = self.count  # type: ignore[attr-defined]
        return self.count_status


@pytest.mark.parametrize(
    ("driver", "index", "reason"),
    [
        (_Driver(100, 0), 0, ReasonCode.CUDA_DEVICE_NOT_FOUND),
        (_Driver(0, 0), 0, ReasonCode.CUDA_DEVICE_NOT_FOUND),
        (_Driver(999, 0), 0, ReasonCode.CUDA_QUERY_FAILED),
        (_Driver(0, 1, 1), 0, ReasonCode.CUDA_QUERY_FAILED),
        (_Driver(0, 2), 2, ReasonCode.CUDA_DEVICE_INDEX_OUT_OF_RANGE),
        (_Driver(0, 2), 1, None),
    ],
)
def test_cuda_driver_states(driver: _Driver, index: int, reason: ReasonCode | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities.ctypes, "CDLL", lambda _name: driver)
    assert probe_cuda(index).reason == reason


def test_no_driver_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise OSError("not found")

    monkeypatch.setattr(capabilities.ctypes, "CDLL", fail)
    assert probe_cuda().reason == ReasonCode.CUDA_UNAVAILABLE


def test_a_gpu_does_not_make_this_version_execute_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claiming to run what is not written would be the worst answer."""
    monkeypatch.setattr(capabilities.ctypes, "CDLL", lambda _name: _Driver(0, 1))
    fake = SimpleNamespace(__version__="11.0")
    monkeypatch.setattr(capabilities, "import_tensorrt", lambda _flavour: (fake, capabilities.Answer()))
    row = probe("tensorrt")
    assert row.build.available
    assert row.run.reason == ReasonCode.EXECUTION_NOT_IN_THIS_VERSION
