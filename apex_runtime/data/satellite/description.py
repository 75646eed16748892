"""``satellite.yaml``: what cannot be seen from a folder of scenes, with a default for all of it.

The file lies in the folder of the data set, or elsewhere with ``path:`` naming that folder. Unknown keys are refused.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from apex_runtime.data.layouts import SATELLITE_FILE, split_name
from apex_runtime.data.read_yaml import read_yaml
from apex_runtime.data.satellite.colour_table import Classes, Entry, read_classes
from apex_runtime.errors import ConfigError, UsageError

SourceKind = Literal["masks", "polygons", "coco", "boxes"]
CLASSES_FILE = "classes.json"

_WINDOWED = 2048  # pixels; a longer side is read in windows unless the description says otherwise
_WINDOW = 1024
_REMEDY = "The keys of satellite.yaml are described in docs/data-satellite.md."


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitRule(_Section):
    """How scenes become splits: by the area in their name, or by a region of every scene."""

    areas: dict[str, tuple[str, ...]] = {}  # split -> areas; what is not named is train
    pattern: str = ""  # its first group, searched in the name of the scene, is the area; without it the folder is
    regions: dict[str, tuple[float, float, float, float]] = {}  # split -> shares x0, y0, x1, y1 of width and height

    @field_validator("areas", "regions", mode="after")
    @classmethod
    def _one_name_per_split(cls, value: dict[str, Any]) -> dict[str, Any]:
        named = {split_name(name): rule for name, rule in value.items()}
        if len(named) < len(value):
            raise ValueError("one split is named twice")
        return named

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if value and groups != 1:
            raise ValueError("needs exactly one group in parentheses, the area")
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> SplitRule:
        if bool(self.areas) == bool(self.regions):
            raise ValueError("give either areas or regions")
        if self.pattern and not self.areas:
            raise ValueError("pattern belongs to areas")
        for name, (x0, y0, x1, y1) in self.regions.items():
            if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
                raise ValueError(f"region {name}: shares x0 < x1 and y0 < y1 from 0 to 1")
        return self


class Description(_Section):
    """What satellite.yaml may say. Folders and files are relative to ``path``."""

    path: str = ""  # the data set; relative to the file, default: where the file lies
    images: str = ""  # folder; default: images, image or imgs, also within train, val and test
    masks: str = ""  # folder; default: masks, mask, labels or gt
    polygons: tuple[str, ...] = ()  # GeoJSON files or folders; default: found beside the scenes
    source: Literal["auto"] | SourceKind = "auto"
    classes: tuple[Entry, ...] | str = ()  # a list (names alone do for polygons), or a file; default: classes.json in the folder
    ignore: tuple[Entry, ...] = ()  # colours of the masks that are background
    ignore_regions: tuple[str, ...] = ()  # names from ignore: neither object nor background
    colour_tolerance: int = Field(default=0, ge=0, le=127)  # largest difference per channel, for masks saved as JPEG
    min_area: int = Field(default=64, ge=1)  # pixels; smaller regions of a mask are specks
    min_piece: float = Field(default=16.0, ge=0)  # square pixels; smaller pieces of what a border cuts are left out
    connectivity: Literal[4, 8] = 8
    window: Literal["auto", "none"] | int = "auto"  # pixels; auto: 1024 where a side exceeds 2048
    overlap: int = Field(default=128, ge=0)  # pixels between neighbouring windows
    class_property: str = ""  # property of a GeoJSON feature that names its class
    coordinates: Literal["auto", "pixel", "geographic"] = "auto"  # of the GeoJSON; auto: whichever meets the scenes
    split: SplitRule | None = None

    @field_validator("polygons", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value] if isinstance(value, list) else value

    @field_validator("images", "masks", "polygons", "classes")
    @classmethod
    def _stays_inside(cls, value: Any) -> Any:
        for name in (value,) if isinstance(value, str) else value:
            if isinstance(name, str) and (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name):
                raise ValueError(f"{name!r} leaves the data folder; `path` says where that is")
        return value

    @field_validator("window", "colour_tolerance", "min_area", "overlap", mode="before")
    @classmethod
    def _a_switch_is_no_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a number, not true or false")
        return value

    @field_validator("window")
    @classmethod
    def _holds_a_pixel(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"windows of {value} pixels")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        size = _WINDOW if self.window == "auto" else self.window
        if isinstance(size, int) and 2 * self.overlap > size:
            raise ValueError(f"overlap {self.overlap} is more than half of window {size}")
        if isinstance(self.classes, str) and self.ignore:
            raise ValueError("ignore belongs into the file that `classes` names")
        return self

    def window_size(self, height: int, width: int) -> int | None:
        """Side of the windows that a scene is read in; None: in one piece."""
        if self.window == "auto":
            return _WINDOW if max(height, width) > _WINDOWED else None
        return None if self.window == "none" else self.window


class Described:
    """A data set's folder ``root``, its ``options``, the ``file`` that gave them (or None), and its table of classes."""

    def __init__(self, root: Path, options: Description, file: Path | None) -> None:
        self.root, self.options, self.file = root, options, file
        self.classes_file = self._classes_file()

    def _classes_file(self) -> Path | None:
        if isinstance(self.options.classes, str):
            return self.root / self.options.classes
        beside = self.root / CLASSES_FILE
        return beside if not self.options.classes and not self.options.ignore and beside.is_file() else None

    def classes(self) -> Classes:
        """The class table; empty when nothing gives one. Raises DataError."""
        if self.classes_file is not None:
            return read_classes(self.classes_file)
        return Classes.model_construct(classes=self.options.classes, ignore=self.options.ignore)

    @property
    def where(self) -> Path:
        """What to name when the description is at fault."""
        return self.file or self.root

    def files(self) -> list[Path]:
        """The table of classes, where it is a file: part of the annotation."""
        return [] if self.classes_file is None else [self.classes_file]


_READ_BY: dict[str, SourceKind] = {
    "polygons": "polygons",
    "class_property": "polygons",
    "coordinates": "polygons",
    "ignore": "masks",
    "ignore_regions": "masks",
    "colour_tolerance": "masks",
    "min_area": "masks",
    "connectivity": "masks",
}


def refuse_unread(described: Described, source: SourceKind) -> None:
    """Raises ConfigError for a key that changes nothing: one of another source, or of a class table that is not there."""
    options, where = described.options, described.where
    given = [key for key in _READ_BY if getattr(options, key) != Description.model_fields[key].default]
    unread = [key for key in given if _READ_BY[key] != source]
    if unread:
        message = f"{where}: {', '.join(unread)}: not read, for the objects come from {source} (`source`)."
        raise ConfigError(message, "Remove it, or choose another `source`.", path=where)
    has_table = described.classes_file is not None or options.classes or options.ignore
    unread = [key for key in given if key in ("ignore_regions", "colour_tolerance")]
    if unread and not has_table:
        message = f"{where}: {', '.join(unread)}: not read, for no table says what the colours of the masks mean."
        raise ConfigError(message, "Remove it, or give `classes`.", path=where)


def describe(data: Path) -> Described:
    """The description of a folder, or of a satellite.yaml given by itself. Raises ConfigError, or UsageError for no folder."""
    data = Path(data)
    file = data if data.is_file() else data / SATELLITE_FILE
    if not file.is_file():
        if not data.is_dir():
            raise UsageError(f"{data}: data folder not found.", "Give the folder of the data set.", path=data)
        return Described(data, Description(), None)
    options = _load(file)
    root = file.parent / options.path
    if not root.is_dir():
        raise ConfigError(f"{file}: path {options.path!r} is no folder ({root}).", "Correct `path`.", path=file)
    return Described(root, options, file)


def _load(file: Path) -> Description:
    try:
        content = read_yaml(file, ConfigError)
        options = Description.model_validate({} if content is None else content)
        if not isinstance(options.classes, str):  # the same rules as for a file of classes
            Classes(classes=options.classes, ignore=options.ignore)
        return options
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise ConfigError(f"{file}: {reasons}.", _REMEDY, path=file) from error
