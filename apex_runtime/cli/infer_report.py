"""What ``apex-rt infer`` says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def report(summary: dict[str, Any], output: Path, kinds: frozenset[str]) -> str:
    """What was done, how fast, and where the results lie."""
    from apex_runtime.outputs.formats import CSV, FOLDERS, FORMATS, TABLE

    images = summary["images"]
    counts = f"{images['done']} of {images['found']} images"
    resumed = f" ({images['resumed']} from before)" if images["resumed"] else ""
    failed = f", {images['failed']} failed (see {output / 'failures.json'})" if images["failed"] else ""
    lines = [f"{counts}{resumed}{failed}: {summary['detections']} detections in {summary['seconds']:.1f} s"]
    if summary["median_milliseconds"]:
        times = ", ".join(f"{name} {value:.1f}" for name, value in summary["median_milliseconds"].items())
        lines.append(f"milliseconds per image (median): {times}")
    if "video" in summary:
        lines.append(_steadiness(summary["video"]))
    if summary.get("images_without_place"):
        lines.append(f"without a place on the earth, and so without GeoJSON: {summary['images_without_place']} of the images")
    folders = [output / FOLDERS[kind] for kind in FORMATS if kind in kinds and kind in FOLDERS]
    tables = [str(output / TABLE)] if CSV in kinds else []
    made = [str(folder) for folder in folders if folder.is_dir()]
    lines.append(f"results: {', '.join([str(output / 'results.json'), *made, *tables])}")
    if summary["status"] != "done":
        lines.append("interrupted: the rest is done by the same command with --resume")
    return "\n".join(lines)


def _steadiness(video: dict[str, Any]) -> str:
    clips = "1 clip" if len(video["clips"]) == 1 else f"{len(video['clips'])} clips"
    rate = "" if video["flip_rate"] is None else f", {video['flip_rate']:.1%} of them not in the frame before (flip rate)"
    return f"{video['frames']} frames of {clips}: {video['mean_tiles']:.1f} tiles per frame{rate}"
