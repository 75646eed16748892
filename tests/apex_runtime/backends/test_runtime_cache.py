"""What TensorRT for RTX compiled at a first run is there for the next process; a useless file costs time and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_requests import assert_same, request_of
from fake_gpu import FakeDevice, FakeTensorRT

from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.tensorrt_session import TensorRTSession

Open = Callable[..., tuple[TensorRTSession, FakeTensorRT, FakeDevice]]


def test_kernels_compiled_at_the_first_run_are_kept_for_the_next_process(open_fake: Open, tmp_path: Path) -> None:
    session, trt, _ = open_fake("tensorrt-rtx")
    config = trt.contexts or trt.caches
    assert config and trt.caches[0].data == b""
    session.run(*request_of())
    session.close()
    (file,) = (tmp_path / "cache").rglob("*.cache")
    assert "tensorrt-rtx-11.0.fake-sm89" in file.name and file.read_bytes().endswith(b"\nk")
    again, trt, _ = open_fake("tensorrt-rtx")
    assert trt.caches[0].data == b"k"
    again.run(*request_of())
    assert trt.contexts[0].cache is trt.caches[0]
    written = file.stat().st_mtime_ns
    unused, _, _ = open_fake("tensorrt-rtx")
    unused.close()
    assert file.stat().st_mtime_ns == written, "nothing new, nothing written"


@pytest.mark.parametrize("how", ["damaged", "other driver", "no place"])
def test_a_useless_runtime_cache_is_a_warning(
    open_fake: Open, reference: OrtSession, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, _, _ = open_fake("tensorrt-rtx")
    if how != "no place":
        first.run(*request_of())
        first.close()
        (file,) = (tmp_path / "cache").rglob("*.cache")
    if how == "damaged":
        file.write_bytes(file.read_bytes()[:-1])
    if how == "no place":
        (tmp_path / "cache").write_text("a file where a folder is wanted")

    def spoil(trt: FakeTensorRT, _device: FakeDevice) -> None:
        trt.cache_fits = how != "other driver"

    with caplog.at_level(logging.WARNING):
        session, _, _ = open_fake("tensorrt-rtx", spoil)
        assert_same(session.run(*request_of()), reference.run(*request_of()))
        session.close()
    assert "compiled anew" in caplog.text or "compiles again" in caplog.text


def test_the_other_flavour_has_no_runtime_cache(open_fake: Open, tmp_path: Path) -> None:
    session, trt, _ = open_fake("tensorrt")
    session.run(*request_of())
    session.close()
    assert not trt.caches and not (tmp_path / "cache").exists()
