"""Where the time of the graph goes: ONNX Runtime's own profile of every node, gathered by part of the model.

What its optimiser made of the nodes of the file has other names: a fused or re-laid-out node is named for the tensor it makes, a
node of a function's body for the function. What belongs to no node of the file (changes of the memory layout) is ``layout``.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import graph_feeds, open_session, session_options
from apex_runtime.backends.session import Tiles, in_all
from apex_runtime.errors import ModelError
from apex_runtime.precision.regions import regions_of

if TYPE_CHECKING:
    import onnx

LAYOUT = "layout"
_RUNS, _WARM_UP = 7, 2
_FUNCTION = re.compile(r"_inlfunc_(\w+?)_n\d+")


def profile_layers(model: Path, threads: int | None, images_BHW3: np.ndarray, tiles: Sequence[Tiles]) -> list[dict[str, Any]]:
    """Per number of tiles: ``regions`` and ``nodes`` with their milliseconds (medians over runs), largest first.

    The profile costs time itself, so the sum is more than the graph takes without it. Raises ModelError, BackendError.
    """
    file = read_onnx(model)
    owner = _owners(file.model)
    bonus_BN = np.zeros((len(images_BHW3), file.info.tiles.count), np.float32)
    return [
        {
            "tiles": in_all(each),
            **_gathered(_profile(model, file.data, threads, graph_feeds(file.info, images_BHW3, each, bonus_BN)), owner),
        }
        for each in tiles
    ]


def _profile(model: Path, data: bytes, threads: int | None, feeds: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The events of nodes, of the runs after the warm-up, each with the number of its run."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "layers")
        session = open_session(model, data, options, ["CPUExecutionProvider"])
        for _ in range(_WARM_UP + _RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    found = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            run = sum(start <= event["ts"] for start in starts) - 1
            if run >= _WARM_UP:
                found.append(event | {"run": run})
    return found


def _gathered(events: list[dict[str, Any]], owner: dict[str, str]) -> dict[str, Any]:
    nodes: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * _RUNS)
    regions: dict[str, list[float]] = defaultdict(lambda: [0.0] * _RUNS)
    for event in events:
        name, run = event["name"].removesuffix("_kernel_time"), event["run"] - _WARM_UP
        nodes[name, event["args"]["op_name"]][run] += event["dur"] / 1000
        regions[_region(name, owner)][run] += event["dur"] / 1000
    rows = [
        {"name": name, "op": op, "region": _region(name, owner), "milliseconds": _middle(ms)} for (name, op), ms in nodes.items()
    ]
    parts = [{"region": name, "milliseconds": _middle(ms)} for name, ms in regions.items()]
    return {name: sorted(each, key=lambda row: -row["milliseconds"]) for name, each in (("regions", parts), ("nodes", rows))}


def _middle(milliseconds: list[float]) -> float:
    return round(statistics.median(milliseconds), 4)


def _owners(model: onnx.ModelProto) -> dict[str, str]:
    """Region by name of a node, by name of a tensor it makes, and by name of a function that one region alone calls."""
    try:
        regions = regions_of(model)
    except ModelError:  # nodes of equal names: a file of another exporter still has its nodes
        return {}
    owner, callers = dict(regions), defaultdict(set)
    functions = {function.name for function in model.functions}
    for node in model.graph.node:
        owner |= dict.fromkeys(node.output, regions[node.name])
        if node.op_type in functions:
            callers[node.op_type].add(regions[node.name])
    return owner | {name: " or ".join(sorted(found)) for name, found in callers.items()}


def _region(name: str, owner: dict[str, str]) -> str:
    function = _FUNCTION.match(name)
    if function:
        return owner.get(function[1], LAYOUT)
    return owner.get(name) or owner.get(name.removesuffix("_nchwc")) or LAYOUT


def lines(profiles: Sequence[dict[str, Any]], most: int = 8) -> list[str]:
    """For a terminal: every region, and the dearest nodes."""
    text = []
    for profile in profiles:
        whole = sum(item["milliseconds"] for item in profile["regions"]) or 1.0
        parts = ", ".join(
            f"{item['region']} {100 * item['milliseconds'] / whole:.0f} %"
            for item in profile["regions"]
            if item["milliseconds"] > 0.005 * whole
        )
        text.append(f"layers of {profile['tiles']} tiles, {whole:.1f} ms with the profile: {parts}")
        text += [
            f"  {item['milliseconds']:8.2f} ms  {item['op']:<16}{item['region']:<14}{item['name']}"
            for item in profile["nodes"][:most]
        ]
    return text
