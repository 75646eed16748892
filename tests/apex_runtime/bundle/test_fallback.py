"""The chain tensorrt > ort-cuda > ort-cpu: strict stops at the first, permissive keeps what every step said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import FakeDevice, FakeTensorRT

from apex_runtime.backends import device as device_module
from apex_runtime.backends import ort_cuda, tensorrt_engine
from apex_runtime.backends.capabilities import Answer, Capability
from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.tensorrt_builder import Plan
from apex_runtime.backends.tensorrt_session import TensorRTSession
from apex_runtime.bundle import build as building
from apex_runtime.bundle import fallback, verify
from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.errors import BackendError, BundleError, ModelError, UsageError

VERSION = FakeTensorRT.__version__


class Machine:
    """A machine on which a test decides what is installed; everything is, at first, with a GPU of sm_89."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
        self.device = FakeDevice()
        self.trt = FakeTensorRT(model, self.device)
        self.trt.get_plugin_registry = lambda: SimpleNamespace(all_creators=self.plugins)
        self.plugins: list[object] = []
        self.missing: dict[str, ReasonCode] = {}
        self.capability = 89
        self.cuda_opens: list[tuple] = []
        self.cuda_fails = False
        monkeypatch.setattr(fallback, "probe", self._probe)
        monkeypatch.setattr(verify, "compute_capability", lambda _index: self.capability)
        monkeypatch.setattr(verify, "import_tensorrt", lambda _flavour: (self.trt, Answer()))
        monkeypatch.setattr(tensorrt_engine, "load_flavour", lambda _flavour: self.trt)
        monkeypatch.setattr(device_module, "open_device", self._open_device)
        monkeypatch.setattr(ort_cuda, "OrtCudaSession", self._open_cuda)

    def _probe(self, backend: str, index: int) -> Capability:
        reason = self.missing.get(backend)
        answer = Answer() if reason is None else Answer(reason, f"nothing for {backend} on cuda:{index}")
        return Capability(backend, "1", answer, answer)

    def _open_device(self, index: int) -> FakeDevice:
        self.opened_index = index
        return self.device

    def _open_cuda(self, path: Path, index: int, threads: int | None) -> OrtSession:
        self.cuda_opens.append((path, index, threads))
        if self.cuda_fails:
            raise backend_error(ReasonCode.FLOAT_NODES_ON_CPU, f"{path}: Conv.")
        return OrtSession(path, threads)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path, tmp_path: Path) -> Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Machine(monkeypatch, tiny_onnx)


@pytest.fixture
def plans(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``plans(backend, 75, 89)``: a bundle with plans of a few bytes, for the installed version."""

    def make(backend: str = "tensorrt-rtx", *numbers: int) -> Path:
        monkeypatch.setattr(building, "build_plans", lambda *_all: [Plan(n, f"plan {n}".encode()) for n in numbers])
        monkeypatch.setattr(building, "probe", lambda name: Capability(name, VERSION, Answer(), Answer()))
        build_bundle(tiny_onnx, backend, tmp_path / "bundle", max_batch=4)
        return tmp_path / "bundle"

    return make


def edit(bundle: Path, **values: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def story(opened: Opened) -> tuple[str, str, str, str]:
    return opened.requested, opened.selected, opened.executed, opened.reason


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("device", ["cpu", "cuda:3"])
def test_a_bundle_runs_by_its_own_backend_where_that_can(
    machine: Machine, plans: Callable[..., Path], backend: str, device: str
) -> None:
    opened = open_engine(plans(backend, 75, 89), device=device)
    assert story(opened) == (backend, backend, backend, "") and opened.refusals == ()
    assert isinstance(opened.session, TensorRTSession) and opened.session.name == backend
    assert opened.device == f"cuda:{machine.opened_index}" == ("cuda:0" if device == "cpu" else device)
    outputs = opened.session.run(np.zeros((2, 128, 128, 3), np.uint8), 3, np.zeros((2, 16), np.float32))
    assert outputs["tile_ids"].shape == (2, 3)


def test_the_plan_of_the_running_gpu_is_taken(
    machine: Machine, plans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    real = machine.trt.Runtime

    def watched(logger: object) -> SimpleNamespace:
        runtime = real(logger)
        return SimpleNamespace(deserialize_cuda_engine=lambda data: (seen.append(data), runtime.deserialize_cuda_engine(data))[1])

    monkeypatch.setattr(machine.trt, "Runtime", watched)
    open_engine(plans("tensorrt-rtx", 75, 86, 89))
    assert seen == [b"plan 89"]


def test_a_plan_of_an_unnamed_gpu_is_tried(machine: Machine, plans: Callable[..., Path]) -> None:
    assert open_engine(plans("tensorrt", 0)).executed == "tensorrt"


STEPS = [
    ({}, False, ("tensorrt-rtx", "tensorrt-rtx")),
    ({"tensorrt-rtx": ReasonCode.CUDA_PYTHON_NOT_INSTALLED}, False, ("ort-cuda", "ort-cuda")),
    ({"tensorrt-rtx": ReasonCode.CUDA_UNAVAILABLE, "ort-cuda": ReasonCode.CUDA_UNAVAILABLE}, False, ("ort-cpu", "ort-cpu")),
    ({"tensorrt-rtx": ReasonCode.CUDA_PYTHON_NOT_INSTALLED}, True, ("ort-cuda", "ort-cpu")),
]


@pytest.mark.parametrize(("missing", "cuda_fails", "wanted"), STEPS)
def test_permissive_takes_the_next_that_can_and_keeps_why(
    machine: Machine, plans: Callable[..., Path], missing: dict, cuda_fails: bool, wanted: tuple[str, str]
) -> None:
    bundle = plans("tensorrt-rtx", 89)
    machine.missing, machine.cuda_fails = missing, cuda_fails
    opened = open_engine(bundle, threads=1, policy="permissive")
    first = missing["tensorrt-rtx"].value if missing else ""
    assert story(opened) == ("tensorrt-rtx", *wanted, first)
    codes = {refusal.backend: refusal.code for refusal in opened.refusals}
    assert codes == {name: code.value for name, code in missing.items()} | (
        {"ort-cuda": "float_nodes_on_cpu"} if cuda_fails else {}
    )
    assert all(code in refusal.message for refusal, code in zip(opened.refusals, codes.values(), strict=True))
    assert opened.device == ("cpu" if wanted[1] == "ort-cpu" else "cuda:0")
    assert {path for path, _, _ in machine.cuda_opens} <= {bundle / "model.onnx"}, "the same graph"


def test_permissive_falls_back_when_a_plan_fails_to_load(machine: Machine, plans: Callable[..., Path]) -> None:
    machine.trt.loads, machine.trt.words = False, "the plan is of another planet"
    opened = open_engine(plans("tensorrt", 89), policy="permissive")
    assert story(opened) == ("tensorrt", "tensorrt", "ort-cuda", "plan_load_failed")
    assert "another planet" in opened.refusals[0].message and machine.device.closed


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda m, _b: m.missing.update({"tensorrt-rtx": ReasonCode.CUDA_UNAVAILABLE}), "cuda_unavailable", "nothing for"),
        (lambda m, _b: setattr(m, "capability", 90), "plan_for_other_gpu", "sm_90; it has sm_75, sm_89"),
        (lambda m, _b: setattr(m, "capability", None), "plan_for_other_gpu", "it has sm_75, sm_89"),
        (lambda _m, b: edit(b, backend_version="1.6.0"), "plan_for_other_version", f"1.6.0, installed here is {VERSION}"),
        (
            lambda _m, b: edit(b, plugins=[{"name": "TilePack", "namespace": "apex", "version": "1", "body": False}]),
            "plugin_not_available",
            "TilePack version 1 has no body",
        ),
    ],
)
def test_strict_names_what_does_not_fit_before_the_backend_sees_the_plan(
    machine: Machine,
    plans: Callable[..., Path],
    change: Callable[[Machine, Path], object],
    code: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = plans("tensorrt-rtx", 75, 89)
    change(machine, bundle)
    monkeypatch.setattr(machine.trt, "Runtime", lambda _logger: pytest.fail("the backend saw the plan"))
    with pytest.raises(BackendError, match=words) as caught:
        open_engine(bundle)
    assert caught.value.code == code and str(bundle) in caught.value.message
    assert "--policy permissive" in caught.value.remedy and str(bundle / "model.onnx") in caught.value.remedy
    if code.startswith("plan_"):
        assert "apex-rt build-engine model.onnx --backend tensorrt-rtx" in caught.value.remedy


def test_a_plan_for_another_gpu_says_with_which_option_to_build_it(machine: Machine, plans: Callable[..., Path]) -> None:
    machine.capability = 86
    with pytest.raises(BackendError) as caught:
        open_engine(plans("tensorrt-rtx", 89))
    assert "--compute-capability 86" in caught.value.remedy


def test_a_registered_plugin_takes_the_place_of_a_body(machine: Machine, plans: Callable[..., Path]) -> None:
    bundle = plans("tensorrt", 89)
    record = {"name": "TilePack", "namespace": "apex", "version": "1", "body": False}
    edit(bundle, plugins=[record | {"attributes": {"tile": "int", "halo": "int"}}])
    with pytest.raises(BackendError, match="plugin_not_registered") as caught:
        open_engine(bundle)
    assert str(bundle) in caught.value.message and "Build the bundle again" in caught.value.remedy
    fields = [SimpleNamespace(name=name, type=SimpleNamespace(name="INT64")) for name in ("tile", "halo")]
    machine.plugins.append(SimpleNamespace(name="TilePack", plugin_version="1", plugin_namespace="apex", field_names=fields))
    assert open_engine(bundle).executed == "tensorrt"


def test_a_plan_with_its_own_kernels_needs_no_plugin_but_ops_of_its_version(machine: Machine, plans: Callable[..., Path]) -> None:
    bundle = plans("tensorrt", 89)
    record = {"name": "TilePack", "namespace": "apex", "body": True, "implementation": "plan"}
    edit(bundle, plugins=[record | {"version": "1", "attributes": {"tile": "int", "halo": "int"}}])
    assert open_engine(bundle).executed == "tensorrt"
    edit(bundle, plugins=[record | {"version": "2", "attributes": {"tile": "int", "halo": "int"}}])
    with pytest.raises(BackendError, match="plugin_version_mismatch"):
        open_engine(bundle)


def test_onnx_runtime_needs_every_body(tiny_bundle: Path) -> None:
    edit(tiny_bundle, plugins=[{"name": "TilePack", "namespace": "apex", "version": "1", "body": False}])
    with pytest.raises(BackendError, match="plugin_not_available"):
        open_engine(tiny_bundle)


def test_a_gpu_by_name_runs_a_model_by_ort_cuda(machine: Machine, tiny_onnx: Path, tiny_bundle: Path) -> None:
    for path in (tiny_onnx, tiny_bundle):
        opened = open_engine(path, threads=2, device="cuda:1")
        assert story(opened) == ("ort-cuda", "ort-cuda", "ort-cuda", "") and opened.device == "cuda:1"
        assert story(open_engine(path, device="cpu"))[2] == "ort-cpu"
    assert machine.cuda_opens == [(tiny_onnx, 1, 2), (tiny_bundle / "model.onnx", 1, 2)]


def test_without_that_gpu_strict_fails_and_permissive_runs_on_the_cpu(machine: Machine, tiny_onnx: Path) -> None:
    machine.missing = {"ort-cuda": ReasonCode.CUDA_DEVICE_INDEX_OUT_OF_RANGE}
    with pytest.raises(BackendError, match="cuda:7") as caught:
        open_engine(tiny_onnx, device="cuda:7")
    assert "--device cpu" in caught.value.remedy
    opened = open_engine(tiny_onnx, device="cuda:7", policy="permissive")
    assert story(opened) == ("ort-cuda", "ort-cpu", "ort-cpu", "cuda_device_index_out_of_range") and opened.device == "cpu"


def test_a_bundle_for_ort_cuda(machine: Machine, tiny_onnx: Path, tmp_path: Path) -> None:
    build_bundle(tiny_onnx, "ort-cuda", tmp_path / "gpu")
    assert story(open_engine(tmp_path / "gpu")) == ("ort-cuda", "ort-cuda", "ort-cuda", "")


def test_what_is_wrong_everywhere_is_not_fallen_back_from(machine: Machine, plans: Callable[..., Path], tmp_path: Path) -> None:
    bundle = plans("tensorrt", 89)
    (bundle / "plan.sm89").write_bytes(b"changed")
    with pytest.raises(BundleError, match="changed after"):
        open_engine(bundle, policy="permissive")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        open_engine(tmp_path / "model.onnx", device="cuda", policy="permissive")
    with pytest.raises(UsageError, match="--threads"):
        open_engine(bundle / "model.onnx", threads=0, policy="permissive")


def test_permissive_gives_the_last_reason_when_nothing_runs(machine: Machine, tiny_onnx: Path) -> None:
    machine.missing = {"ort-cuda": ReasonCode.CUDA_UNAVAILABLE, "ort-cpu": ReasonCode.ONNXRUNTIME_NOT_INSTALLED}
    with pytest.raises(BackendError, match="onnxruntime_not_installed"):
        open_engine(tiny_onnx, device="cuda", policy="permissive")
