"""The pictures of one image of a comparison, small and encoded: both drawings, where masks differ, which tiles were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from apex_runtime.errors import ApexError
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.outputs import Outputs
from apex_runtime.parity.run import Seen, chosen_tiles
from apex_runtime.pipeline.annotate import Picture, draw
from apex_runtime.pipeline.pictures import shapes_of
from apex_runtime.postprocess.detections import detections_of_image
from apex_runtime.postprocess.letterbox import Letterbox

MAX_SIDE = 640  # pixels of a panel
DRAW_SCORE = 0.3
_QUALITY = 85
# Tiles that both chose, that only the reference chose, that only the candidate chose (RGB).
COMMON, ONLY_REFERENCE, ONLY_CANDIDATE = (255, 214, 102), (64, 156, 255), (255, 82, 82)
NOT_FINITE = (0, 255, 255)
_DIM = 0.45


@dataclass(frozen=True)
class Panel:
    """A picture with its caption, JPEG."""

    caption: str
    jpeg: bytes


def draw_panels(seen: Seen, info: ModelInfo, found: Mapping[str, Stats], asked: str) -> tuple[Panel, ...]:
    """Reference, candidate, difference, tiles. ``found``: the statistics of the image; what has another form is not drawn."""
    deformed = [name for name, stats in found.items() if stats.problems]
    caption, difference = _difference(seen, "mask_prototypes" in deformed)
    return (
        Panel("reference", _encoded(_drawing(seen.free_reference, seen, info, asked, []))),
        Panel("candidate", _encoded(_drawing(seen.free_candidate, seen, info, asked, deformed))),
        Panel(caption, _encoded(difference)),
        Panel("tiles: chosen by both, only by the reference, only by the candidate", _encoded(_tiles(seen, info))),
    )


def _drawing(outputs: Outputs, seen: Seen, info: ModelInfo, asked: str, deformed: Sequence[str]) -> np.ndarray:
    """What ``apex-rt infer`` would draw of the image at the size of the graph; the bare image where that is impossible."""
    picture = Picture.of(seen.case.pixels)
    if deformed:
        return draw(picture, [], [], f"cannot be drawn: {', '.join(deformed)}")
    own = {name: array[0] for name, array in outputs.items()}
    letterbox = Letterbox(info.input.height, info.input.width, info.input.height, info.input.width)
    try:
        detections = detections_of_image(own, letterbox, info, min_score=DRAW_SCORE)
    except ApexError as error:  # NaN, or a class that does not exist
        return draw(picture, [], [], f"cannot be drawn: {error}")
    anchors = _anchors(detections.boxes, own, letterbox)
    shapes = shapes_of(detections, picture, info, DRAW_SCORE, 0)
    shapes = [replace(shape, colour=anchor) for shape, anchor in zip(shapes, anchors, strict=False)]
    chosen = [_place(tile, info) for tile in sorted(_choice(outputs, info))]
    tiles, *finer = [[place.box for place in chosen if place.level == level.level] for level in info.tiles.levels]
    objects = "1 object" if len(shapes) == 1 else f"{len(shapes)} objects"
    return draw(picture, shapes, tiles, f"{len(chosen)} tiles (budget {asked})   {objects}", finer=finer)


def _anchors(boxes_n4: np.ndarray, own: Outputs, letterbox: Letterbox) -> list[int]:
    """The candidate that each detection is: its colour, so that an object looks the same in both drawings."""
    boxes_M4 = letterbox.boxes_to_source(own["boxes"])
    return [int(own["candidate_ids"][(boxes_M4 == box_4).all(1).argmax()]) for box_4 in boxes_n4]


def _difference(seen: Seen, deformed: bool) -> tuple[str, np.ndarray]:
    """|d| of the mask prototypes under the same tiles, the largest over the channels; the brightest is the largest of the map."""
    import cv2

    if deformed:
        return "mask prototypes cannot be compared", seen.case.pixels // 4
    first, second = (side["mask_prototypes"][0].astype(np.float64) for side in (seen.forced_reference, seen.forced_candidate))
    finite = (np.isfinite(first) & np.isfinite(second)).all(0)
    with np.errstate(invalid="ignore"):
        difference = np.where(finite, np.abs(second - first).max(0), 0.0)
    largest = float(difference.max(initial=0.0))
    scaled = (difference / largest * 255 if largest else difference).astype(np.uint8)
    coloured = cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO)[:, :, ::-1].copy()
    coloured[~finite] = NOT_FINITE
    height, width = seen.case.pixels.shape[:2]
    bad = int(np.count_nonzero(~finite))
    caption = f"mask prototypes |d|, same tiles; brightest: {largest:.2e}" + (f"; {bad} cells not finite" if bad else "")
    return caption, cv2.resize(coloured, (width, height), interpolation=cv2.INTER_NEAREST)


def _tiles(seen: Seen, info: ModelInfo) -> np.ndarray:
    """Both choices, left alone, over the dimmed image; what is in no set stays dark. Numbers outside the grid are not drawn."""
    picture = (seen.case.pixels * _DIM).astype(np.uint8)
    reference, candidate = (_choice(side, info) for side in (seen.free_reference, seen.free_candidate))
    for tiles, colour in (
        (reference & candidate, COMMON),
        (reference - candidate, ONLY_REFERENCE),
        (candidate - reference, ONLY_CANDIDATE),
    ):
        for tile in sorted(tiles):
            _frame(picture, seen.case.pixels, _place(tile, info), colour)
    return picture


def _choice(outputs: Outputs, info: ModelInfo) -> set[int]:
    if "tile_ids" not in outputs or "tile_levels" not in outputs:
        return set()
    return {tile for tile in chosen_tiles(outputs, info.tiles).tolist() if 0 <= tile < info.tiles.count}


class _Place(NamedTuple):
    """Where a tile lies in the input: the level, and x, y, width, height in pixels."""

    level: int
    box: tuple[int, int, int, int]


def _place(tile: int, info: ModelInfo) -> _Place:
    grid = next(level for level in info.tiles.levels if tile < level.flat.stop)
    row, col = divmod(tile - grid.first, grid.cols)
    return _Place(grid.level, (col * grid.side, row * grid.side, grid.side, grid.side))


def _frame(picture: np.ndarray, bright: np.ndarray, place: _Place, colour: tuple[int, int, int]) -> None:
    """A tile at its full brightness, tinted, inside a line; of finer levels the line lies further inside."""
    import cv2

    left, top, side, _ = place.box
    window = np.s_[top : top + side, left : left + side]
    picture[window] = (bright[window] * 0.75 + np.array(colour, np.float32) * 0.25).astype(np.uint8)
    thick = max(1, side // 24)
    inset = thick // 2 + 2 * place.level
    cv2.rectangle(picture, (left + inset, top + inset), (left + side - 1 - inset, top + side - 1 - inset), colour, thick)


def _encoded(picture: np.ndarray) -> bytes:
    """JPEG of at most ``MAX_SIDE`` pixels a side."""
    import cv2

    height, width = picture.shape[:2]
    factor = min(1.0, MAX_SIDE / max(height, width))
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
