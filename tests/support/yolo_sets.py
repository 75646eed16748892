"""Small YOLO sets written into a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

DESCRIPTION = "train: images/train\nnames: [car, bus]\n"


def write_image(path: Path, height: int = 60, width: int = 100) -> Path:
    """A black picture of this size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
    return path


def write_set(root: Path, labels: dict[str, str | None], description: str = DESCRIPTION) -> Path:
    """``data.yaml``, and for every name (without extension, below images/train) an image and its label text (None: no file)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(description)
    for name, text in labels.items():
        write_image(root / "images" / "train" / f"{name}.png")
        if text is not None:
            file = root / "labels" / "train" / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return root
