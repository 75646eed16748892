"""The stages of a run up to the graph, each a function of one image or batch: read, prepare, look. ``runner`` overlaps them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from apex_runtime.clock import milliseconds_since
from apex_runtime.data.image import decode_image
from apex_runtime.data.regions import Regions, Rings
from apex_runtime.data.sources import Clip, SourceItem
from apex_runtime.outputs.formats import ANNOTATED
from apex_runtime.pipeline.annotate import Picture
from apex_runtime.pipeline.predictor import Filter, Predictor, Prepared
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.steering import steered, steering_bonus
from apex_runtime.windows.plan import Windowing


@dataclass(frozen=True)
class RunOptions:
    """What a run does with every image.

    ``hysteresis``: the bonus of tiles of the frame before, for the frames of clips. ``save``: kinds of files
    (``outputs.formats``). ``windowing``: which images are cut into windows; None for none. ``look`` and ``ignore``: regions that
    steer the look. ``lanes``: calls of the graph at a time; more than one only where the session takes them (``Opened.lanes``).
    """

    budget: Budget
    wanted: Filter
    draw_score: float = 0.3
    batch: int = 1
    hysteresis: float = 0.0
    save: frozenset[str] = frozenset({ANNOTATED})
    windowing: Windowing | None = None
    look: Regions = field(default_factory=Regions)
    ignore: Regions = field(default_factory=Regions)
    lanes: int = 1

    @property
    def draws(self) -> bool:
        """Whether annotated pictures are asked for."""
        return ANNOTATED in self.save

    def steering(self, item: SourceItem) -> Steering:
        """The regions of one image; of a frame of a video file those of the file. Raises ImageError, DataError."""
        of_file = item.clip is not None and item.clip.is_file
        name, path = (item.clip.name, None) if item.clip and of_file else (item.relative, item.path)
        return Steering(self.look.of(name, path), self.ignore.of(name, path))


@dataclass(frozen=True, eq=False)
class Steering:
    """The regions of an image to look at and to leave alone."""

    look: list[Rings] = field(default_factory=list)
    ignore: list[Rings] = field(default_factory=list)

    def apply(self, prepared: Prepared, predictor: Predictor, x: int = 0, y: int = 0) -> np.ndarray:
        """float32 [N]: the bonus of an image, or of the window of it whose corner is at column ``x``, row ``y``."""
        if not self.look and not self.ignore:
            return prepared.bonus_N
        look, ignore = ([[ring - (x, y) for ring in region] for region in kind] for kind in (self.look, self.ignore))
        return steered(prepared.bonus_N, steering_bonus(look, ignore, prepared.letterbox, predictor.info.tiles))


@dataclass(frozen=True)
class Frame:
    """Where an image stands in its clip: counted from 0, and in seconds after the first frame."""

    clip: Clip
    index: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image that was read: ready for the graph, and as a picture to draw on. ``decode_ms`` covers reading and letterboxing.

    ``picture`` is None when nothing is drawn.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    prepared: Prepared
    picture: Picture | None
    decode_ms: float
    steering: Steering
    frame: Frame | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """A frame that an earlier run finished, with its record: only to be drawn again, for a clip cannot be appended to."""

    record: dict[str, Any]
    pixels: np.ndarray
    frame: Frame
    steering: Steering


@dataclass(frozen=True, eq=False)
class Looked:
    """An image the graph has seen. ``graph_ms`` is its share of the batch."""

    loaded: Loaded
    outputs: dict[str, np.ndarray]
    graph_ms: float

    @property
    def file_name(self) -> str:
        """Of the image."""
        return self.loaded.file_name

    @property
    def frame(self) -> Frame | None:
        """Where it stands in its clip, if it is of one."""
        return self.loaded.frame


def read(item: SourceItem, image_id: int, predictor: Predictor, options: RunOptions) -> Loaded:
    """Decode and letterbox one image file. Raises ImageError, DataError, UsageError."""
    started = time.perf_counter()
    frame = Frame(item.clip, item.frame_index, round(item.frame_index / item.clip.fps, 6)) if item.clip else None
    return prepare(decode_image(item.path), item, image_id, predictor, options, started, frame)


def prepare(
    image: np.ndarray,
    item: SourceItem,
    image_id: int,
    predictor: Predictor,
    options: RunOptions,
    started: float,
    frame: Frame | None = None,
) -> Loaded:
    """Letterbox the image of ``item``, uint8 [h,w,3], and steer the look. Decoding began at ``started`` (``time.perf_counter``).

    Raises ImageError, DataError, UsageError.
    """
    steering = options.steering(item)
    prepared = predictor.prepare(image, options.budget)
    prepared = replace(prepared, bonus_N=steering.apply(prepared, predictor))
    decode_ms = milliseconds_since(started)
    picture = None
    if options.draws:
        picture = Picture(image, 1.0, 1.0) if frame else Picture.of(image)
    height, width = image.shape[:2]
    return Loaded(image_id, item.relative, width, height, prepared, picture, decode_ms, steering, frame)


def look(batch: Sequence[Loaded], predictor: Predictor) -> list[Looked]:
    """One graph call for images of equal K. Raises BackendError."""
    started = time.perf_counter()
    outputs = predictor.run([item.prepared for item in batch])
    share = milliseconds_since(started) / len(batch)
    return [Looked(item, found, share) for item, found in zip(batch, outputs, strict=True)]
