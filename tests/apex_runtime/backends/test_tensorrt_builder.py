"""The TensorRT adapter: against a fake module for its decisions, against TensorRT for RTX itself where that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest

from apex_runtime.backends import tensorrt_builder
from apex_runtime.backends.onnx_contract import OnnxFile, read_onnx
from apex_runtime.backends.plugin_use import PluginUse
from apex_runtime.backends.tensorrt_builder import build_plans, optimisation_profile
from apex_runtime.errors import ApexError, BackendError, UsageError

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason='TensorRT for RTX is not installed: pip install ".[rtx]"',
)


@pytest.fixture(scope="module")
def model(tiny_onnx: Path) -> OnnxFile:
    return read_onnx(tiny_onnx)


class _Base:
    """Stands for ILogger and IProgressMonitor: anything one may derive from."""


class FakeTensorRT:
    """Just enough of the API to follow what the adapter does with it."""

    __version__ = "11.0.fake"

    def __init__(
        self, *, targets: tuple[int, ...] = (), parses: bool = True, builds: bool = True, shape_tensor: bool = True
    ) -> None:
        severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", VERBOSE="verbose")
        self.ILogger = type("ILogger", (_Base,), {"Severity": severity})
        self.IProgressMonitor = type("IProgressMonitor", (_Base,), {})
        self.parses, self.builds, self.shape_tensor = parses, builds, shape_tensor
        self.OnnxParserFlag = SimpleNamespace(ENABLE_PLUGIN_OVERRIDE="override")
        self.LayerType = SimpleNamespace(PLUGIN_V3="plugin")
        self.parser_flags: list[str] = []
        self.parsed: list[bytes] = []
        self.plugin_layers = 0
        self.profiles: list[dict[str, tuple]] = []
        self.configs: list[SimpleNamespace] = []
        self.BuilderFlag = SimpleNamespace(REQUIRE_USER_ALLOCATION="user allocation") if targets else SimpleNamespace(TF32="tf32")
        if targets:
            members = {"NONE": 0, "CURRENT": 1} | {f"SM{number}": number for number in targets}
            self.ComputeCapability = SimpleNamespace(__members__=members, **members)

    def Builder(self, logger: Any) -> SimpleNamespace:
        inputs = [
            SimpleNamespace(name=name, is_shape_tensor=name == "tiles" and self.shape_tensor)
            for name in ("images", "tiles", "tile_bonus")
        ]
        layers = [SimpleNamespace(type="plugin") for _ in range(self.plugin_layers)]
        network = SimpleNamespace(
            num_inputs=3, get_input=inputs.__getitem__, num_layers=len(layers), get_layer=layers.__getitem__
        )

        def build(_network: object, config: SimpleNamespace) -> bytes | None:
            self.configs.append(config)
            if not self.builds:
                logger.log("error", "no tactic for node 7")
            return b"plan" if self.builds else None

        return SimpleNamespace(
            create_network=lambda _flags: network,
            create_builder_config=self._config,
            create_optimization_profile=self._profile,
            build_serialized_network=build,
        )

    def OnnxParser(self, _network: object, _logger: object) -> SimpleNamespace:
        error = SimpleNamespace(
            node_name=lambda: "TilePack_3", node=lambda: 3, node_operator=lambda: "TilePack", desc=lambda: "unsupported op"
        )
        return SimpleNamespace(
            parse=lambda data: self.parsed.append(data) or self.parses,
            num_errors=1,
            get_error=lambda _index: error,
            set_flag=self.parser_flags.append,
        )

    def _config(self) -> SimpleNamespace:
        config = SimpleNamespace(target=None, flags=[], timings=None)
        config.set_flag = config.flags.append
        config.create_timing_cache = lambda data: data
        config.set_timing_cache = lambda cache, _ignore: setattr(config, "timings", cache) is None
        config.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: config.timings + b"t")

        def set_target(target: int, _index: int) -> bool:
            config.target = target
            return True

        config.set_compute_capability = set_target
        config.add_optimization_profile = lambda profile: self.profiles.append(profile.shapes) or 0
        return config

    def _profile(self) -> SimpleNamespace:
        shapes: dict[str, tuple] = {}

        def note(kind: str) -> Any:
            return lambda name, low, typical, high: shapes.update({name: (kind, low, typical, high)})

        return SimpleNamespace(shapes=shapes, set_shape=note("shape"), set_shape_input=note("values"))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(fake: FakeTensorRT) -> FakeTensorRT:
        monkeypatch.setattr(tensorrt_builder, "load_flavour", lambda _flavour: fake)
        return fake

    return install


def test_one_plan_per_capability_with_the_budget_as_values(model: OnnxFile, use: Any) -> None:
    fake = use(FakeTensorRT(targets=(75, 86, 89, 120)))
    plans = build_plans(model, "tensorrt-rtx", [89, 75, 89], max_batch=4)
    assert [plan.file_name for plan in plans] == ["plan.sm89", "plan.sm75"]
    assert [config.target for config in fake.configs] == [89, 75]
    assert all(config.flags == ["user allocation"] and config.timings is None for config in fake.configs)
    assert fake.profiles[0] == {
        "images": ("shape", (1, 128, 128, 3), (1, 128, 128, 3), (4, 128, 128, 3)),
        "tiles": ("values", (1,), (4,), (16,)),
        "tile_bonus": ("shape", (1, 16), (1, 16), (4, 16)),
    }


@pytest.mark.parametrize(("capability", "name"), [(90, "plan.sm90"), (None, "plan.local")])
def test_a_flavour_without_targets_builds_for_the_local_gpu(
    model: OnnxFile, use: Any, capability: int | None, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tensorrt_builder, "compute_capability", lambda: capability)
    fake = use(FakeTensorRT())
    timings = tmp_path / "timings"
    for _ in range(2):
        assert [plan.file_name for plan in build_plans(model, "tensorrt", [], timing_cache=timings)] == [name]
    assert [config.timings for config in fake.configs] == [b"", b"t"], "the second build knows what the first one timed"
    with pytest.raises(UsageError, match="this machine only"):
        build_plans(model, "tensorrt", [89])


def test_plugins_are_asked_for_and_the_plan_says_what_became_of_it(
    model: OnnxFile, use: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tensorrt_builder, "compute_capability", lambda: 89)
    chosen = {"implementation": "plan", "reason": "", "detail": ""}
    monkeypatch.setattr(
        tensorrt_builder,
        "choose_implementations",
        lambda _trt, calls, _plugins: tuple(PluginUse(call, **chosen) for call in calls),
    )
    fake, notes = use(FakeTensorRT()), []
    fake.plugin_layers = 1
    build = lambda: build_plans(model, "tensorrt", [], timing_cache=tmp_path / "timings", note=notes.append)[0]  # noqa: E731
    assert [(item.call.name, item.implementation) for item in build().plugins] == [("SelectionKey", "plan")]
    assert fake.parser_flags == ["override"] and notes == []
    fake.plugin_layers = 0
    assert build().plugins[0].implementation == "body"
    assert "SelectionKey is built from its function body" in notes[0] and "[plugin_not_used]" in notes[0]
    fake.parser_flags.clear()
    chosen |= {"implementation": "body", "reason": "nvcc_not_found", "detail": "no nvcc"}
    assert build().plugins[0].reason == "nvcc_not_found" and "no nvcc [nvcc_not_found]" in notes[1]
    assert fake.parser_flags == [], "without plugins the parser is left as it is"


def test_without_plugins_the_parser_sees_no_node_that_one_could_take(
    repo_root: Path, use: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = read_onnx(repo_root / "engines" / "nuclei-nano" / "model.onnx")
    assert "apex" in {node.domain for node in model.model.graph.node}
    monkeypatch.setattr(tensorrt_builder, "compute_capability", lambda: 89)
    fake = use(FakeTensorRT())  # it has no registry that could be asked
    (plan,) = build_plans(model, "tensorrt", [], timing_cache=tmp_path / "timings", plugins=False)
    assert {item.implementation for item in plan.plugins} == {"body"}
    assert {item.reason for item in plan.plugins if item.call.name == "TilePack"} == {"plugins_switched_off"}
    (data,) = fake.parsed
    parsed = onnx.load_from_string(data)
    assert not parsed.functions and {node.domain for node in parsed.graph.node} == {""}
    before, after = (onnxruntime.InferenceSession(item, providers=["CPUExecutionProvider"]) for item in (model.data, data))
    assert [item.name for item in after.get_outputs()] == [item.name for item in before.get_outputs()]


@pytest.mark.parametrize(
    ("fake", "code", "words"),
    [
        (FakeTensorRT(targets=(89,), parses=False), "onnx_parse_failed", r"TilePack_3 \(TilePack\): unsupported op"),
        (FakeTensorRT(targets=(89,), builds=False), "plan_build_failed", "no tactic for node 7"),
        (FakeTensorRT(targets=(89,), shape_tensor=False), "plan_build_failed", "decides no shape"),
        (FakeTensorRT(targets=(75, 86)), "compute_capability_not_supported", "89"),
    ],
)
def test_failures_carry_a_code_and_the_tools_own_words(
    model: OnnxFile, use: Any, fake: FakeTensorRT, code: str, words: str
) -> None:
    use(fake)
    with pytest.raises(ApexError, match=words) as caught:
        build_plans(model, "tensorrt-rtx", [89])
    assert caught.value.code == code
    assert caught.value.exit_code == (2 if code == "compute_capability_not_supported" else 1)
    assert caught.value.remedy


def test_without_the_wheels_the_error_says_how_to_get_them(model: OnnxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    from apex_runtime.backends import capabilities

    monkeypatch.setitem(capabilities.TENSORRT_MODULES, "tensorrt-rtx", ("a_module_that_is_not_there",))
    with pytest.raises(BackendError) as caught:
        build_plans(model, "tensorrt-rtx", [89])
    assert caught.value.code == "tensorrt_rtx_python_not_installed"
    assert 'pip install ".[rtx]"' in caught.value.remedy


def test_the_profile_of_a_single_tile(model: OnnxFile) -> None:
    info = model.info.model_copy(update={"tiles": model.info.tiles.model_copy(update={"rows": 1, "cols": 1})})
    tiles = optimisation_profile(info, 1)[1]
    assert (tiles.minimum, tiles.optimum, tiles.maximum) == ((1,), (1,), (1,))


@needs_rtx
def test_tensorrt_for_rtx_builds_plans_here(model: OnnxFile) -> None:
    seen: list[tuple[int, int, int]] = []

    def progress(capability: int, _stage: str, done: int, total: int) -> bool:
        seen.append((capability, done, total))
        return True

    plans = build_plans(model, "tensorrt-rtx", [75, 89], max_batch=2, progress=progress)
    assert [plan.compute_capability for plan in plans] == [75, 89]
    assert all(len(plan.data) > 10_000 for plan in plans)
    assert plans[0].data != plans[1].data
    assert [bool(plan.note) for plan in plans] == [True, False], "the model has a MatMul, which Turing cannot do in fp32"
    assert {cc for cc, done, total in seen if done == total} == {75, 89}


@needs_rtx
def test_tensorrt_for_rtx_names_the_node_it_refuses(model: OnnxFile) -> None:
    import onnx

    broken = onnx.ModelProto()
    broken.CopyFrom(model.model)
    del broken.functions[:]
    file = OnnxFile(model.path, broken.SerializeToString(), broken, model.info)
    with pytest.raises(BackendError) as caught:
        build_plans(file, "tensorrt-rtx", [89])
    assert caught.value.code == "onnx_parse_failed"
    assert "SelectionKey" in caught.value.message


@needs_rtx
def test_an_unknown_target_is_refused_with_the_known_ones(model: OnnxFile) -> None:
    with pytest.raises(UsageError) as caught:
        build_plans(model, "tensorrt-rtx", [90])
    assert "75" in caught.value.remedy


@needs_rtx
@pytest.mark.parametrize("steps", [0, 3])
def test_a_build_can_be_cancelled_between_any_two_steps(model: OnnxFile, steps: int) -> None:
    calls: list[int] = []

    def progress(capability: int, *_rest: object) -> bool:
        calls.append(capability)
        return len(calls) <= steps

    with pytest.raises(KeyboardInterrupt):
        build_plans(model, "tensorrt-rtx", [86, 89], progress=progress)
    assert set(calls) == {86}, "the second plan is not begun"
