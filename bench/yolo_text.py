"""Instances in the layout of YOLO, for programs that read nothing else: a line per object, its class and its outline."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from apex_runtime.data.dataset import InstanceDataset, Instances
from apex_runtime.data.roi_mask import RoiMask

_UPSCALE = 4  # contours run through pixel centres: on an enlarged mask they lie an eighth of a pixel inside the edge


def write_split(folder: Path, dataset: InstanceDataset) -> None:
    """``images/`` (links) and ``labels/`` of one split. Of two images of one name only one would be left: that is refused."""
    names = [record.path.name for record in dataset.records]
    assert len(set(names)) == len(names), f"{dataset.source}: two images of one name"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index, record in enumerate(dataset.records):
        link = folder / "images" / record.path.name
        if not link.is_symlink():
            link.symlink_to(record.path.resolve())
        lines = [yolo_line(label, mask, record.width, record.height) for label, mask in labelled_masks(dataset.instances(index))]
        (folder / "labels" / link.name).with_suffix(".txt").write_text("".join(lines))


def write_description(folder: Path, train: str, val: str, names: Iterable[str], root: str = ".") -> Path:
    """``data.yaml``; ``train`` and ``val`` are folders below ``root``, which a program may want as a whole path."""
    path = folder / "data.yaml"
    path.write_text(json.dumps({"path": root, "train": train, "val": val, "names": dict(enumerate(names))}))
    return path


def labelled_masks(instances: Instances) -> list[tuple[int, RoiMask]]:
    """Label and mask of every object that has a mask and is none of a crowd."""
    rows = zip(instances.labels, instances.masks, instances.crowd, strict=True)
    return [(int(label), mask) for label, mask, crowd in rows if mask is not None and not crowd]


def yolo_line(label: int, mask: RoiMask, width: int, height: int) -> str:
    """One object: its largest outline, simplified by at most half a pixel."""
    enlarged = np.kron(np.pad(mask.bits, 1), np.ones((_UPSCALE, _UPSCALE), np.uint8))
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = cv2.approxPolyDP(max(contours, key=cv2.contourArea), _UPSCALE / 2, True).reshape(-1, 2)
    points = ((outline + 0.5) / _UPSCALE - 1 + (mask.x, mask.y)) / (width, height)
    return f"{label} " + " ".join(f"{value:.5f}" for value in points.reshape(-1)) + "\n"
