"""Plans of TensorRT and of TensorRT for RTX, through one adapter: their Python APIs are one module under two names.

TensorRT for RTX builds on a machine without a GPU, one plan per compute capability that is asked for. TensorRT builds for the GPU
it runs on. The batch is dynamic; the budget ``tiles`` is a shape tensor, so that one plan serves every budget from 1 to N.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from apex_runtime.backends.capabilities import compute_capability
from apex_runtime.backends.matrix_products import FIRST_WITH_FP32_GEMM, NOTE, without_matrix_products
from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.backends.op_calls import op_calls
from apex_runtime.backends.plugin_use import PluginUse, as_parsed, choose_implementations
from apex_runtime.backends.reasons import ReasonCode, argument_error, backend_error
from apex_runtime.backends.tensorrt_api import Log, load_flavour, make_logger, reasons_of
from apex_runtime.backends.timing_cache import Note, TimingCache
from apex_runtime.model_info import ModelInfo, input_names

DEFAULT_COMPUTE_CAPABILITIES = (75, 86, 89, 120)
FIRST_WITH_FP8 = 89  # compute capability

# (compute capability, what the builder is at, steps done, steps in all); False cancels. An exception cannot: the builder is C++.
Progress = Callable[[int, str, int, int], bool]


@dataclass(frozen=True)
class ShapeRange:
    """The optimisation profile of one input: smallest, typical and largest shape; for ``tiles`` the values themselves."""

    input: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]
    is_value: bool = False


@dataclass(frozen=True)
class Plan:
    """One serialised engine for one compute capability (89 for sm_89); 0 where the building machine's GPU did not say.

    ``note`` says what was changed in the graph for this target, if anything; ``plugins`` by what the ops of ours are computed.
    """

    compute_capability: int
    data: bytes
    note: str = ""
    plugins: tuple[PluginUse, ...] = ()

    @property
    def file_name(self) -> str:
        """``plan.sm89``; ``plan.local`` for a plan of the building machine's own GPU."""
        return f"plan.sm{self.compute_capability}" if self.compute_capability else "plan.local"


def optimisation_profile(info: ModelInfo, max_batch: int) -> tuple[ShapeRange, ...]:
    """Batch 1 to ``max_batch`` (tuned for 1), ``tiles`` 1 to N (tuned for a quarter of them); of finer levels 0 to N."""
    h, w = info.input.height, info.input.width
    images, *names = input_names(info.tiles.depth)
    ranges = [ShapeRange(images, (1, h, w, 3), (1, h, w, 3), (max_batch, h, w, 3))]
    for tiles, bonus, grid in zip(names[::2], names[1::2], info.tiles.levels, strict=True):
        n, least = grid.count, 0 if grid.level else 1
        ranges.append(ShapeRange(tiles, (least,), (max(1, n // 4),), (n,), is_value=True))
        ranges.append(ShapeRange(bonus, (1, n), (1, n), (max_batch, n)))
    return tuple(ranges)


def build_plans(
    file: OnnxFile,
    flavour: str,
    capabilities: Sequence[int],
    max_batch: int = 1,
    progress: Progress | None = None,
    log: Log | None = None,
    timing_cache: Path | None = None,
    note: Note = lambda _text: None,
    plugins: bool = True,
) -> list[Plan]:
    """One plan per compute capability, in the order asked.

    ``timing_cache``: the file of TensorRT's kernel timings, None for the user's own; ``note`` hears what was wrong with it, and
    which ops are built from their bodies for want of a plugin. Without ``plugins`` all are; TensorRT for RTX has none.
    Raises BackendError with the parser's or builder's own words, KeyboardInterrupt when ``progress`` cancels.
    """
    trt = load_flavour(flavour)
    targets = _targets(trt, flavour, capabilities)
    uses = choose_implementations(trt, op_calls(file.model), plugins) if flavour == "tensorrt" else ()
    logger = make_logger(trt, log)
    plans = []
    for number, target in targets:
        source, changed = _for_target(file if plugins else _of_bodies(file), number)
        # TensorRT for RTX times nothing
        timing = TimingCache(flavour, str(trt.__version__), number, timing_cache, note) if flavour == "tensorrt" else None
        plan, built = _build_one(trt, source, number, target, max_batch, logger, progress, timing, uses)
        plans.append(Plan(number, plan, changed, built))
    for use in plans[0].plugins:
        if use.reason:
            note(f"{use.call.name} is built from its function body: {use.detail} [{use.reason}]")
    return plans


def _of_bodies(file: OnnxFile) -> OnnxFile:
    """The file with its functions in place of their calls, so that a parser finds no node that a plugin could take."""
    from onnx import inliner

    model = inliner.inline_local_functions(file.model)
    return replace(file, data=model.SerializeToString(), model=model)


def _for_target(file: OnnxFile, number: int) -> tuple[OnnxFile, str]:
    """The file as this compute capability can take it, and what was changed."""
    if not 0 < number < FIRST_WITH_FP32_GEMM:
        return file, ""
    model = without_matrix_products(file.model)
    return replace(file, data=model.SerializeToString(), model=model), NOTE


def supported_capabilities(trt: ModuleType) -> tuple[int, ...]:
    """The numbers that this build of TensorRT names as targets; empty when it only builds for the local GPU."""
    names = getattr(trt, "ComputeCapability", None)
    members = [] if names is None else list(names.__members__)
    return tuple(sorted(int(name[2:]) for name in members if re.fullmatch(r"SM\d+", name)))


def capabilities_for_fp8(flavour: str, capabilities: Sequence[int]) -> tuple[int, ...]:
    """The compute capabilities to build a graph with FP8 for: those that were asked for, or the default ones that have FP8.

    Raises UsageError, code ``compute_capability_below_sm89``, when one has none; a plan that is built for the GPU of this
    machine is for that one.
    """
    here = compute_capability() if flavour == "tensorrt" else None
    below = [number for number in (*capabilities, *([here] if here else [])) if number < FIRST_WITH_FP8]
    if below:
        names = ", ".join(f"sm_{number}" for number in below)
        message = f"{flavour}: {names} has no FP8; it begins with sm_{FIRST_WITH_FP8}."
        raise argument_error(ReasonCode.COMPUTE_CAPABILITY_BELOW_SM89, message)
    if capabilities or flavour == "tensorrt":
        return tuple(capabilities)
    return tuple(number for number in DEFAULT_COMPUTE_CAPABILITIES if number >= FIRST_WITH_FP8)


def _targets(trt: ModuleType, flavour: str, capabilities: Sequence[int]) -> list[tuple[int, Any]]:
    known = supported_capabilities(trt)
    if not known:
        if capabilities:
            raise argument_error(
                ReasonCode.COMPUTE_CAPABILITY_NOT_SUPPORTED,
                f"{flavour} builds for the GPU of this machine only; it cannot target {', '.join(map(str, capabilities))}.",
                remedy="Leave --compute-capability out, or use --backend tensorrt-rtx.",
            )
        return [(compute_capability() or 0, None)]
    wanted = tuple(dict.fromkeys(capabilities or DEFAULT_COMPUTE_CAPABILITIES))
    unknown = [number for number in wanted if number not in known]
    if unknown:
        raise argument_error(
            ReasonCode.COMPUTE_CAPABILITY_NOT_SUPPORTED,
            f"{flavour} {trt.__version__} cannot target compute capability {', '.join(map(str, unknown))}.",
            remedy=f"It knows {', '.join(map(str, known))}.",
        )
    return [(number, getattr(trt.ComputeCapability, f"SM{number}")) for number in wanted]


def _build_one(
    trt: ModuleType,
    file: OnnxFile,
    number: int,
    target: Any,
    max_batch: int,
    logger: Any,
    progress: Progress | None,
    timing: TimingCache | None,
    uses: tuple[PluginUse, ...],
) -> tuple[bytes, tuple[PluginUse, ...]]:
    logger.errors.clear()
    builder = trt.Builder(logger)
    network = _parse(trt, builder, file, logger, uses)
    built = as_parsed(trt, network, uses)
    config = builder.create_builder_config()
    _add_profile(builder, network, config, optimisation_profile(file.info, max_batch), file)
    if target is not None:
        _set_target(trt, config, number, target)
    if timing is not None:
        timing.attach(config)
    monitor = _make_monitor(trt, number, progress) if progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    memory = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.cancelled:
        raise KeyboardInterrupt
    if memory is None:
        raise backend_error(ReasonCode.PLAN_BUILD_FAILED, f"{file.path}: no plan for sm_{number}: {reasons_of(logger)}")
    if timing is not None:
        timing.keep(config)
    return bytes(memory), built


def _set_target(trt: ModuleType, config: Any, number: int, target: Any) -> None:
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(target, 0):
        raise argument_error(ReasonCode.COMPUTE_CAPABILITY_NOT_SUPPORTED, f"the builder refuses compute capability {number}.")
    # TensorRT for RTX lets a CUDA graph be captured only of plans that allocate nothing by themselves.
    user_allocation = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if user_allocation is not None:
        config.set_flag(user_allocation)


def _parse(trt: ModuleType, builder: Any, file: OnnxFile, logger: Any, uses: Sequence[PluginUse]) -> Any:
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    override = getattr(trt.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE", None) if any(use.has_plugin for use in uses) else None
    if override is not None:  # parsers differ in whether a node that names its plugin comes before the function of that name
        parser.set_flag(override)
    if not parser.parse(file.data):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        words = "; ".join(
            f"node {error.node_name() or error.node()} ({error.node_operator()}): {error.desc()}" for error in errors[:3]
        )
        raise backend_error(ReasonCode.ONNX_PARSE_FAILED, f"{file.path}: the parser refuses it: {words or reasons_of(logger)}")
    return network


def _add_profile(builder: Any, network: Any, config: Any, ranges: Sequence[ShapeRange], file: OnnxFile) -> None:
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    profile = builder.create_optimization_profile()
    for item in ranges:
        if item.is_value and not inputs[item.input].is_shape_tensor:
            raise backend_error(
                ReasonCode.PLAN_BUILD_FAILED,
                f"{file.path}: input {item.input} decides no shape, so that a budget would do nothing.",
            )
        set_range = profile.set_shape_input if item.is_value else profile.set_shape
        set_range(item.input, item.minimum, item.optimum, item.maximum)
    if config.add_optimization_profile(profile) < 0:
        raise backend_error(ReasonCode.PLAN_BUILD_FAILED, f"{file.path}: the optimisation profile is refused.")


def _make_monitor(trt: ModuleType, number: int, progress: Progress) -> Any:
    """Follows the outermost phase, whose steps make an even bar, and asks at every inner step whether to go on."""

    class Following(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost = ""
            self.done = self.steps = 0
            self.cancelled = False

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outermost, self.done, self.steps = name, 0, steps
                self.report()

        def step_complete(self, name: str, step: int) -> bool:
            if name == self.outermost:
                self.done = step + 1
            return self.report()

        def phase_finish(self, name: str) -> None:
            if name == self.outermost:
                self.done = self.steps
                self.report()

        def report(self) -> bool:
            self.cancelled = self.cancelled or not progress(number, self.outermost, self.done, self.steps)
            return not self.cancelled

    return Following()
