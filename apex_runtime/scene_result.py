"""What ``Engine.predict_scene`` gives for an image that was cut into windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.tiles import Tile
from apex_runtime.result import BudgetUse
from apex_runtime.windows.found import Found, PackedMask
from apex_runtime.windows.look import SceneLook
from apex_runtime.windows.records import coco_results, tiles_of_window


class SceneWindow(NamedTuple):
    """A window: ``bbox`` (x, y, width, height) in pixels of the scene, and the tiles of its last look, in the same pixels."""

    bbox: tuple[int, int, int, int]
    tiles: list[Tile]


class Masks(Sequence[RoiMask]):
    """Masks that are held packed, a few hundred bytes each, and unpacked when one is asked for."""

    def __init__(self, packed: Sequence[PackedMask]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, place: int) -> RoiMask: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RoiMask]: ...
    def __getitem__(self, place: int | slice) -> RoiMask | Sequence[RoiMask]:
        return Masks(self._packed[place]) if isinstance(place, slice) else self._packed[place].unpack()

    def __iter__(self) -> Iterator[RoiMask]:
        return (packed.unpack() for packed in self._packed)


@dataclass(frozen=True, eq=False)
class SceneResult:
    """The n objects of a scene, best first, in pixels of the scene, each of them once where windows overlap.

    ``boxes`` float64 [n,4] xyxy, ``scores`` float32 [n], ``labels`` int64 [n], ``names[label]`` the class, ``masks`` n masks cut
    to their boxes. ``shape``: height and width of the scene; ``windows``: how it was cut, and where each was looked at closely.
    ``budget`` counts the tiles of all windows and passes, ``budget.per_level`` those of the last looks; ``source``: the file,
    None for an array.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[RoiMask]
    windows: list[SceneWindow]
    shape: tuple[int, int]
    info: ModelInfo
    budget: BudgetUse
    source: Path | None
    found: Found

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes; a label is a place in here."""
        return tuple(category.name for category in self.info.classes)

    @property
    def tiles(self) -> list[Tile]:
        """The tiles of all windows. Ids are those of the window's own grid."""
        return [tile for window in self.windows for tile in window.tiles]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """One COCO result record per object: image_id, category_id, bbox xywh, score, segmentation as compressed RLE."""
        return [entry for entry, _ in coco_results(self.found, self.shape, self.info, image_id)]


def _of_levels(look: SceneLook, info: ModelInfo) -> list[int]:
    levels = np.concatenate([one.tile_levels for one in look.windows])
    return np.bincount(levels, minlength=info.tiles.depth).tolist()


def scene_result(look: SceneLook, shape: tuple[int, int], info: ModelInfo, asked: str, source: Path | None) -> SceneResult:
    """The result of a scene of ``shape`` (height, width) that was looked at; its seams are joined here."""
    found = look.joined()
    windows = [
        SceneWindow((w.x, w.y, w.width, w.height), tiles_of_window(one, info)) for one in look.windows for w in (one.window,)
    ]
    return SceneResult(
        found.boxes,
        found.scores,
        found.labels,
        Masks(found.masks),
        windows,
        shape,
        info,
        BudgetUse(asked, look.planned, look.spent, tuple(_of_levels(look, info))),
        source,
        found,
    )
