"""Plans that do not load or are not of the model, and the fake library held against the real one where that is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_gpu import FakeContext, FakeDevice, FakeEngine, FakeRuntimeCache, FakeRuntimeConfig, FakeTensorRT

from apex_runtime.backends.capabilities import probe_cuda
from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.tensorrt_builder import build_plans
from apex_runtime.backends.tensorrt_session import TensorRTSession
from apex_runtime.errors import BackendError

Open = Callable[..., tuple[TensorRTSession, FakeTensorRT, FakeDevice]]

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason='TensorRT for RTX is not installed: pip install ".[rtx]"',
)


def rename(trt: FakeTensorRT, _device: FakeDevice) -> None:
    trt.outputs["rectangles"] = trt.outputs.pop("boxes")


def retype(trt: FakeTensorRT, _device: FakeDevice) -> None:
    trt.outputs["scores"] = trt.outputs["labels"]


def reshape(trt: FakeTensorRT, _device: FakeDevice) -> None:
    trt.outputs["mask_prototypes"] = type(trt.outputs["boxes"])("mask_prototypes", "float32", (None, 2, 16, 32))


def on_device(trt: FakeTensorRT, _device: FakeDevice) -> None:
    trt.locations["tiles"] = "DEVICE"


def swap(trt: FakeTensorRT, _device: FakeDevice) -> None:
    trt.inputs["boxes"], trt.outputs["tile_bonus"] = trt.outputs.pop("boxes"), trt.inputs.pop("tile_bonus")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename, "rectangles"),
        (retype, "scores has type"),
        (reshape, "16, 32"),
        (on_device, "budget"),
        (swap, "not an input"),
    ],
)
def test_a_plan_of_another_model_is_refused_and_the_device_given_back(
    open_fake: Open, change: Callable[[FakeTensorRT, FakeDevice], object], words: str
) -> None:
    devices: list[FakeDevice] = []

    def both(trt: FakeTensorRT, device: FakeDevice) -> None:
        devices.append(device)
        change(trt, device)

    with pytest.raises(BackendError, match=words) as caught:
        open_fake("tensorrt", both)
    assert caught.value.code == "plan_does_not_fit" and "plan.sm89" in caught.value.message
    assert devices[0].closed


@pytest.mark.parametrize(("words", "code"), [("made by another version", "plan_load_failed"), ("Out of memory", "out_of_memory")])
def test_a_plan_that_does_not_load_says_why(open_fake: Open, words: str, code: str) -> None:
    def spoil(trt: FakeTensorRT, _device: FakeDevice) -> None:
        trt.loads, trt.words = False, words

    with pytest.raises(BackendError, match=words) as caught:
        open_fake("tensorrt", spoil)
    assert caught.value.code == code


FAKES = [
    (FakeEngine, "ICudaEngine"),
    (FakeContext, "IExecutionContext"),
    (FakeRuntimeConfig, "IRuntimeConfig"),
    (FakeRuntimeCache, "IRuntimeCache"),
]


@needs_rtx
@pytest.mark.parametrize(("fake", "real"), FAKES, ids=[real for _, real in FAKES])
def test_the_library_has_every_method_that_the_fake_has(fake: type, real: str) -> None:
    import tensorrt_rtx_bindings as trt

    names = {name for name in vars(fake) if not name.startswith("_")}
    assert names and names <= set(dir(getattr(trt, real)))


@needs_rtx
def test_the_library_has_every_other_name_that_is_used() -> None:
    import tensorrt_rtx_bindings as trt

    for kind in (
        "TensorIOMode",
        "TensorLocation",
        "ExecutionContextAllocationStrategy",
        "DynamicShapesKernelSpecializationStrategy",
    ):
        assert set(vars(getattr(FakeTensorRT, kind))) <= set(getattr(trt, kind).__members__)
    assert hasattr(trt.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(trt.IExecutionContext, "is_stream_capturable") and hasattr(trt.ICudaEngine, "device_memory_size_v2")
    assert {"FLOAT", "INT64", "UINT8"} <= set(trt.DataType.__members__) and callable(trt.Runtime.deserialize_cuda_engine)


@needs_rtx
@pytest.mark.skipif(probe_cuda().available, reason="there is a GPU")
def test_without_a_gpu_the_library_itself_refuses_a_plan_and_its_words_are_passed_on(tiny_onnx: Path, tmp_path: Path) -> None:
    (plan,) = build_plans(read_onnx(tiny_onnx), "tensorrt-rtx", [89])
    (tmp_path / plan.file_name).write_bytes(plan.data)
    device = FakeDevice()
    with pytest.raises(BackendError, match="CUDA driver") as caught:
        TensorRTSession(tiny_onnx, tmp_path / plan.file_name, "tensorrt-rtx", device)
    assert caught.value.code == "plan_load_failed" and device.closed
