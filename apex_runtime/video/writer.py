"""Annotated clips on the disk: an MP4 that appears when it is whole, and is read back before anybody is told that it is there.

The codec is MPEG-4 part 2 (``mp4v``), which every build of OpenCV with FFmpeg can write without another library. Players play it,
most browsers do not.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from apex_runtime.data.sources import Clip
from apex_runtime.errors import ApexError
from apex_runtime.video.plan import picture_name

_UNFINISHED = ".unfinished.mp4"  # one name for all: what a killed run left is written over by the next
_CODEC = "mp4v"
_MAX_SIDE = 4096


class ClipWriter:
    """Writes clips one after the other into ``folder``: frames of another clip than before end the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clip: Clip | None = None
        self._stream: _Stream | None = None

    def add(self, clip: Clip, image: np.ndarray) -> None:
        """The next frame, uint8 [h,w,3] RGB. Raises ApexError when clips cannot be written here, OSError."""
        if self._clip is not clip:
            self.close()
            self._stream = _Stream(self.folder / clip_path(clip.name), image.shape[0], image.shape[1], clip.fps)
            self._clip = clip
        assert self._stream is not None
        self._stream.write(image)

    def close(self) -> None:
        """Finish the clip in progress. Raises ApexError when it cannot be read back: the disk is full."""
        stream, self._stream, self._clip = self._stream, None, None
        if stream is not None:
            stream.publish()


def clip_path(name: str) -> str:
    """Where the annotated clip lies, relative to the folder of the pictures; never outside it."""
    parts = ["_" if part in ("", ".", "..") else part for part in picture_name(name).split("/")]
    return "/".join(parts)


def count_frames(path: Path) -> int:
    """The frames of a clip of ours by its header; 0 when it is not there or cannot be opened."""
    from apex_runtime.errors import ImageError
    from apex_runtime.video.decode import probe_clip

    try:
        return probe_clip(path, path.name).frames
    except ImageError:
        return 0


class _Stream:
    """One clip being written. The first frame decides the size; an odd last row or column is cut, as the codec wants it."""

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        import cv2

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames = path, 0
        self._temporary = path.with_name(_UNFINISHED)
        scale = min(1.0, _MAX_SIDE / max(height, width))
        self._size = max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*_CODEC), fps, self._size)
        if not self._writer.isOpened():
            raise ApexError(
                f"{path}: this OpenCV cannot write a clip of {self._size[0]} x {self._size[1]} pixels, {fps:g} frames a second.",
                "Is the folder writable? The wheel opencv-python-headless can write clips; builds of distributions may not.",
                path=path,
            )

    def write(self, image: np.ndarray) -> None:
        import cv2

        width, height = self._size
        if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
            image = image[:height, :width]
        else:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(np.ascontiguousarray(image[:, :, ::-1]))
        self.frames += 1

    def publish(self) -> None:
        """OpenCV does not say when the disk is full: what was written is read back."""
        self._writer.release()
        found = count_frames(self._temporary)
        if found != self.frames:
            self._temporary.unlink(missing_ok=True)
            raise ApexError(
                f"{self.path}: of {self.frames} frames that were written {found} can be read back.",
                "Is the disk full? Make room and go on with --resume.",
                path=self.path,
            )
        os.replace(self._temporary, self.path)
