"""``apex-rt inspect``: what is in an engine bundle or an exported model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from apex_runtime.cli.options import json_option, not_empty

_CLASSES_SHOWN = 20


@click.command()
@click.argument("engine", type=click.Path(), callback=not_empty)
@json_option
def inspect(engine: str, as_json: bool) -> None:
    """Say what is in ENGINE, a bundle folder or a model.onnx, without running it.

    Inputs, outputs, ops, functions, sizes, tiles, cost, classes, precision, hashes. The files of a bundle are compared with its
    manifest first; the exit code is 1 when one was changed.

    \b
    Examples:
      apex-rt inspect bundle/
      apex-rt inspect model.onnx --json
    """
    from apex_runtime.engine_facts import engine_facts

    facts = engine_facts(Path(engine))
    click.echo(json.dumps(facts, indent=2, allow_nan=False) if as_json else "\n".join(_lines(facts)))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    file, weights = facts["file"], facts["weights"]
    yield f"{file['name']}: {file['bytes']:,} bytes, weights {weights['bytes']:,} bytes ({weights['numbers']:,} numbers)"
    yield f"  sha256 {file['sha256']}"
    if facts["checkpoint_sha256"]:
        yield f"  of the checkpoint {facts['checkpoint_sha256']}"
    if facts["bundle"]:
        yield from _bundle_lines(facts["bundle"])
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    yield f"IR version {facts['ir_version']}, opsets: {opsets}"
    for kind in ("inputs", "outputs"):
        yield f"{kind}:"
        yield from (f"  {item['name']:<20}{item['dtype']:<9}{_shape(item['shape'])}" for item in facts[kind])
    yield from _look_lines(facts)
    yield f"ops in the graph: {_counts(facts['ops'])}"
    for function in facts["functions"]:
        yield f"function {function['domain']}.{function['name']}, called {function['calls']} times: {_counts(function['ops'])}"
    if facts["regions"]:
        parts = (f"{item['region']} {item['nodes']}" for item in facts["regions"])
        yield f"regions: {', '.join(parts)}"
    yield from _precision_lines(facts["precision"], facts["bundle"] is not None)


def _bundle_lines(bundle: dict[str, Any]) -> Iterator[str]:
    capabilities = ", ".join(f"sm_{number}" for number in bundle["compute_capabilities"])
    plans = f", plans for {capabilities}" if capabilities else ""
    yield f"bundle for {bundle['backend']} {bundle['backend_version']}, {bundle['precision']}{plans}"
    yield f"  built by: {bundle['build']['command']}"
    yield f"  manifest sha256 {bundle['manifest_sha256']}"
    for item in bundle["artefacts"]:
        yield f"  {item['path']:<18}{item['role']:<11}{item['bytes']:>13,} bytes  sha256 {item['sha256']}"


def _look_lines(facts: dict[str, Any]) -> Iterator[str]:
    tiles, prepared, gflops = facts["tiles"], facts["preprocessing"], facts["gflops"]
    grids = ", then ".join(f"{rows} x {cols} of {side} pixels" for rows, cols, side in tiles["levels"])
    yield f"tiles: {tiles['count']}: {grids}, seen as {tiles['tile']} pixels, halo {tiles['halo']}"
    yield f"GFLOPs: {gflops['base']:.3f} + {gflops['per_tile']:.4f} per tile; all tiles {gflops['all_tiles']:.3f}"
    names = [category["name"] for category in facts["classes"]]
    more = f" and {len(names) - _CLASSES_SHOWN} more" if len(names) > _CLASSES_SHOWN else ""
    yield f"classes ({len(names)}): {', '.join(names[:_CLASSES_SHOWN])}{more}"
    mean, std = (", ".join(f"{value:g}" for value in prepared[name]) for name in ("mean", "std"))
    yield f"preprocessing: {prepared['resize']}, padding {prepared['pad_value']}; in the graph: mean {mean}, std {std}"
    yield f"detections: at most {facts['max_detections']} by {facts['decode']}, masks from {facts['mask']['channels']} prototypes"


def _precision_lines(precision: dict[str, Any], built: bool) -> Iterator[str]:
    """``built``: whether it is the record of a build; a graph alone does not say what was asked for."""
    from apex_runtime.bundle.fp32_record import AgainstFp32
    from apex_runtime.cli.against_fp32 import rows

    counts: Counter[str] = Counter()
    for item in precision["nodes"]:
        counts[item["precision"]] += item["count"]
    nodes = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    asked = f" {precision['profile']}" if built else ""
    yield f"precision{asked}: nodes {nodes}"
    for item in precision.get("regions", ()):
        inside = ", ".join(f"{count} {name}" for name, count in item["nodes"].items())
        pinned = f"; never below {item['pinned']}" if item["pinned"] else ""
        yield f"  {item['region']:<14}{inside}{pinned}"
    yield from rows(AgainstFp32.model_validate(precision["against_fp32"]))


def _counts(ops: list[dict[str, Any]]) -> str:
    return ", ".join(f"{_name(item)} {item['count']}" for item in ops)


def _name(item: dict[str, Any]) -> str:
    return item["op"] if item["domain"] == "ai.onnx" else f"{item['domain']}.{item['op']}"


def _shape(shape: list[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
