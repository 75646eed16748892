"""Sessions on the fake GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_gpu import FakeDevice, FakeTensorRT

from apex_runtime.backends import tensorrt_engine
from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.tensorrt_session import TensorRTSession

Open = Callable[..., tuple[TensorRTSession, FakeTensorRT, FakeDevice]]


@pytest.fixture(scope="session")
def reference(tiny_onnx: Path) -> OrtSession:
    """What the tiny model says."""
    return OrtSession(tiny_onnx, 1)


@pytest.fixture
def open_fake(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """``open_fake(flavour, change)``: a session on a fake GPU; ``change`` may spoil the library or the device before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = tmp_path / "plan.sm89"
    plan.write_bytes(b"plan")

    def opened(
        flavour: str = "tensorrt", change: Callable[[FakeTensorRT, FakeDevice], object] = lambda *_: None
    ) -> tuple[TensorRTSession, FakeTensorRT, FakeDevice]:
        device = FakeDevice()
        trt = FakeTensorRT(tiny_onnx, device)
        change(trt, device)
        monkeypatch.setattr(tensorrt_engine, "load_flavour", lambda _flavour: trt)
        return TensorRTSession(tiny_onnx, plan, flavour, device), trt, device

    return opened
