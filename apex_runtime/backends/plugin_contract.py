"""Does what is registered fit what an op says of itself, and what a graph asks of it? Name, namespace, version, fields.

TensorRT's parser looks a plugin up by name, version and namespace, and takes the function body without a word when one of them is
off by a letter; a field that a node does not give it leaves at whatever the plugin assumes. So all four are compared first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apex_plugins.spec import DOMAIN, OpSpec
from apex_runtime.backends.op_calls import OpCall
from apex_runtime.backends.reasons import ReasonCode

_FIELD_KINDS = {"int": ("INT8", "INT16", "INT32", "INT64"), "float": ("FLOAT16", "FLOAT32", "FLOAT64")}


@dataclass(frozen=True)
class Problem:
    """What does not fit, in words, and its stable code."""

    code: ReasonCode
    words: str


def call_problem(call: OpCall, spec: OpSpec) -> Problem | None:
    """What the nodes of a graph say against what the op says: namespace, version, attributes."""
    if call.namespace != DOMAIN:
        return Problem(ReasonCode.PLUGIN_NAMESPACE_MISMATCH, f"its node asks for namespace {call.namespace!r}, not {DOMAIN!r}")
    if call.version != str(spec.version):
        return Problem(ReasonCode.PLUGIN_VERSION_MISMATCH, f"its node asks for version {call.version}, the op is {spec.version}")
    wanted = {name: kind.__name__ for name, kind in spec.attributes.items()}
    difference = _difference(dict(call.attributes), wanted)
    return Problem(ReasonCode.PLUGIN_FIELDS_MISMATCH, f"attributes of its node: {difference}") if difference else None


def registry_problem(registry: Any, spec: OpSpec) -> Problem | None:
    """What TensorRT's registry holds against what the op says: creator, namespace, version, fields; None when all fit."""
    named = [creator for creator in registry.all_creators if creator.name == spec.name]
    if not named:
        return Problem(ReasonCode.PLUGIN_NOT_REGISTERED, "TensorRT's registry has no plugin of that name")
    ours = [creator for creator in named if creator.plugin_namespace == DOMAIN]
    if not ours:
        there = ", ".join(sorted({repr(creator.plugin_namespace) for creator in named}))
        return Problem(ReasonCode.PLUGIN_NAMESPACE_MISMATCH, f"it is registered in the namespace {there}, not in {DOMAIN!r}")
    wanted = str(spec.version)
    fitting = [creator for creator in ours if creator.plugin_version == wanted]
    if not fitting:
        there = ", ".join(sorted(creator.plugin_version for creator in ours))
        return Problem(ReasonCode.PLUGIN_VERSION_MISMATCH, f"it is registered as version {there}, expected {wanted}")
    found = {field.name: _kind(field.type.name) for field in fitting[0].field_names}
    difference = _difference(found, {name: kind.__name__ for name, kind in spec.attributes.items()})
    return Problem(ReasonCode.PLUGIN_FIELDS_MISMATCH, f"fields of the plugin: {difference}") if difference else None


def _kind(field_type: str) -> str:
    return next((kind for kind, names in _FIELD_KINDS.items() if field_type in names), field_type.lower())


def _difference(found: dict[str, str], wanted: dict[str, str]) -> str:
    """Names that are missing or too many, and types that differ; empty when both are the same."""
    words = [f"{name} is missing" for name in wanted if name not in found]
    words += [f"{name} is not of the op" for name in found if name not in wanted]
    both = ((name, kind) for name, kind in wanted.items() if name in found)
    words += [f"{name} is {found[name]}, expected {kind}" for name, kind in both if found[name] != kind]
    return ", ".join(words)
