"""By what TensorRT computes each op of ours: by its plugin where that can be registered here, by the function body where not.

Asked before every build and before every load, only for the ops that the graph really calls.

Never executed on a GPU: unproven. The tests ask NVIDIA's own registry.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from apex_plugins.catalogue import folder_of, specs
from apex_plugins.kernels.reasons import KernelError
from apex_plugins.spec import OpSpec
from apex_runtime.backends.op_calls import OpCall
from apex_runtime.backends.plugin_contract import Problem, call_problem, registry_problem
from apex_runtime.backends.reasons import REMEDIES, ReasonCode, backend_error
from apex_runtime.errors import BackendError

# body: the standard ops that the file carries. plan: our plugin, whose kernel the plan carries. registry: a plugin that must be
# registered again wherever the plan is loaded.
Implementation = Literal["body", "plan", "registry"]


@dataclass(frozen=True)
class PluginUse:
    """By what a call is computed. Where it is the body, ``reason`` is the code of why no plugin was, ``detail`` its words."""

    call: OpCall
    implementation: Implementation = "body"
    reason: str = ""
    detail: str = ""

    @property
    def has_plugin(self) -> bool:
        """Whether a plugin computes it."""
        return self.implementation != "body"


def choose_implementations(trt: ModuleType, calls: Sequence[OpCall], plugins: bool = True) -> tuple[PluginUse, ...]:
    """Register the plugins of these calls and say by what each is to be built, in the order of the calls.

    An op without a plugin here is built from its body, and without ``plugins`` every op is: none is registered then.
    Raises BackendError: a plugin of that name that does not fit, a node that asks for another version or other attributes than
    the op has, an op with neither plugin nor body.
    """
    return tuple(_choose(trt, call, plugins) for call in calls)


def as_parsed(trt: ModuleType, network: Any, uses: tuple[PluginUse, ...]) -> tuple[PluginUse, ...]:
    """What the parser made of the choice: plugin layers are counted, so that what is reported is what is in the plan.

    Raises BackendError when it took only some of the plugins, for nothing tells which.
    """
    wanted = sum(use.call.count for use in uses if use.has_plugin)
    if not wanted:
        return uses
    found = sum(network.get_layer(index).type == trt.LayerType.PLUGIN_V3 for index in range(network.num_layers))
    if found == wanted:
        return uses
    words = f"TensorRT's parser made {found} plugin layers of {wanted} nodes"
    if found:
        raise backend_error(ReasonCode.PLUGIN_NOT_USED, f"{words}.")
    return tuple(
        replace(use, implementation="body", reason=ReasonCode.PLUGIN_NOT_USED.value, detail=words) if use.has_plugin else use
        for use in uses
    )


def check_before_load(trt: ModuleType, call: OpCall, implementation: Implementation) -> None:
    """Whether a plan that computes ``call`` so can be loaded here. Raises BackendError with the code of what does not fit.

    A kernel that the plan carries needs no plugin, so that only what was recorded is held against the op.
    """
    if implementation == "body":
        return
    spec = _spec(call)
    if spec is None:
        raise _refusal(call, Problem(ReasonCode.PLUGIN_NOT_AVAILABLE, "this apex-x has no op of that name"))
    _check_call(call, spec)
    if implementation == "registry":
        unavailable = _register(trt, spec).unavailable
        problem = registry_problem(trt.get_plugin_registry(), spec)
        if problem is not None:
            words = f"{problem.words} ({unavailable[1]})" if unavailable else problem.words
            raise _refusal(call, replace(problem, words=words))


def _choose(trt: ModuleType, call: OpCall, plugins: bool) -> PluginUse:
    spec = _spec(call)
    if spec is None:
        return _by_body(call, "", "this apex-x has no plugin of that name")
    _check_call(call, spec)
    if not plugins:
        return _by_body(call, ReasonCode.PLUGINS_SWITCHED_OFF.value, "plugins were switched off")
    registration = _register(trt, spec)
    problem = registry_problem(trt.get_plugin_registry(), spec)
    if problem is None:
        return PluginUse(call, registration.implementation)
    if problem.code != ReasonCode.PLUGIN_NOT_REGISTERED:  # it would compute something else, unseen: no reason to take the body
        raise _refusal(call, problem)
    return _by_body(call, *(registration.unavailable or (problem.code.value, problem.words)))


def _by_body(call: OpCall, reason: str, detail: str) -> PluginUse:
    if not call.body:
        raise backend_error(
            ReasonCode.PLUGIN_NOT_AVAILABLE, f"{call.namespace}.{call.name} has no body in the model, and no plugin: {detail}."
        )
    return PluginUse(call, "body", reason, detail)


@dataclass(frozen=True)
class _Registration:
    """What came of registering a plugin; ``unavailable``: code and words of why ours could not be."""

    implementation: Implementation = "registry"
    unavailable: tuple[str, str] | None = None


def _register(trt: ModuleType, spec: OpSpec) -> _Registration:
    """Leave a plugin that fits and is not ours in its place; else import ours, which registers it."""
    name = f"apex_plugins.{folder_of(spec.name)}.trt_plugin"
    if name not in sys.modules and registry_problem(trt.get_plugin_registry(), spec) is None:
        return _Registration()
    try:
        return _Registration(importlib.import_module(name).IMPLEMENTATION)
    except KernelError as error:
        return _Registration(unavailable=(error.reason.value, error.message))
    except Exception as error:  # the bindings raise whatever they raise: AttributeError, ValueError, RuntimeError, ...
        words = f"{type(error).__name__}: {error}"
        return _Registration(unavailable=(ReasonCode.PLUGIN_IMPORT_FAILED.value, words))


def _check_call(call: OpCall, spec: OpSpec) -> None:
    problem = call_problem(call, spec)
    if problem is not None:
        raise _refusal(call, problem)


def _spec(call: OpCall) -> OpSpec | None:
    folder = folder_of(call.name)
    return None if folder is None else specs()[folder]


def _refusal(call: OpCall, problem: Problem) -> BackendError:
    words = f"plugin {call.namespace}.{call.name} version {call.version}: {problem.words}."
    return backend_error(problem.code, words, remedy=REMEDIES[problem.code].replace("<op>", folder_of(call.name) or "<op>"))
