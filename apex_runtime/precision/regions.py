"""Which part of the model each node of an exported graph belongs to, read from the module scopes that the exporter writes.

A scope is a list of module paths, outermost first, with the operation last: ``['', 'detector', 'detector.router', 'log']``.
Most modules are a region. Three things need the flow of data besides: what touches pixels, up to the first convolution of a
stream, is the entrance; neck and heads run twice, first from afar for the router (the glance); and what the detector does
between its modules belongs to whatever waits for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from apex_runtime.errors import ModelError

if TYPE_CHECKING:
    import onnx

SCOPE_KEY = "pkg.torch.onnx.name_scopes"
NO_SCOPE = "no scope"
EXPORT_AGAIN = "Export it again from the checkpoint: apex-train export best.pt -o model.onnx"
_DETECTOR = "detector"
_SCAN_OP = "TileSSMScan"
_IMAGES = "images"
_CHOICES = ("tile_ids", "tile_levels")  # the outputs that end the selection

# Module paths below the detector -> region; the first that matches the innermost module decides.
_MODULES = tuple(
    (re.compile(pattern), region)
    for pattern, region in (
        (r"peripheral\b", "peripheral"),
        (r"(finer_)?routers?\b", "router"),
        (r"foveal\b", "foveal"),
        (r"context\b", "context"),
        (r"gate\b", "gate"),
        (r"neck\b", "neck"),
        (r"heads\.\d+\.(class_tower|one|one_tower|many|quality)\b", "scores"),
        (r"heads\.\d+\.coefficients\b", "coefficients"),
        (r"heads\.\d+\.(shape_tower|ltrb)\b", "boxes"),
        (r"heads\b", "heads"),
        (r"masks\b", "prototypes"),
    )
)
_LOOKING = frozenset({"neck", "heads", "scores", "boxes", "coefficients"})
# What the detector does between its modules is named for the first of these that waits for it.
_WAITING = (
    (("router",), "glance"),
    (("selection",), "selection"),
    (("foveal",), "foveal"),
    (("context",), "context"),
    (("gate", "neck"), "fusion"),
    (("decode",), "heads"),
)


def regions_of(model: onnx.ModelProto) -> dict[str, str]:
    """Region of every node of the graph, by node name. Nodes of function bodies belong to the region of the call.

    Raises ModelError when nodes cannot be told apart by their names.
    """
    nodes = model.graph.node
    _check_names(nodes)
    found = {node.name: _own_region(_modules_of(node), node.op_type) for node in nodes}
    found |= {name: "entrance" for name in _entrance(nodes) if found[name] not in (NO_SCOPE, "decode")}
    first = _waited_for(nodes, [name for name, region in found.items() if region == "router"])
    choosing = _waited_for(nodes, [node.name for node in nodes if set(node.output) & set(_CHOICES)], itself=True)
    for name, region in found.items():
        if region in _LOOKING and name in first:
            found[name] = "glance"
        if region in ("", "decode") and name in choosing - first:
            found[name] = "selection"
    for waiting, region in _WAITING:
        asked = _waited_for(nodes, [name for name, item in found.items() if item in waiting])
        found |= {name: region for name, item in found.items() if not item and name in asked}
    return {name: region or NO_SCOPE for name, region in found.items()}


def members(regions: Mapping[str, str]) -> dict[str, list[str]]:
    """The nodes of every region, regions and nodes in the order of the graph."""
    grouped: dict[str, list[str]] = {}
    for name, region in regions.items():
        grouped.setdefault(region, []).append(name)
    return grouped


def module_of(node: onnx.NodeProto) -> str:
    """The path of the module that a node belongs to, ``detector.foveal.project``; empty where no scope is written."""
    return (_modules_of(node) or [""])[-1]


def _check_names(nodes: Sequence[onnx.NodeProto]) -> None:
    names = [node.name for node in nodes]
    if not all(names) or len(set(names)) != len(names):
        raise ModelError(
            "The model has nodes without a name, or two of one name: no pass can say which it changed.", EXPORT_AGAIN
        )


def _modules_of(node: onnx.NodeProto) -> list[str] | None:
    """The module paths of a node, outermost first, without the operation; None where no scope is written."""
    for prop in node.metadata_props:
        if prop.key == SCOPE_KEY:
            try:
                scope = ast.literal_eval(prop.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return None
            return [str(item) for item in scope[:-1]] if isinstance(scope, list) else None
    return None


def _own_region(modules: list[str] | None, op: str) -> str:
    """The region that scope and op alone decide; empty for what the detector does between its modules."""
    if modules is None:
        return NO_SCOPE
    inner = modules[-1] if modules else ""
    if op == _SCAN_OP:
        return "scan"
    if not inner.startswith(_DETECTOR):
        return "decode"  # around the detector: reading K, and turning what the heads say into detections
    path = inner.removeprefix(_DETECTOR).removeprefix(".")
    return next((region for pattern, region in _MODULES if pattern.match(path)), "")


def _entrance(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Names of the nodes that read pixels, normalised, averaged or gathered, and of the first convolutions."""
    pixels = {_IMAGES}
    for node in nodes:
        if pixels & set(node.input) and node.op_type != "Shape":
            yield node.name
            if node.op_type != "Conv":
                pixels |= set(node.output)


def _waited_for(nodes: Sequence[onnx.NodeProto], names: Iterable[str], itself: bool = False) -> set[str]:
    """Names of the nodes that the nodes ``names`` get data from, however far; without those nodes unless ``itself``."""
    producer = {output: node for node in nodes for output in node.output if output}
    start = set(names)
    reached: set[str] = set(start)
    waiting = [node for node in nodes if node.name in start]
    while waiting:
        for name in waiting.pop().input:
            node = producer.get(name)
            if node is not None and node.name not in reached:
                reached.add(node.name)
                waiting.append(node)
    return reached if itself else reached - start
