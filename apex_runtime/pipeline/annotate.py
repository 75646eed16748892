"""The annotated picture of an image: masks, boxes, labels, and where the model looked closely.

Tiles that were left alone lie under a thin fog; the edge of the looked-at region is a thin line, of another colour where a finer
level of tiles begins. Small images are enlarged and
huge ones reduced, so that the picture is legible and its cost bounded; line widths and letters follow the picture's size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.files import write_atomically

MIN_SIDE = 640  # the longer side of a picture, at least
MAX_SIDE = 4096  # and at most

# Tiles left alone lie under a thin fog: bright images get darker, black ones lighter, grey ones bluish.
_FOG = np.array((44, 70, 128), np.float32)
_FOG_DENSITY = 0.33
_TILE_LINES = ((255, 214, 102), (102, 224, 255), (255, 140, 224))  # one colour per level of tiles
_MASK_OPACITY = 0.42
_WANTED, _UNWANTED = (96, 232, 120), (240, 84, 84)  # lines around regions to look at, and to leave alone
_BAR = (24, 26, 30)
_TEXT = (235, 235, 235)

Box = Sequence[float]


def picture_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the picture of an image: enlarged by a whole factor to ``MIN_SIDE`` or reduced to ``MAX_SIDE``."""
    longest = max(height, width)
    factor = MAX_SIDE / longest if longest > MAX_SIDE else float(max(1, -(-MIN_SIDE // longest) if longest < MIN_SIDE else 1))
    return max(1, round(height * factor)), max(1, round(width * factor))


@dataclass(frozen=True, eq=False)
class Shape:
    """One detection to draw, in picture pixels: box xyxy, its mask, label text, and a number that chooses its colour."""

    box: tuple[float, float, float, float]
    mask: RoiMask
    text: str
    colour: int


@dataclass(frozen=True)
class Picture:
    """The sheet to draw on: uint8 RGB, and picture pixels per source pixel along y and x."""

    canvas: np.ndarray
    scale_y: float
    scale_x: float

    @classmethod
    def of(cls, image: np.ndarray) -> Picture:
        """A copy of the image in its ``picture_size``."""
        import cv2

        height, width = image.shape[:2]
        size = picture_size(height, width)
        if size == (height, width):
            return cls(image.copy(), 1.0, 1.0)
        how = cv2.INTER_AREA if size < (height, width) else cv2.INTER_CUBIC
        canvas = cv2.resize(image, (size[1], size[0]), interpolation=how)
        return cls(canvas, size[0] / height, size[1] / width)

    def shape(self, box_4: np.ndarray, mask: RoiMask, text: str, colour: int) -> Shape:
        """A detection of the source image (box xyxy and mask in source pixels) in picture pixels."""
        x1, y1, x2, y2 = (float(value) for value in box_4)
        box = (x1 * self.scale_x, y1 * self.scale_y, x2 * self.scale_x, y2 * self.scale_y)
        return Shape(box, self._scaled(mask), text, colour)

    def _scaled(self, mask: RoiMask) -> RoiMask:
        import cv2

        if self.scale_x == 1.0 and self.scale_y == 1.0:
            return mask
        rows, cols = mask.bits.shape
        x, y = round(mask.x * self.scale_x), round(mask.y * self.scale_y)
        height, width = self.canvas.shape[:2]
        size = (
            max(1, min(round(cols * self.scale_x), width - x)),
            max(1, min(round(rows * self.scale_y), height - y)),
        )
        grown = cv2.resize(mask.bits * np.uint8(255), size, interpolation=cv2.INTER_LINEAR)
        return RoiMask(min(x, width - 1), min(y, height - 1), (grown > 127).astype(np.uint8))


def draw(
    picture: Picture,
    shapes: Sequence[Shape],
    tiles: Sequence[Box],
    legend: str,
    keep_size: bool = False,
    finer: Sequence[Sequence[Box]] = (),
    regions: Sequence[tuple[np.ndarray, bool]] = (),
) -> np.ndarray:
    """The annotated picture, uint8 RGB. ``tiles``: boxes xywh in source pixels of the tiles that were looked at; ``finer``: those
    of the levels below level 0, level by level. ``regions``: rings [n,2] in source pixels, and whether they were to be looked at.

    The legend lies below the picture; with ``keep_size`` on its lowest rows.
    """
    import cv2

    canvas = _fog_elsewhere(picture, (tiles, *finer))
    for shape in reversed(shapes):  # the best last, on top
        _fill(canvas, shape)
    unit = max(1, round(max(canvas.shape[:2]) / 900))
    for ring, wanted in regions:
        corners = np.rint(ring * (picture.scale_x, picture.scale_y)).astype(np.int32)
        cv2.polylines(canvas, [corners], True, _WANTED if wanted else _UNWANTED, 2 * unit, cv2.LINE_AA)
    for shape in reversed(shapes):
        _outline(canvas, shape, unit)
    taken: list[tuple[int, int, int, int]] = []
    for shape in shapes:  # the best first: it gets the place for its label
        _label(canvas, shape, taken)
    if not keep_size:
        return np.vstack([canvas, legend_bar(canvas, legend, max(canvas.shape[:2]) / 1300)])
    bar = legend_bar(canvas, legend, max(0.33, min(canvas.shape[:2]) / 900))
    rows = min(len(bar), len(canvas))
    canvas[-rows:] = (canvas[-rows:] * 0.35 + bar[:rows] * 0.65).astype(np.uint8)
    return canvas


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB picture in one step. Raises OSError."""
    import cv2

    ok, data = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise OSError(f"{path}: PNG encoding failed")
    write_atomically(path, data.tobytes())


@cache
def _colour(index: int) -> tuple[int, int, int]:
    """Colours that stay apart however many there are: steps of the golden ratio around the wheel, two brightnesses."""
    hue = (0.36 + index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if index % 2 else 0.65, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _pale(index: int) -> tuple[int, int, int]:
    """The colour half way to white: letters on a dark ground must be light whatever the hue."""
    red, green, blue = _colour(index)
    return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2


def _fog_elsewhere(picture: Picture, tiles: Sequence[Sequence[Box]]) -> np.ndarray:
    """Fog over what no tile covers, and draw a line where covered and not covered meet, level by level."""
    import cv2

    canvas = picture.canvas
    regions = [_covered(picture, boxes) for boxes in tiles]
    if all(region.all() for region in regions):
        return canvas.copy()
    fogged = cv2.copyTo(canvas, np.maximum.reduce(regions), cv2.LUT(canvas, _fog_table()))
    line = fogged.copy()
    for region, colour in zip(regions, _TILE_LINES, strict=False):
        contours, _hierarchy = cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(line, contours, -1, colour, max(1, round(max(canvas.shape[:2]) / 700)))
    return cv2.addWeighted(line, 0.6, fogged, 0.4, 0)


def _covered(picture: Picture, boxes: Sequence[Box]) -> np.ndarray:
    """uint8 of the picture's size: 1 inside the boxes (xywh in source pixels)."""
    seen = np.zeros(picture.canvas.shape[:2], np.uint8)
    for x, y, w, h in boxes:
        left, top = round(x * picture.scale_x), round(y * picture.scale_y)
        right, bottom = round((x + w) * picture.scale_x), round((y + h) * picture.scale_y)
        seen[top:bottom, left:right] = 1
    return seen


@cache
def _fog_table() -> np.ndarray:
    """uint8 [256,1,3]: what each value of each channel becomes in the fog."""
    values = np.arange(256, dtype=np.float32)[:, None, None]
    return (values * (1 - _FOG_DENSITY) + _FOG * _FOG_DENSITY).astype(np.uint8)


def _fill(canvas: np.ndarray, shape: Shape) -> None:
    rows, cols = shape.mask.bits.shape
    window = canvas[shape.mask.y : shape.mask.y + rows, shape.mask.x : shape.mask.x + cols]
    inside = shape.mask.bits[: window.shape[0], : window.shape[1]] == 1
    colour = np.array(_colour(shape.colour), np.float32)
    window[inside] = (window[inside] * (1 - _MASK_OPACITY) + colour * _MASK_OPACITY).astype(np.uint8)


def _outline(canvas: np.ndarray, shape: Shape, unit: int) -> None:
    import cv2

    colour = _colour(shape.colour)
    contours, _hierarchy = cv2.findContours(shape.mask.bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, contours, -1, colour, unit, cv2.LINE_AA, offset=(shape.mask.x, shape.mask.y))
    x1, y1, x2, y2 = (round(value) for value in shape.box)
    cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour, max(1, unit // 2))


def _label(canvas: np.ndarray, shape: Shape, taken: list[tuple[int, int, int, int]]) -> None:
    """Class and score above the box, left out where it would cover another label: the numbers are in results.json."""
    import cv2

    if not shape.text:
        return
    size = max(canvas.shape[:2]) / 2200 + 0.12
    (width, height), below = cv2.getTextSize(shape.text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    left = int(min(max(0, round(shape.box[0])), canvas.shape[1] - width - 2))
    top = int(max(0, round(shape.box[1]) - height - below))
    place = (left, top, left + width + 2, top + height + below)
    if left < 0 or any(_overlap(place, other) for other in taken):
        return
    taken.append(place)
    canvas[top : place[3], left : place[2]] = canvas[top : place[3], left : place[2]] // 3
    cv2.putText(canvas, shape.text, (left + 1, top + height), cv2.FONT_HERSHEY_SIMPLEX, size, _pale(shape.colour), 1, cv2.LINE_AA)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def legend_bar(canvas: np.ndarray, legend: str, size: float) -> np.ndarray:
    """One line of text on a bar as wide as the picture; smaller than ``size`` (OpenCV's font scale) where that is too long."""
    import cv2

    width = canvas.shape[1]
    (text_width, text_height), below = cv2.getTextSize(legend, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    if text_width > width - 12:
        size *= max(0.3, (width - 12) / text_width)
        (text_width, text_height), below = cv2.getTextSize(legend, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    bar = np.empty((text_height + below + 12, width, 3), np.uint8)
    bar[:] = _BAR
    cv2.putText(bar, legend, (6, 6 + text_height), cv2.FONT_HERSHEY_SIMPLEX, size, _TEXT, 1, cv2.LINE_AA)
    return bar
