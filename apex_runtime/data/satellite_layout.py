"""Where the files of a satellite set lie: scenes, their mask pictures or polygons, and what tells such a folder from others."""

from __future__ import annotations

from pathlib import Path

from apex_runtime.data.image import EXTENSIONS
from apex_runtime.data.layouts import SATELLITE_FILE, split_name

IMAGE_FOLDERS = ("images", "image", "imgs")
MASK_FOLDERS = ("masks", "mask", "labels", "gt")


def looks_like_satellite(data: Path) -> str:
    """Why a folder is a set of images with mask pictures or polygons, or nothing."""
    if data.name == SATELLITE_FILE and data.is_file():
        return f"{SATELLITE_FILE} describes a satellite set"
    if not data.is_dir():
        return ""
    if (data / SATELLITE_FILE).is_file():
        return f"{SATELLITE_FILE} describes a satellite set"
    roots = [
        data,
        *sorted(path for path in data.iterdir() if path.is_dir() and split_name(path.name) in ("train", "val", "test")),
    ]
    for root in roots:
        images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
        masks = next((root / name for name in MASK_FOLDERS if _has_pictures(root / name)), None)
        if images is not None and masks is not None:
            return f"{images.relative_to(data)}/ and {masks.relative_to(data)}/ are images with masks"
        if images is not None and next(root.glob("**/*.geojson"), None) is not None:
            return f"{images.relative_to(data)}/ and GeoJSON are images with polygons"
    tiffs = next(data.glob("*.tif*"), None)
    if tiffs is not None and next(data.glob("*.geojson"), None) is not None:
        return "TIFF scenes and GeoJSON are images with polygons"
    return ""


def _has_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in EXTENSIONS for file in folder.glob("**/*"))
