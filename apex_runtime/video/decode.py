"""The frames of a video file, one after the other, by OpenCV; never more than one of them in memory here.

Frames are counted as they come and never sought: seeking lands on another frame in some files. The time of a frame is the one
its container gives it, so a variable frame rate is kept. Turned recordings come upright; where the size changes within a file the
decoder scales all frames to the first one's size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.sources import Clip
from apex_runtime.errors import ImageError
from apex_runtime.video.container import knows_its_length

FALLBACK_FPS = 25.0  # of a file that states no frame rate, or an impossible one
_MAX_FPS = 1000.0
_REMEDY = "Check that it plays; re-encode it (ffmpeg -i IN -c:v libx264 OUT.mp4), or leave it out."


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """``pixels`` uint8 [h,w,3] RGB, shown ``seconds`` after the clip's first frame."""

    pixels: np.ndarray
    seconds: float


def probe_clip(path: Path, name: str) -> Clip:
    """How many frames a video file has, and how fast they follow. Raises ImageError when it has none that can be decoded.

    The count is the header's where that counts frames; else they are counted, which decodes the file once.
    """
    with _opened(path) as capture:
        frames, fps = _stated_frames(capture), _fps(capture)
        if not (frames and knows_its_length(path)):
            frames = _counted(capture)
    if not frames:
        raise ImageError(f"{path}: a clip without a frame that can be decoded.", _REMEDY, path=path)
    return Clip(name, frames, fps, is_file=True)


def decode_frames(path: Path, fps: float) -> Iterator[DecodedFrame]:
    """The frames of a video file in order. Raises ImageError when it cannot be opened.

    Times are those of the container where they rise from frame to frame, else the frame's number over ``fps``.
    """
    with _opened(path) as capture:
        index, before = 0, -1.0
        while True:
            there, bgr = capture.read()
            if not there or bgr is None:
                return
            stated = _position(capture)
            seconds = stated if stated > before else max(before + 1e-3, index / fps)
            yield DecodedFrame(np.ascontiguousarray(bgr[:, :, ::-1]), round(seconds, 6))
            index, before = index + 1, seconds


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A capture of a file; what the decoder itself prints is left out, our errors say it. Raises ImageError."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with _quiet(cv2):
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            reason = "it is empty" if path.stat().st_size == 0 else "damaged, cut off, without frames, or of a codec unknown here"
            raise ImageError(f"{path}: not a clip that OpenCV can open: {reason}.", _REMEDY, path=path)
        yield capture
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}).", "Check the path and the rights.", path=path) from error
    finally:
        capture.release()


@contextmanager
def _quiet(cv2: Any) -> Iterator[None]:
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _stated_frames(capture: Any) -> int:
    import cv2

    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and 0 < count < 2**40 else 0


def _fps(capture: Any) -> float:
    import cv2

    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0 < fps <= _MAX_FPS else FALLBACK_FPS


def _counted(capture: Any) -> int:
    count = 0
    while capture.grab():
        count += 1
    return count


def _position(capture: Any) -> float:
    """Seconds of the frame that was just read."""
    import cv2

    return float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
