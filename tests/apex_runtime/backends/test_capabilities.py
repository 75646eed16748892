"""Probes say yes or give a stable code, whatever is broken on the machine."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from apex_runtime.backends import capabilities
from apex_runtime.backends.capabilities import BACKENDS, compute_capability, probe, probe_all, probe_cuda
from apex_runtime.backends.reasons import ReasonCode


@pytest.fixture(autouse=True)
def fresh_probe() -> None:
    probe_cuda.cache_clear()
    compute_capability.cache_clear()


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

    def __init__(self, init: int, count: int, count_status: int = 0, capability: tuple[int, int] = (8, 9)) -> None:
        self.init, self.count, self.count_status, self.capability = init, count, count_status, capability

    def cuInit(self, _flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, pointer: object) -> int:
        pointer._obj.value = self.count  # type: ignore[attr-defined]
        return self.count_status

    def cuDeviceGet(self, pointer: object, index: int) -> int:
        pointer._obj.value = 40 + index  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetAttribute(self, pointer: object, attribute: int, device: object) -> int:
        assert device.value == 41  # type: ignore[attr-defined]
        pointer._obj.value = self.capability[attribute - 75]  # type: ignore[attr-defined]
        return 0 if self.capability[0] else 1


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


@pytest.mark.parametrize(("capability", "number"), [((8, 9), 89), ((12, 0), 120), ((0, 0), None)])
def test_the_compute_capability_of_a_gpu(
    capability: tuple[int, int], number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capabilities.ctypes, "CDLL", lambda _name: _Driver(0, 2, 0, capability))
    assert compute_capability(1) == number
    assert compute_capability(2) is None


def have(monkeypatch: pytest.MonkeyPatch, gpus: int, cuda_python: bool = True) -> None:
    """A machine with everything installed."""
    import onnxruntime

    monkeypatch.setattr(capabilities.ctypes, "CDLL", lambda _name: _Driver(0, gpus))
    fake = SimpleNamespace(__version__="11.0")
    monkeypatch.setattr(capabilities, "import_tensorrt", lambda _flavour: (fake, capabilities.Answer()))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(capabilities.importlib.util, "find_spec", lambda name: object() if cuda_python else None)


def test_with_a_gpu_and_the_packages_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, gpus=1)
    assert all(row.build.available and row.run.available for row in probe_all())
    assert probe("tensorrt", 1).run.reason == probe("ort-cuda", 1).run.reason == ReasonCode.CUDA_DEVICE_INDEX_OUT_OF_RANGE


def test_without_a_gpu_what_needs_none_can_still_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, gpus=0)
    rows = {row.backend: row for row in probe_all()}
    assert {name for name, row in rows.items() if row.build.available} == {"ort-cpu", "ort-cuda", "tensorrt-rtx"}
    assert {name for name, row in rows.items() if row.run.available} == {"ort-cpu"}


def test_plans_need_cuda_python_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, gpus=1, cuda_python=False)
    assert probe("tensorrt").run.reason == probe("tensorrt-rtx").run.reason == ReasonCode.CUDA_PYTHON_NOT_INSTALLED
    assert probe("ort-cuda").run.available


def test_what_was_never_executed_on_its_hardware_says_so() -> None:
    words = {row.backend: row.proven for row in probe_all()}
    assert words == {"ort-cpu": "proven", "ort-cuda": "unproven", "tensorrt": "unproven", "tensorrt-rtx": "unproven"}
    assert all("never executed on a GPU" in row.evidence for row in probe_all() if row.proven == "unproven")
