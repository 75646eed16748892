"""Small clips with known content, for tests of video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pictures import discs


def moving_disc(count: int, height: int = 128, width: int = 128) -> list[np.ndarray]:
    """Frames in which one disc moves from left to right and another stays."""
    return [discs(height, width, (10 + index * (width - 20) // max(count, 1), 40, 10), (80, 90, 10)) for index in range(count)]


def write_clip(path: Path, frames: Sequence[np.ndarray], fps: float = 10.0, codec: str = "mp4v") -> Path:
    """Write RGB frames of one size in the container of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def read_clip(path: Path) -> tuple[list[np.ndarray], float]:
    """RGB frames and frames per second, by OpenCV alone."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return frames, fps
        frames.append(frame[:, :, ::-1])
