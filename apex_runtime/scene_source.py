"""A large image that ``Engine.predict_scene`` reads window by window: a file or an array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.data.scenes.windows import Window
from apex_runtime.errors import UsageError
from apex_runtime.model_info import InputInfo
from apex_runtime.request import ARRAYS, Image
from apex_runtime.windows.plan import Windowing, parse_windowing


@dataclass(frozen=True, eq=False)
class SceneSource:
    """``size`` (height, width); ``read`` gives the pixels of a window, uint8 [h,w,3] RGB; ``source``: the file, if it is one."""

    size: tuple[int, int]
    read: Callable[[Window], np.ndarray]
    source: Path | None


def scene_of(image: Image) -> SceneSource:
    """A file or an array; nothing of it is read yet but a header. Raises UsageError, ImageError."""
    if isinstance(image, str | Path):
        scene = open_scene(Path(image))
        return SceneSource((scene.height, scene.width), scene.reader(), Path(image))
    if not isinstance(image, np.ndarray):
        raise UsageError(f"predict_scene: a {type(image).__name__} is neither a path nor an array.", ARRAYS)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UsageError(f"predict_scene: the array is {image.dtype} {image.shape}, expected uint8 [h,w,3].", ARRAYS)
    height, width, _ = image.shape

    def read(window: Window) -> np.ndarray:
        return np.ascontiguousarray(image[window.y : window.y + window.height, window.x : window.x + window.width])

    return SceneSource((height, width), read, None)


def windowing_of(window: str | int, overlap: int | None, engine: InputInfo) -> Windowing:
    """How to cut, as Python says it: ``window`` may be a number of pixels. Raises UsageError, for wrong types too."""
    if isinstance(window, bool) or not isinstance(window, str | int):
        raise UsageError(f"window: a {type(window).__name__} is no size.", 'Give "auto", "none", 1024 or "768x1024".')
    if overlap is not None and (isinstance(overlap, bool) or not isinstance(overlap, int)):
        raise UsageError(f"overlap: a {type(overlap).__name__} is no number of pixels.", "Give a whole number, or None.")
    return parse_windowing(str(window), overlap, engine)


def whole(height: int, width: int) -> Window:
    """All of an image as one window."""
    return Window(0, 0, width, height)
