"""Which images are cut into windows, and where: ``--window auto|none|HxW --overlap N``."""

from __future__ import annotations

from dataclasses import dataclass

from apex_runtime.data.scenes.windows import Window, windows
from apex_runtime.errors import UsageError
from apex_runtime.image_size import parse_size
from apex_runtime.model_info import InputInfo

DEFAULT_OVERLAP = 128
SMALLEST = 32  # pixels a side: smaller windows show no object, and are millions
LARGER = 1.5  # a side this many times the input's: scaled to fit, what is small would be gone


@dataclass(frozen=True)
class Windowing:
    """``asked`` as the user wrote it; ``size`` (height, width) in pixels of the image, None for that of the engine's input, and
    then only for images that are ``LARGER``. ``overlap``: pixels that neighbours share at least."""

    asked: str
    size: tuple[int, int] | None
    overlap: int

    def cut(self, height: int, width: int, engine: InputInfo) -> list[Window]:
        """The windows of an image of this size; none when it goes to the engine as it is."""
        if self.asked == "none":
            return []
        size = self.size or (engine.height, engine.width)
        limit = size if self.size else (LARGER * engine.height, LARGER * engine.width)
        if height <= limit[0] and width <= limit[1]:
            return []
        return windows(height, width, size, self.overlap)


def parse_windowing(window: str, overlap: int | None, engine: InputInfo) -> Windowing:
    """``auto``, ``none``, one side or HEIGHTxWIDTH, checked against the engine; ``overlap`` None: ``DEFAULT_OVERLAP``, at most
    half a window. Raises UsageError."""
    asked = window.strip().lower()
    size = None if asked in ("auto", "none") else _parse(window)
    least = min(size or (engine.height, engine.width))
    if asked == "none":
        return Windowing(asked, None, 0)
    if least < SMALLEST:
        raise UsageError(f"--window {window}: a window has at least {SMALLEST} pixels a side.", "Give larger ones, or auto.")
    if overlap is None:
        overlap = min(DEFAULT_OVERLAP, least // 2)
    if not 0 <= overlap <= least // 2:
        what = "--window" if size else "the engine's input"
        message = f"--overlap {overlap}: {what} is {least} pixels, and windows share at most half of that."
        raise UsageError(message, f"Give 0 to {least // 2}.")
    return Windowing(asked, size, overlap)


def _parse(window: str) -> tuple[int, int]:
    try:
        return parse_size(window)
    except UsageError as error:
        raise UsageError(f"--window {window}: not a size.", "Give auto, none, one side or HEIGHTxWIDTH in pixels.") from error
