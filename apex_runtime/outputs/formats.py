"""``--save``: which files a run writes beside results.json and its kin, where they lie, and the writing of those of one image."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.errors import UsageError
from apex_runtime.files import write_atomically
from apex_runtime.model_info import Category
from apex_runtime.outputs.geojson import feature_collection
from apex_runtime.outputs.yolo import yolo_text

ANNOTATED, YOLO, MASKS, GEOJSON, CSV = "annotated", "yolo", "masks", "geojson", "csv"
FORMATS = (ANNOTATED, YOLO, MASKS, GEOJSON, CSV)
TABLE = "summary.csv"
FOLDERS = {ANNOTATED: "annotated", YOLO: "labels", MASKS: "masks", GEOJSON: "geojson"}
_ENDINGS = {ANNOTATED: ".png", YOLO: ".txt", MASKS: "", GEOJSON: ".geojson"}


def parse_formats(names: Sequence[str]) -> frozenset[str]:
    """``annotated,yolo`` or ``none``. Raises UsageError."""
    unknown = [name for name in names if name not in (*FORMATS, "none")]
    if unknown or ("none" in names and len(names) > 1):
        what = f"{unknown[0]!r} is not a kind of file" if unknown else "none and something"
        raise UsageError(f"--save {','.join(names)}: {what}.", f"Give a list of {', '.join(FORMATS)}, or none.")
    if not names:
        raise UsageError("--save: no kind of file is named.", f"Give a list of {', '.join(FORMATS)}, or none.")
    return frozenset(names) - {"none"}


def relative_path(kind: str, file_name: str, alone: bool = True) -> str:
    """Where the file (of masks: the folder) of an image lies, relative to the output folder; never outside of it.

    YOLO text has the name of the image without its ending, as its readers expect, unless another image has that (``alone``).
    """
    parts = ["_" if part in ("", ".", "..") else part for part in file_name.split("/")]
    if kind == YOLO and alone:
        parts[-1] = PurePosixPath(parts[-1]).stem
    return "/".join([FOLDERS[kind], *parts]) + _ENDINGS[kind]


class ImageFiles:
    """Writes what was asked for of every image. The writer thread owns it."""

    def __init__(
        self, folder: Path, kinds: frozenset[str], categories: tuple[Category, ...], file_names: Iterable[str], least: float
    ) -> None:
        """``file_names``: of all images of the run; ``least``: score of the weakest mask that gets a picture."""
        self._folder, self._kinds, self._categories, self._least = folder, kinds, categories, least
        names = list(file_names) if YOLO in kinds else []
        stems = Counter(relative_path(YOLO, name) for name in names)
        # a.png beside a.jpg keeps its ending, which a.png.png must not lose then
        self._shared = {stem for stem, count in stems.items() if count > 1} | {relative_path(YOLO, name, False) for name in names}
        self.without_place = 0

    def write(self, record: dict[str, Any], source: Path) -> None:
        """The files of one record of results.jsonl, whose image is ``source``. Raises OSError, DataError."""
        name = record["file_name"]
        if YOLO in self._kinds:
            path = relative_path(YOLO, name, relative_path(YOLO, name) not in self._shared)
            write_atomically(self._folder / path, yolo_text(record, self._categories).encode())
        if MASKS in self._kinds:
            self._write_masks(self._folder / relative_path(MASKS, name), record)
        if GEOJSON in self._kinds:
            self._write_geojson(self._folder / relative_path(GEOJSON, name), record, source)

    def _write_masks(self, folder: Path, record: dict[str, Any]) -> None:
        from apex_runtime.outputs.mask_pictures import write_masks

        shutil.rmtree(folder, ignore_errors=True)
        write_masks(folder, record, self._categories, self._least)

    def _write_geojson(self, path: Path, record: dict[str, Any], source: Path) -> None:
        place = None if "clip" in record else open_scene(source).georeference
        if place is None:
            self.without_place += 1
            return
        write_atomically(path, json.dumps(feature_collection(record, self._categories, place)).encode())


def remove_files_of(folder: Path, file_name: str) -> None:
    """What an earlier run left of an image: it would pass for ours."""
    for kind in FOLDERS:
        for alone in (True, False):
            path = folder / relative_path(kind, file_name, alone)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
