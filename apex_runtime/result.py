"""What ``Engine.predict`` gives for an image: the detections, and all that is needed to use them without the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.detections import Detections
from apex_runtime.errors import UsageError
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.tiles import Tile, looked_tiles

if TYPE_CHECKING:
    import supervision

MAX_FULL_BYTES = 1 << 30  # of ``masks_full``: 1 GiB are 1024 masks of 1024 x 1024 pixels


@dataclass(frozen=True)
class BudgetUse:
    """A budget and what became of it: ``asked`` as the caller wrote it, the ``tiles`` that it means for this image, those
    ``spent``; ``per_level`` shares ``tiles`` out over the levels, the coarsest first."""

    asked: str
    tiles: int
    spent: int
    per_level: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Result(Detections):
    """The n detections of one image, best first, in pixels of the source image.

    ``boxes`` float32 [n,4] xyxy, ``scores`` float32 [n], ``labels`` int64 [n], ``names[label]`` the class, ``masks`` n masks cut
    to their boxes, each assembled when it is first asked for. ``source``: the file, None for an array. The pixels of the image
    are not kept, and of the graph's outputs only what lies under the boxes.
    """

    info: ModelInfo
    budget: BudgetUse
    source: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes; a label is a place in here."""
        return tuple(category.name for category in self.info.classes)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the source image in pixels."""
        return self.letterbox.source_height, self.letterbox.source_width

    @property
    def tiles(self) -> list[Tile]:
        """Where the model looked closely: id, level, and bbox xywh in source pixels, as in results.json."""
        return looked_tiles(self.tile_ids, self.tile_levels, self.info.tiles, self.letterbox)

    def masks_full(self, max_bytes: int = MAX_FULL_BYTES) -> np.ndarray:
        """The masks on their image, bool [n,height,width]. Raises UsageError when that takes more than ``max_bytes``."""
        height, width = self.shape
        needed = len(self) * height * width
        if needed > max_bytes:
            cause = f"masks_full: {len(self)} masks of {height} x {width} pixels take {needed} bytes, the limit is {max_bytes}."
            raise UsageError(cause, "Use result.masks, which are cut to their boxes; or raise min_score, or max_bytes.")
        full_nhw = np.zeros((len(self), height, width), bool)
        for canvas_hw, mask in zip(full_nhw, self.masks, strict=True):
            mask.place_on(canvas_hw)
        return full_nhw

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """One COCO result record per detection: image_id, category_id, bbox xywh, score, segmentation as compressed RLE."""
        return detections_to_results(self, image_id)

    def to_supervision(self, masks: bool = True) -> supervision.Detections:
        """The same for the package supervision, with ``data["class_name"]``; ``masks`` False leaves out the masks, which are as
        large as the image there. Raises UsageError when the package is not installed, or the masks are too large."""
        try:
            from supervision import Detections as Supervised
        except ImportError as error:
            raise UsageError(f"to_supervision: supervision cannot be imported ({error}).", "pip install supervision") from error
        return Supervised(
            xyxy=self.boxes,
            mask=self.masks_full() if masks and len(self) else None,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names)[self.labels]},
        )

    def plot(self, image: np.ndarray | None = None, min_score: float = 0.3) -> np.ndarray:
        """The annotated picture, uint8 [h,w,3] RGB: boxes and masks that score at least ``min_score``, and the tiles.

        ``image``: the pixels, uint8 [height,width,3] RGB; without them the file is read again. Raises UsageError when they are
        neither given nor in a file, or of another size; ImageError.
        """
        from apex_runtime.pipeline.plot import plot_result  # OpenCV is needed only to draw

        return plot_result(self, self._pixels(image), min_score)

    def save(self, path: str | Path, image: np.ndarray | None = None, min_score: float = 0.3) -> None:
        """Write what ``plot`` draws as a PNG file. Raises UsageError, ImageError, OSError."""
        from apex_runtime.pipeline.annotate import write_png

        if Path(path).suffix.lower() != ".png":
            raise UsageError(f"{path}: annotated pictures are saved as PNG.", "Give a name that ends in .png.", path=path)
        write_png(Path(path), self.plot(image, min_score))

    def _pixels(self, image: np.ndarray | None) -> np.ndarray:
        if image is None:
            from apex_runtime.data.image import decode_image

            if self.source is None:
                raise UsageError("plot: a result of an array does not keep its pixels.", "Give them: result.plot(image).")
            image = decode_image(self.source)
        if image.shape != (*self.shape, 3) or image.dtype != np.uint8:
            wanted = "uint8 ({}, {}, 3)".format(*self.shape)
            raise UsageError(
                f"plot: the image is {image.dtype} {image.shape}, expected {wanted}.", "Give the image of this result."
            )
        return image
