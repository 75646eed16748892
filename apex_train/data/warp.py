"""One matrix applied to a picture: its pixels, masks, boxes and ignore regions, by the same operations on the same grid.

The window that the frame shows is cut out of the source first, so a large scene costs no more than its window. What shrinks is
averaged over areas first (no aliasing); what is left of the matrix is carried out by slicing where it only turns, and by
bilinear interpolation otherwise. A mask goes the same way, on its own pixels only: a pixel belongs to it when it covers at least
half of that pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_train.data.geometry import scaling, translation, warped_bounds
from apex_train.data.regions import Rect, cut, oriented, shrink_rows, tight

PAD_VALUE = 114
HALF = 0.5 - 1e-5  # coverage that makes a pixel one of the mask: a tie belongs to it, whatever float32 makes of the tie
WHOLE = 1e-6  # pixels; what is closer to whole numbers than this is whole


@dataclass(frozen=True, eq=False)
class Warp:
    """How a matrix is carried out: ``window`` of the source, shrunk to ``cells`` (columns, rows), then ``rest`` [3,3] from pixels
    of the shrunk window to pixels of ``target``, the part of the frame that is written.

    ``aligned``: axes stay axes and the target is exactly the window's image. ``exact``: ``rest`` is only a flip or a turn.
    """

    window: Rect
    cells: tuple[int, int]
    rest: np.ndarray
    target: Rect
    aligned: bool
    exact: bool

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """The window of ``image`` uint8 [h,w,3] as the pixels of the target."""
        piece = image[self.window.slices]
        if self.cells != (self.window.width, self.window.height):
            piece = cv2.resize(piece, self.cells, interpolation=cv2.INTER_AREA)
        if self.exact:
            return oriented(piece, self.rest)
        return self._interpolated(piece, self.rest, Rect(0, 0, self.target.width, self.target.height), PAD_VALUE)

    def region(self, mask: RoiMask) -> RoiMask | None:
        """The mask (bits 0 and 1) in pixels of the frame, cut to its bounds, bits bool; None when nothing is left."""
        part = cut(mask, self.window)
        if part is None:
            return None
        y, cover = shrink_rows(part.bits, part.y - self.window.top, self.cells[1] / self.window.height)
        x, cover = shrink_rows(cover.T, part.x - self.window.left, self.cells[0] / self.window.width)
        found = self._turned(cover.T, x, y) if self.exact else self._resampled(cover.T, x, y)
        return found and tight(RoiMask(found.x + self.target.left, found.y + self.target.top, found.bits))

    def _turned(self, cover: np.ndarray, x: int, y: int) -> RoiMask:
        left, top, _, _ = self._reach(cover, x, y)
        return RoiMask(round(left), round(top), oriented(cover, self.rest) >= HALF)

    def _resampled(self, cover: np.ndarray, x: int, y: int) -> RoiMask | None:
        fade_x, fade_y = 1 + np.abs(self.rest[:2, :2]).sum(1)  # a pixel of the shrunk window, over which interpolation fades
        left, top, right, bottom = self._reach(cover, x, y) + np.array([-fade_x, -fade_y, fade_x, fade_y])
        place = Rect(
            max(0, int(left)), max(0, int(top)), min(self.target.width, int(right)), min(self.target.height, int(bottom))
        )
        if place.width <= 0 or place.height <= 0:
            return None
        # A rim of zeros, but none where the window ends: there an aligned image repeats its last pixel.
        above, below = int(y > 0), int(y + cover.shape[0] < self.cells[1])
        before, after = int(x > 0), int(x + cover.shape[1] < self.cells[0])
        padded = np.pad(cover.astype(np.float32), ((above, below), (before, after)))
        matrix = self.rest @ translation(x - before, y - above)
        return RoiMask(place.left, place.top, self._interpolated(padded, matrix, place, 0) >= HALF)

    def _reach(self, cover: np.ndarray, x: int, y: int) -> np.ndarray:
        corners = np.array([[x, y, x + cover.shape[1], y + cover.shape[0]]], np.float64)
        return warped_bounds(corners, self.rest)[0]

    def _interpolated(self, piece: np.ndarray, matrix: np.ndarray, place: Rect, outside: int) -> np.ndarray:
        """Bilinear ``piece`` on the pixels ``place`` of the target; ``matrix`` [3,3] leads from the piece's to the target's."""
        # The centre of pixel j is at j + 0.5 here, at j for OpenCV.
        centres = translation(-place.left - 0.5, -place.top - 0.5) @ matrix @ translation(0.5, 0.5)
        return cv2.warpAffine(
            np.ascontiguousarray(piece),
            centres[:2],
            (place.width, place.height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if self.aligned else cv2.BORDER_CONSTANT,
            borderValue=(outside,) * 3,
        )


def plan_warp(matrix: np.ndarray, shape: tuple[int, int], frame: tuple[int, int]) -> Warp | None:
    """How to carry out ``matrix`` [3,3] from a picture of ``shape`` to a ``frame``, both (height, width); None when the
    frame shows nothing of the picture."""
    seen = clip_boxes(warped_bounds(_all_of(frame), np.linalg.inv(matrix)), shape)
    shown = clip_boxes(warped_bounds(seen, matrix), frame)
    if min((area[0, 2:] - area[0, :2]).min() for area in (seen, shown)) <= WHOLE:
        return None
    linear = matrix[:2, :2]
    factors = np.minimum(1.0, np.hypot(*linear))  # what a step along x, and along y, of the source becomes
    aligned = bool(((np.abs(linear) > 1e-9).sum(0) == 1).all()) and _is_whole(seen) and _is_whole(shown)
    if not aligned:  # two cells more on each side, for interpolation looks beyond the frame
        margin = 2 / factors
        seen = np.concatenate([np.floor(seen[:, :2] - margin), np.ceil(seen[:, 2:] + margin)], 1)
        seen = clip_boxes(seen, shape)
        shown = _all_of(frame)
    window, target = (Rect(*(int(side) for side in area[0].round())) for area in (seen, shown))
    cells = (max(1, round(window.width * factors[0])), max(1, round(window.height * factors[1])))
    grid = translation(window.left, window.top) @ scaling(window.width / cells[0], window.height / cells[1])
    rest = translation(-target.left, -target.top) @ matrix @ grid
    exact = aligned and bool((np.abs(np.abs(rest[:2, :2]).sum(0) - 1) < WHOLE).all())
    return Warp(window, cells, rest, target, aligned, exact)


def clip_boxes(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """``boxes`` [n,4] cut to an image of ``shape`` (height, width); what lies outside gets sides of 0."""
    return np.clip(boxes, 0, np.tile(shape[::-1], 2))


def _all_of(shape: tuple[int, int]) -> np.ndarray:
    return np.array([[0, 0, shape[1], shape[0]]], np.float64)


def _is_whole(values: np.ndarray) -> bool:
    return bool((np.abs(values - values.round()) < WHOLE).all())
