"""The torch binding without a GPU: its launches run on the host faces, its calls reach a driver of ours."""

from __future__ import annotations

import ctypes
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kernel_faces import run_on_host

from apex_plugins.decode_nms import torch_op as nms
from apex_plugins.decode_nms.torch_cuda import decode_nms_kernel, kernel_takes
from apex_plugins.kernels import cuda
from apex_plugins.kernels.launch import INT_MAX, Launch, arguments
from apex_plugins.kernels.reasons import KernelError
from apex_plugins.kernels.torch_face import KernelFunction, by_kernel, use_kernels, why_not
from apex_plugins.tile_pack.launch import Normalisation
from apex_plugins.tile_pack.torch_cuda import tile_pack_kernel
from apex_plugins.tile_pack.torch_op import tile_pack_formula
from apex_plugins.tile_ssm_scan import torch_op as scan
from apex_plugins.tile_ssm_scan.torch_cuda import tile_ssm_scan_kernel
from apex_plugins.tile_unpack_fusion.torch_cuda import tile_unpack_fusion_kernel
from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion_formula


@pytest.fixture
def on_host(monkeypatch):
    """Kernels that the binding launches are run by their host faces, on the memory of the CPU tensors."""
    for op in ("tile_pack", "tile_ssm_scan", "tile_unpack_fusion", "decode_nms"):
        binding = importlib.import_module(f"apex_plugins.{op}.torch_cuda")
        monkeypatch.setattr(binding, "run", lambda op, launches, device: [run_on_host(op, item) for item in launches])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_binding_computes_what_the_formulas_do(dtype, on_host, make_case):
    for seed in range(20):
        inputs, attributes = make_case("tile_pack", seed)
        image, ids = torch.from_numpy(inputs["image"]).to(dtype), torch.from_numpy(inputs["ids"])
        strided = image.to(memory_format=torch.channels_last)
        for given in (image, strided):
            got = tile_pack_kernel(given, ids, **attributes)
            assert torch.equal(got, tile_pack_formula(image, ids, **attributes))
        inputs, attributes = make_case("tile_unpack_fusion", seed)
        base, tiles, ids, _, alpha = (torch.from_numpy(item) for item in inputs.values())
        feeds = base.to(dtype).to(memory_format=torch.channels_last), tiles.to(dtype), ids, alpha.to(dtype)
        before = feeds[0].clone()
        got = tile_unpack_fusion_kernel(*feeds, attributes["tile"])
        expected = tile_unpack_fusion_formula(*feeds, attributes["tile"])
        close = {torch.float32: 1e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
        torch.testing.assert_close(got, expected, rtol=close, atol=close)
        assert torch.equal(feeds[0], before)
        same = before.contiguous()
        assert tile_unpack_fusion_kernel(same, *feeds[1:], attributes["tile"], in_place=True) is same
        assert torch.equal(same, got)


def test_the_binding_converts_and_normalises(on_host):
    rng = np.random.default_rng(0)
    pixels, ids = torch.from_numpy(rng.integers(0, 256, (2, 32, 48, 3), np.uint8)), torch.tensor([[5, 0], [2, 3]])
    how = Normalisation((120.0, 110.0, 100.0), (0.5, 0.25, 0.125))
    image = ((pixels.float() - torch.tensor(how.mean)) * torch.tensor(how.factor)).permute(0, 3, 1, 2)
    expected = tile_pack_formula(image, ids, 16, 8)
    assert torch.equal(tile_pack_kernel(pixels, ids, 16, 8, torch.float32, normalisation=how), expected)
    eight = tile_pack_kernel(image, ids, 16, 8, torch.float8_e4m3fn, scale=0.5)
    assert torch.equal(eight.float(), (expected / 0.5).to(torch.float8_e4m3fn).float())
    with pytest.raises(ValueError, match="no kernel from f16 to f32"):
        tile_pack_kernel(image.half(), ids, 16, 8, torch.float32)
    with pytest.raises(ValueError, match="32x48 is not a multiple of tile 24"):
        tile_pack_kernel(image, ids, 24, 8)
    with pytest.raises(ValueError, match="uint8 with 3 channels"):
        tile_pack_kernel(image.permute(0, 2, 3, 1), ids, 16, 8, normalisation=how)


def scan_tensors(make_case, seed, dtype=torch.float32):
    inputs, attributes = make_case("tile_ssm_scan", seed)
    return [torch.from_numpy(item).to(dtype) for item in inputs.values()], bool(attributes["reverse"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_scan_computes_what_the_formula_does(dtype, on_host, make_case):
    for seed in range(20):
        (x, *others), reverse = scan_tensors(make_case, seed, dtype)
        strided = x.transpose(1, 3).contiguous().transpose(1, 3)
        got, expected = tile_ssm_scan_kernel(strided, *others, reverse), scan.tile_ssm_scan_formula(x, *others, reverse)
        close = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 8e-3}[dtype] * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(got, expected, rtol=0, atol=close)


def test_both_scans_and_their_gradients_equal_two_calls(on_host, make_case, monkeypatch):
    monkeypatch.setattr(scan, "by_kernel", lambda op, *arguments: KernelFunction.apply(*arguments))
    (x, *forward), _ = scan_tensors(make_case, 4)
    backward = [item.flip(0) * 0.5 for item in forward]
    found = []
    for function in (
        scan.tile_ssm_scan_both,
        lambda x, one, other: (scan.tile_ssm_scan_formula(x, *one, False), scan.tile_ssm_scan_formula(x, *other, True)),
    ):
        leaves = [item.clone().requires_grad_() for item in (x, *forward, *backward)]
        y, y_back = function(leaves[0], tuple(leaves[1:6]), tuple(leaves[6:]))
        weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
        (y * weights + y_back * weights.flip(1)).sum().backward()
        found.append([y.detach(), y_back.detach(), *(item.grad for item in leaves)])
    assert not torch.equal(found[0][0], found[0][1])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_state_that_no_kernel_holds_is_left_to_the_formula(monkeypatch):
    monkeypatch.setattr(scan, "by_kernel", lambda *arguments: pytest.fail("asked for a state of 129"))
    x, dt, one = torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1), torch.ones(1)
    wide = torch.full((1, 2, 129), 0.1)
    forward = (dt, one, wide, wide, one)
    y, y_back = scan.tile_ssm_scan_both(x, forward, forward)
    torch.testing.assert_close(y.flip(1), y_back)
    assert y[0, 1] != y[0, 0]


def test_decode_nms_gives_the_detections_of_the_formula(on_host, make_case):
    for seed in range(20):
        inputs, attributes = make_case("decode_nms", seed)
        scores, ltrb, centres, strides = (torch.from_numpy(item).float() for item in inputs.values())
        for given in ((scores, ltrb), (scores.half(), ltrb.half())):
            tensors = *given, centres, strides
            expected = nms.decode_nms_formula(*tensors, **attributes)
            for got, wanted in zip(decode_nms_kernel(*tensors, **attributes), expected, strict=True):
                assert got.dtype == wanted.dtype and torch.equal(got, wanted), (seed, attributes)


def test_decode_nms_on_a_gpu_takes_what_it_computes_exactly(monkeypatch):
    monkeypatch.setattr("apex_plugins.decode_nms.torch_cuda.why_not", lambda op: None)

    def tensors(*dtypes, device="cuda"):
        return [SimpleNamespace(dtype=dtype, is_cuda=device == "cuda") for dtype in dtypes]

    single, half, brain, double = torch.float32, torch.float16, torch.bfloat16, torch.float64
    for dtypes in ((single,) * 4, (half, single, single, single), (half, half, single, single), (single, brain, single, single)):
        assert kernel_takes(*tensors(*dtypes))
    for dtypes in ((half,) * 4, (double,) * 4, (brain, single, single, single), (single, double, single, single)):
        assert not kernel_takes(*tensors(*dtypes))
    assert not kernel_takes(*tensors(*(single,) * 4, device="cpu"))


def test_gradients_are_those_of_the_formula(on_host):
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([[3, 0], [1, 2]])
    shapes = {"base": (2, 3, 4, 4), "tiles": (2, 2, 3, 2, 2), "alpha": (2, 2, 1, 2, 2)}
    found = []
    for function in (
        lambda *arguments: KernelFunction.apply(tile_unpack_fusion_kernel, tile_unpack_fusion_formula, *arguments),
        tile_unpack_fusion_formula,
    ):
        generator.manual_seed(0)
        base, tiles, alpha = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes.values())
        tiles.requires_grad_(False)  # one that wants none
        result = function(base, tiles, ids, alpha, 16)
        (result * torch.arange(result.numel()).reshape(result.shape)).sum().backward()
        assert tiles.grad is None
        found.append((result.detach(), base.grad, alpha.grad))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


def test_on_a_cpu_the_formula_runs_and_the_reason_is_readable(monkeypatch):
    monkeypatch.setattr("apex_plugins.kernels.torch_face.why_not", lambda op: pytest.fail("asked for tensors on the CPU"))
    result = by_kernel("tile_pack", lambda x: x * 0, lambda x: x + 1, torch.ones(2))
    assert result.tolist() == [2, 2]
    if not torch.cuda.is_available():
        reason = why_not("tile_pack")
        assert reason is not None and reason.reason == "torch_without_cuda"


class Driver(SimpleNamespace):
    """As much of cuda.bindings.driver as is used; ``refuse`` names the call that fails."""

    def __init__(self, refuse: str = "") -> None:
        class Result:
            CUDA_SUCCESS = SimpleNamespace(name="CUDA_SUCCESS")

        super().__init__(CUresult=Result, calls=[], refuse=refuse)
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="most shared")

    def __getattr__(self, name: str):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, *arguments))
            failed = SimpleNamespace(name="CUDA_ERROR_INVALID_IMAGE")
            return (failed if name == self.refuse else self.CUresult.CUDA_SUCCESS, f"<{name}>")

        return call


LAUNCH = Launch("apex_a", (7, 1, 1), (256, 1, 1), 0, arguments((4096, 0), (5,), (8192,), (0.5,)))


def load(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "import_driver", lambda: driver)
    (tmp_path / "a.fatbin").write_bytes(b"code")
    return cuda.KernelModule(tmp_path / "a.fatbin")


def test_a_launch_reaches_the_driver(tmp_path, monkeypatch):
    driver = Driver()
    module = load(driver, tmp_path, monkeypatch)
    module.launch(LAUNCH, stream=99)
    module.launch(LAUNCH, stream=99)
    kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_float, ctypes.c_void_p)
    launched = ("cuLaunchKernel", "<cuModuleGetFunction>", 7, 1, 1, 256, 1, 1, 0, 99, ((4096, 0, 5, 0.5, 8192), kinds), 0)
    found = ("cuModuleGetFunction", "<cuModuleLoadData>", b"apex_a")
    assert driver.calls == [("cuModuleLoadData", b"code"), found, launched, launched]


def test_an_empty_launch_does_not(tmp_path, monkeypatch):
    driver = Driver()
    load(driver, tmp_path, monkeypatch).launch(Launch("apex_a", (0, 1, 1), (256, 1, 1), 0, ()), stream=0)
    assert len(driver.calls) == 1


def test_much_shared_memory_is_asked_for(tmp_path, monkeypatch):
    driver = Driver()
    load(driver, tmp_path, monkeypatch).launch(Launch("apex_a", (1, 1, 1), (32, 1, 1), 50_000, ()), stream=0)
    assert ("cuFuncSetAttribute", "<cuModuleGetFunction>", "most shared", 50_000) in driver.calls


@pytest.mark.parametrize(
    "call, reason", [("cuModuleGetFunction", "kernel_load_failed"), ("cuLaunchKernel", "kernel_launch_failed")]
)
def test_a_refusal_of_the_driver_is_a_reason(call, reason, tmp_path, monkeypatch):
    module = load(Driver(call), tmp_path, monkeypatch)
    with pytest.raises(KernelError, match=f"{call}: CUDA_ERROR_INVALID_IMAGE") as caught:
        module.launch(LAUNCH, stream=0)
    assert caught.value.reason == reason
    with pytest.raises(KernelError, match="cuModuleLoadData"):
        load(Driver("cuModuleLoadData"), tmp_path, monkeypatch)


def test_cuda_python_is_missing_or_broken(monkeypatch):
    for raised, reason in (
        (ModuleNotFoundError("cuda"), "cuda_python_not_installed"),
        (OSError("lib"), "cuda_python_import_failed"),
    ):

        def refuse(name, raised=raised):
            raise raised

        monkeypatch.setattr(cuda.importlib, "import_module", refuse)
        cuda.import_driver.cache_clear()
        with pytest.raises(KernelError) as caught:
            cuda.import_driver()
        assert caught.value.reason == reason


def test_a_size_beyond_32_bits_is_refused():
    with pytest.raises(ValueError, match="2147483648"):
        arguments((0,), (INT_MAX + 1,), (0,))


def test_switched_off_kernels_are_not_even_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: pytest.fail("asked for a GPU"))
    with use_kernels(False), use_kernels(True):
        reason = why_not("tile_pack")
    assert reason is not None and reason.reason == "kernels_switched_off"
