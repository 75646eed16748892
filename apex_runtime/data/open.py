"""One entry for every data set: which layout a folder has, which splits, and the reader that opens one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apex_runtime.data import layouts
from apex_runtime.data.dataset import DatasetType, InstanceDataset
from apex_runtime.data.satellite import layout as satellite_layout
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPECTED = (
    "Expected data.yaml (YOLO), annotations/<split>.json and images/ (COCO), or images/ and masks/ (satellite); "
    "--dataset-type names the layout when it is none of these exactly."
)


@dataclass(frozen=True)
class Recognised:
    """What a folder was taken for and why; ``also`` are further layouts found in it, which are not read."""

    kind: DatasetType
    reason: str
    also: tuple[DatasetType, ...]

    def __str__(self) -> str:
        text = f"data set recognised as {self.kind}: {self.reason}"
        if self.also:
            text += f" (also found: {', '.join(self.also)}; choose with --dataset-type)"
        return text


def recognise(data: Path) -> Recognised:
    """The layout of a folder (or of a file that describes one): data.yaml, then COCO annotations, then images and masks.

    The first that is there wins, the others are named; a satellite.yaml is a word of the user and goes before annotations. Raises
    UsageError when there is none.
    """
    data = Path(data)
    if not data.exists():
        raise UsageError(f"{data}: data folder not found.", _EXPECTED, path=data)
    found = [(kind, reason) for kind, evidence in _EVIDENCE.items() if (reason := evidence(data))]
    if not found:
        hint = layouts.yolo_without_description(data)
        raise UsageError(f"{data}: no data set recognised{hint}.", _EXPECTED, path=data)
    if (data / layouts.SATELLITE_FILE).is_file():
        found.sort(key=lambda item: item[0] == "coco")
    (kind, reason), *others = found
    return Recognised(kind, reason, tuple(other for other, _ in others))


def split_names(data: Path, kind: DatasetType) -> list[str]:
    """The splits of a data set in the order train, val, test, then others. Raises UsageError when there is no such data set."""
    if kind == "coco":
        names = layouts.coco_splits(Path(data))
    elif kind == "yolo":
        from apex_runtime.data.yolo.dataset import yolo_splits

        names = yolo_splits(Path(data))
    else:
        from apex_runtime.data.satellite.dataset import satellite_splits

        names = satellite_splits(Path(data))
    order = {name: place for place, name in enumerate(("train", "val", "test"))}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def open_dataset(data: Path, split: str, kind: DatasetType | None = None, strict: bool = True) -> InstanceDataset:
    """One split of a data set; the layout is recognised when ``kind`` is None.

    Raises UsageError when there is no such data or split, naming the splits that exist; DataError for what is in it (with
    ``strict=False`` only when nothing can be opened: faulty entries are left out and listed in ``findings``).
    """
    data = Path(data)
    chosen = kind or recognise(data).kind
    names = split_names(data, chosen)
    if split not in names:
        raise UsageError(
            f"{data}: no split {split!r} in this {chosen} set. Splits found: {', '.join(names) or 'none'}.",
            "Choose one of these, or add the one that is missing." if names else _EXPECTED,
            path=data,
        )
    return _OPENERS[chosen](data, split, strict)


def _open_coco(data: Path, split: str, strict: bool) -> InstanceDataset:
    from apex_runtime.data.coco.dataset import open_coco

    return open_coco(data, split, strict)


def _open_yolo(data: Path, split: str, strict: bool) -> InstanceDataset:
    from apex_runtime.data.yolo.dataset import YoloDataset

    return YoloDataset(data, split, strict)


def _open_satellite(data: Path, split: str, strict: bool) -> InstanceDataset:
    from apex_runtime.data.satellite.dataset import SatelliteDataset

    return SatelliteDataset(data, split, strict)


# in the order of recognition
_EVIDENCE: dict[DatasetType, Callable[[Path], str]] = {
    "yolo": layouts.looks_like_yolo,
    "coco": layouts.looks_like_coco,
    "satellite": satellite_layout.looks_like_satellite,
}
_OPENERS: dict[DatasetType, Callable[[Path, str, bool], InstanceDataset]] = {
    "coco": _open_coco,
    "yolo": _open_yolo,
    "satellite": _open_satellite,
}
