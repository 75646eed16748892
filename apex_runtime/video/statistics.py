"""What a run over clips reports of them, from its journal: how many frames, how steady the tiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from apex_plugins.spec import MAX_DEPTH
from apex_runtime.data.sources import Clip
from apex_runtime.routing.hysteresis import FlipCounter
from apex_runtime.video.writer import clip_path

_Frame = tuple[int, tuple[int, int], np.ndarray]  # frame index, height and width, one number per tile and level


def video_summary(records: Iterable[dict[str, Any]], clips: Mapping[str, Clip], drawn: bool) -> dict[str, Any] | None:
    """The part ``video`` of the summary; None when no clip was asked for. ``records``: lines of the journal in any order;
    ``drawn``: whether annotated clips were asked for.

    Frames are compared where they follow each other and have one size. ``fps`` of the whole is None when the clips differ.
    """
    if not clips:
        return None
    frames: dict[str, list[_Frame]] = defaultdict(list)
    for record in records:
        if record.get("clip") in clips:
            ids = np.array([tile["id"] * MAX_DEPTH + tile["level"] for tile in record["tiles"]], np.int16)
            frames[record["clip"]].append((record["frame_index"], (record["height"], record["width"]), ids))
    total, parts = FlipCounter(), []
    for name, clip in clips.items():
        counter = _flips(frames[name])
        total.merge(counter)
        annotated = clip_path(name) if drawn and counter.frames else None
        parts.append({"file_name": name, "annotated": annotated, **_figures(counter, clip.fps)})
    rates = {clip.fps for clip in clips.values()}
    return {**_figures(total, rates.pop() if len(rates) == 1 else None), "clips": parts}


def _flips(frames: list[_Frame]) -> FlipCounter:
    counter = FlipCounter()
    before: tuple[int, tuple[int, int]] | None = None
    for index, size, ids in sorted(frames, key=lambda frame: frame[0]):
        counter.add(ids.tolist(), follows=before == (index - 1, size))
        before = index, size
    return counter


def _figures(counter: FlipCounter, fps: float | None) -> dict[str, Any]:
    return {
        "frames": counter.frames,
        "fps": None if fps is None else round(fps, 6),
        "flip_rate": _rounded(counter.flip_rate),
        "consistency": _rounded(counter.consistency),
        "mean_tiles": round(counter.mean_tiles, 3),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
