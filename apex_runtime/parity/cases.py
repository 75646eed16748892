"""The images of a parity run: real ones first, then what no camera delivers but a fast path may stumble over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import resolve_sources
from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.letterbox import PAD_VALUE, Letterbox, letterbox_image
from apex_runtime.routing.grid import content_tiles

NOISE_SEED = 0


@dataclass(frozen=True)
class Case:
    """One input of the graph: ``pixels`` uint8 [H,W,3] letterboxed, ``content_N`` bool [N] the tiles that are not padding.

    ``letterbox``: how the image was scaled; None, not at all. ``image_id``: that of a labelled set.
    """

    name: str
    pixels: np.ndarray
    content_N: np.ndarray
    synthetic: bool
    letterbox: Letterbox | None = None
    image_id: int | None = None

    @property
    def sha256(self) -> str:
        """Digest of the pixels as the graph gets them, so that another machine can tell whether it compares the same input."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()

    @property
    def frame(self) -> Letterbox:
        """From the graph's input to the image that the user gave."""
        height, width = self.pixels.shape[:2]
        return self.letterbox or Letterbox(height, width, height, width)


def load_cases(images: Path | None, info: ModelInfo) -> list[Case]:
    """The images of a folder (or file, or pattern), the shipped samples when None, and the synthetic ones, at the model's size.

    Raises UsageError when there are none, ImageError for a file that cannot be decoded.
    """
    source = str(images if images is not None else sample_folder())
    return [real_case(item.path, item.relative, info) for item in resolve_sources(source)] + synthetic_cases(info)


def sample_folder() -> Path:
    """The sample images that come with the package. Raises UsageError when this installation has none."""
    folder = Path(str(resources.files("apex_engines"))) / "samples"
    if not folder.is_dir():
        raise UsageError("This installation has no sample images.", "Name a folder of images with --images.", path=folder)
    return folder


def synthetic_cases(info: ModelInfo) -> list[Case]:
    """Noise, a constant image (every tile ties), saturated white, and black and white noise.

    Of the noise only the left half counts as content: the padding of real images attracts no look anyway, so that without this
    one a runtime that does not read ``tile_bonus`` would pass.
    """
    shape = (info.input.height, info.input.width, 3)
    random = np.random.default_rng(NOISE_SEED)
    images = {
        "synthetic/noise": random.integers(0, 256, shape, dtype=np.uint8),
        "synthetic/constant": np.full(shape, PAD_VALUE, np.uint8),
        "synthetic/saturated": np.full(shape, 255, np.uint8),
        "synthetic/black-and-white": random.integers(0, 2, shape, dtype=np.uint8) * np.uint8(255),
    }
    everywhere = np.ones(info.tiles.count, bool)
    half = content_tiles(Letterbox(shape[0], shape[1] // 2, *shape[:2]), info.tiles)
    return [Case(name, pixels, half if name == "synthetic/noise" else everywhere, True) for name, pixels in images.items()]


def real_case(path: Path, name: str, info: ModelInfo) -> Case:
    """An image file at the model's size. Raises ImageError."""
    return case_of(decode_image(path), name, info)


def case_of(image: np.ndarray, name: str, info: ModelInfo, image_id: int | None = None) -> Case:
    """An image, uint8 [h,w,3] RGB, at the model's size."""
    pixels, letterbox = letterbox_image(image, info.input.height, info.input.width)
    return Case(name, pixels, content_tiles(letterbox, info.tiles), False, letterbox, image_id)
