"""A contact sheet: pictures of a data set with their objects drawn as they were understood.

A swapped class or a shifted box shows here at a glance, and in no table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.dataset import InstanceDataset, Instances
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import ApexError
from apex_train.preflight.walk import SetReport, Shown

CELL = 480  # px, the square in which a picture is fitted
_GAP = 8
_CAPTION = 22  # px of height
_FILL = 0.4  # opacity of a mask
_ROOM = 1.5  # a box whose longer side is that many times its class name's height, and half its width, gets the name
_NAMES = 3  # of a class in one picture
_GROUND, _INK, _CROWD = (24, 26, 30), (230, 230, 230), (150, 150, 150)


@dataclass(frozen=True)
class _Item:
    """An object in the pixels of its cell: box x1, y1, x2, y2, mask bool [h,w] or None, colour, name."""

    box: tuple[int, int, int, int]
    mask: np.ndarray | None
    colour: tuple[int, int, int]
    name: str
    crowd: bool


def write_sheet(reports: Sequence[SetReport], count: int, path: Path) -> int:
    """Draw up to ``count`` pictures into a PNG file, in one step; how many were drawn. Raises OSError."""
    from apex_runtime.pipeline.annotate import write_png

    chosen = choose([image for report in reports for image in report.images], count)
    cells = [_cell(image.dataset, image.place) for image in chosen]
    if cells:
        write_png(path, _grid(cells))
    return len(cells)


def choose(images: Sequence[Shown], count: int) -> list[Shown]:
    """Evenly spread over the set and always the same: half of the room for pictures with findings, the rest for objects.

    Pictures without objects come last. The order is that of the set.
    """
    flagged = [place for place, image in enumerate(images) if image.flagged]
    taken = set(_spread(flagged, count // 2 or count))
    for wanted in (True, False):
        rest = [place for place, image in enumerate(images) if place not in taken and (image.objects > 0) == wanted]
        taken.update(_spread(rest, count - len(taken)))
    return [images[place] for place in sorted(taken)]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of them at even distances."""
    count = min(count, len(places))
    return [places[(2 * n + 1) * len(places) // (2 * count)] for n in range(count)]


def class_colour(label: int, classes: int) -> tuple[int, int, int]:
    """RGB of a class: hues at even distances, for long lists in two brightnesses."""
    import colorsys

    rings = 1 if classes <= 12 else 2
    hue = (label // rings) / math.ceil(max(classes, 1) / rings)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.9 if label % rings == 0 else 0.55, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _cell(dataset: InstanceDataset, index: int) -> np.ndarray:
    """The picture with its objects and a caption below, uint8 [height, CELL, 3] RGB."""
    record = dataset.records[index]
    try:
        pixels, found = dataset.read_image(index), dataset.decode(index)[0]
    except ApexError:
        picture, tail = np.full((CELL // 2, CELL, 3), _GROUND, np.uint8), " - cannot be read"
    else:
        picture, scale = _scaled(pixels)
        _draw(picture, list(_items(dataset, found, scale, picture.shape[:2])))
        objects = int((~found.crowd).sum())
        tail = f" - {objects} object{'' if objects == 1 else 's'}"
    height, width = picture.shape[:2]
    canvas = np.full((height + _CAPTION, CELL, 3), _GROUND, np.uint8)
    left = (CELL - width) // 2
    canvas[:height, left : left + width] = picture
    _write(canvas, _fitted(f"{dataset.split}: {record.file_name}", tail), (4, height + 16), _INK)
    return canvas


def _scaled(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The picture fitted into a cell, and the factor."""
    import cv2

    height, width = pixels.shape[:2]
    scale = CELL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(pixels, size, interpolation=how)), scale


def _items(dataset: InstanceDataset, found: Instances, scale: float, size: tuple[int, int]) -> Iterator[_Item]:
    """The objects, the largest first, so that the small ones lie on top."""
    for n in np.argsort(-found.areas, kind="stable").tolist():
        x1, y1, x2, y2 = (round(float(side) * scale) for side in found.boxes[n])
        mask, crowd, label = found.masks[n], bool(found.crowd[n]), int(found.labels[n])
        colour = _CROWD if crowd else class_colour(label, len(dataset.categories))
        name = dataset.categories[label].name
        bits = None if mask is None else _scaled_mask(mask, scale, size)
        yield _Item((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)), bits, colour, name, crowd)


def _scaled_mask(mask: RoiMask, scale: float, size: tuple[int, int]) -> np.ndarray:
    import cv2

    matrix = np.array([[scale, 0, (mask.x + 0.5) * scale - 0.5], [0, scale, (mask.y + 0.5) * scale - 0.5]])
    # Reduced in one bilinear step, thin masks would fall between the samples: blurred by the factor before.
    bits: np.ndarray = mask.bits.astype(np.float32)
    if scale < 0.5:
        bits = cv2.blur(bits, (round(1 / scale), round(1 / scale)), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(cv2.warpAffine(bits, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)) > 0.4


def _draw(picture: np.ndarray, items: Sequence[_Item]) -> None:
    """Masks, then outlines and boxes, then names where there is room."""
    import cv2

    for item in items:
        if item.mask is not None:
            _fill(picture, item)
    for item in items:
        x1, y1, x2, y2 = item.box
        if item.mask is not None:
            contours, _ = cv2.findContours(item.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, contours, -1, item.colour, 1, cv2.LINE_AA)
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), item.colour, 1)
    _name(picture, items)


def _fill(picture: np.ndarray, item: _Item) -> None:
    """A translucent mask; crowds are hatched."""
    inside = item.mask
    assert inside is not None
    if item.crowd:
        rows, columns = np.indices(inside.shape)
        inside = inside & ((rows + columns) % 8 < 3)
    mixed = picture[inside] * (1 - _FILL) + np.array(item.colour, np.float32) * _FILL
    picture[inside] = mixed.astype(np.uint8)


def _name(picture: np.ndarray, items: Sequence[_Item]) -> None:
    """Class names above or in the corners of boxes, the largest first; none over another. Of one class one name is enough.

    In a scene of small objects the colours must do: names would hide what they name.
    """
    taken = np.zeros(picture.shape[:2], bool)
    if len({item.name for item in items}) == 1:
        items = items[:1]
    written: Counter[str] = Counter()
    for item in items:
        x1, y1, x2, y2 = item.box
        name = f"crowd: {item.name}" if item.crowd else item.name
        width, height = _extent(name)
        left = max(0, min(x1, picture.shape[1] - width - 4))
        top = y1 - height - 6 if y1 >= height + 6 else max(0, min(y1, picture.shape[0] - height - 6))
        place = slice(top, top + height + 6), slice(left, left + width + 4)
        small = max(x2 - x1, y2 - y1) < max(_ROOM * height, width / 2)
        if small or written[name] == _NAMES or taken[place].any():
            continue
        written[name] += 1
        taken[place] = True
        picture[place] = picture[place] // 4
        _write(picture, name, (left + 2, top + height + 2), _pale(item.colour))


def _pale(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return (colour[0] + 255) // 2, (colour[1] + 255) // 2, (colour[2] + 255) // 2


def _grid(cells: Sequence[np.ndarray]) -> np.ndarray:
    """The cells in rows, each as high as its highest cell."""
    columns = math.ceil(math.sqrt(len(cells)))
    rows = [_row(cells[start : start + columns], columns) for start in range(0, len(cells), columns)]
    return np.vstack([np.full((_GAP, rows[0].shape[1], 3), _GROUND, np.uint8), *rows])


def _row(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    row = np.full((max(len(cell) for cell in cells) + _GAP, columns * (CELL + _GAP) + _GAP, 3), _GROUND, np.uint8)
    for n, cell in enumerate(cells):
        left = n * (CELL + _GAP) + _GAP
        row[: len(cell), left : left + CELL] = cell
    return row


def _fitted(text: str, tail: str = "") -> str:
    """A caption that fits into a cell: of a long name the end is what tells it from others."""
    text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    if _extent(text + tail)[0] <= CELL - 8:
        return text + tail
    while len(text) > 4 and _extent("..." + text + tail)[0] > CELL - 8:
        text = text[1:]
    return "..." + text + tail


def _extent(text: str) -> tuple[int, int]:
    """Width and height in pixels."""
    import cv2

    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    return int(width), int(height)


def _write(canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    import cv2

    text = "".join(letter if letter.isascii() else "?" for letter in text)
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
