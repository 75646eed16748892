"""Which colour or value of a mask stands for which class, and what is background.

``classes.json`` (or ``classes:`` in satellite.yaml) is ``{"classes": [{"id", "name", "color" | "value"}], "ignore": [{"name",
"color" | "value"}]}``: ``color`` is ``"#3C1098"`` or ``[60, 16, 152]``, ``value`` a grey value or the index of a palette. What
``ignore`` lists is background. Where it lists nothing, black (value 0) is background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from apex_runtime.data.json_lines import JsonFile
from apex_runtime.data.satellite.mask_picture import Colour, MaskPicture
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category

Code = Colour | int  # a colour (red, green, blue), or a grey value or palette index

_MAX_BYTES = 1_000_000
_FORM = (
    'Its form is {"classes": [{"id": 1, "name": "roof", "color": "#3C1098"}], "ignore": [{"name": "none", "color": "#000000"}]}.'
)


class Entry(BaseModel):
    """One line of a table: a name, and the ``color`` or the ``value`` that stands for it (polygons and boxes need neither)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int | None = None
    name: str = Field(min_length=1)
    color: Colour | None = None
    value: int | None = Field(default=None, ge=0, le=65535)

    @field_validator("color", mode="before")
    @classmethod
    def _hexadecimal(cls, value: Any) -> Any:
        return parse_colour(value) if value is not None else None

    @model_validator(mode="after")
    def _one_of_them(self) -> Entry:
        if self.color is not None and self.value is not None:
            raise ValueError(f"{self.name!r} has both color and value")
        return self

    @property
    def code(self) -> Code | None:
        """What the mask shows for it; None when the table does not say."""
        return self.color if self.color is not None else self.value


def parse_colour(value: Any) -> Colour:
    """``"#3C1098"`` or ``[60, 16, 152]`` as red, green, blue. Raises ValueError."""
    if isinstance(value, list | tuple) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return value[0], value[1], value[2]
    if isinstance(value, str) and len(text := value.removeprefix("#")) == 6:
        try:
            number = int(text, 16)
        except ValueError:
            pass
        else:
            return number >> 16, number >> 8 & 255, number & 255
    raise ValueError(f'a color is "#RRGGBB" (in quotes) or [red, green, blue], not {value!r}')


def show_code(code: Code) -> str:
    """A colour as #RRGGBB, a value as itself."""
    return str(code) if isinstance(code, int) else "#{:02X}{:02X}{:02X}".format(*code)


class Classes(BaseModel):
    """The classes of a set and what counts as background, as read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[Entry, ...] = ()
    ignore: tuple[Entry, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Classes:
        ids = [entry.id for entry in self.classes if entry.id is not None]
        if ids and len(ids) < len(self.classes):
            raise ValueError("some classes have an id and others not")
        for what, values in (("ids", ids), ("names", [entry.name for entry in self.classes])):
            if len(set(values)) < len(values):
                raise ValueError(f"class {what} appear twice")
        codes = [entry.code for entry in (*self.classes, *self.ignore) if entry.code is not None]
        if len(set(codes)) < len(codes):
            raise ValueError("one color or value appears twice")
        if len({isinstance(code, int) for code in codes}) > 1:
            raise ValueError("colors and values in one table: use the one or the other")
        return self

    @property
    def categories(self) -> tuple[Category, ...]:
        """Classes sorted by id; where the table gives none they are numbered from 1."""
        numbered = enumerate(self.classes, 1)
        return tuple(
            sorted(
                (Category(id=e.id if e.id is not None else n, name=e.name) for n, e in numbered), key=lambda category: category.id
            )
        )


def read_classes(path: Path) -> Classes:
    """A table from a JSON file; keys that say more about a class are left alone. Raises DataError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        document = JsonFile(path).values
        if not isinstance(document.get("classes"), list):
            raise ValueError("no list 'classes'")
        known = {key: [_known_keys(entry) for entry in document.get(key, [])] for key in ("classes", "ignore")}
        return Classes.model_validate(known)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).", "Check the path.", path=path) from error
    except (ValueError, TypeError) as error:
        reason = "; ".join(e["msg"] for e in error.errors()) if isinstance(error, ValidationError) else str(error)
        raise DataError(f"{path}: not a class table: {reason}.", _FORM, path=path) from error


def _known_keys(entry: Any) -> Any:
    return {key: entry[key] for key in Entry.model_fields if key in entry} if isinstance(entry, dict) else entry


@dataclass(frozen=True)
class ColourTable:
    """``codes[label]`` is what stands for a class in the masks; ``background`` and ``regions`` (to be ignored) are no objects."""

    categories: tuple[Category, ...]
    codes: tuple[Code, ...]
    background: tuple[Code, ...] = ()
    regions: tuple[Code, ...] = ()
    tolerance: int = 0

    def class_masks(self, picture: MaskPicture) -> Iterator[tuple[int, np.ndarray]]:
        """Label and pixels (uint8 [h,w], 0 or 255) of every class. Raises ValueError when the palette cannot tell two apart."""
        self._check_palette(picture)
        for label, code in enumerate(self.codes):
            yield label, self._where(picture, code)

    def region_mask(self, picture: MaskPicture) -> np.ndarray:
        """Pixels (uint8 [h,w]) that are neither objects nor background."""
        mask = np.zeros(picture.pixels.shape[:2], np.uint8)
        for code in self.regions:
            mask |= self._where(picture, code)
        return mask

    def unknown(self, picture: MaskPicture) -> list[tuple[Code, int]]:
        """Colours or values that the table does not list, with their pixel counts, most frequent first."""
        known = np.zeros(picture.pixels.shape[:2], np.uint8)
        for code in (*self.codes, *self.background, *self.regions):
            known |= self._where(picture, code)
        return count_codes(picture.pixels[known == 0])

    def _where(self, picture: MaskPicture, code: Code) -> np.ndarray:
        import cv2

        shown = _as_shown(picture, code)
        if picture.is_grey:
            low, high = max(shown) - self.tolerance, min(shown) + self.tolerance
            if low > high:  # a colour that no grey comes near
                return np.zeros(picture.pixels.shape, np.uint8)
            return cv2.inRange(picture.pixels, low, high)
        low_rgb, high_rgb = ([part + side * self.tolerance for part in shown] for side in (-1, 1))
        return cv2.inRange(picture.pixels, np.array(low_rgb, np.float64), np.array(high_rgb, np.float64))

    def _check_palette(self, picture: MaskPicture) -> None:
        listed = (*self.codes, *self.background, *self.regions)
        shown = [_as_shown(picture, code) for code in listed]
        if len(set(shown)) < len(shown):
            raise ValueError("two classes have one colour in the palette of this mask: use colors instead of values")


def _as_shown(picture: MaskPicture, code: Code) -> tuple[int, ...]:
    """The colour that stands for a code in a picture; of a grey value it is that grey."""
    if not isinstance(code, int):
        return code
    return picture.palette[code] if code < len(picture.palette) else (code, code, code)


def count_codes(pixels: np.ndarray) -> list[tuple[Code, int]]:
    """Colours ([n,3]) or values ([n]) of some pixels with their counts, most frequent first."""
    if pixels.ndim == 1:
        counts = np.bincount(pixels)
        found: list[tuple[Code, int]] = [(int(value), int(counts[value])) for value in np.flatnonzero(counts)]
    else:
        wide = pixels.astype(np.uint32)
        values, numbers = np.unique(wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2], return_counts=True)
        found = [((v >> 16, v >> 8 & 255, v & 255), n) for v, n in zip(values.tolist(), numbers.tolist(), strict=True)]
    return sorted(found, key=lambda pair: -pair[1])


def build_table(classes: Classes, region_names: Sequence[str], tolerance: int, source: Path) -> ColourTable:
    """The table that decodes masks; the entries of ``ignore`` named in ``region_names`` become ignore regions.

    Raises DataError when a class has no colour, a name is unknown, or the tolerance makes two colours one.
    """
    order = [category.name for category in classes.categories]
    by_name = {entry.name: entry.code for entry in classes.classes}
    codes = [by_name[name] for name in order]
    absent = [name for name, code in zip(order, codes, strict=True) if code is None]
    if absent or not order:
        raise DataError(f"{source}: no color or value of the classes {', '.join(absent) or '(none listed)'}.", _FORM, path=source)
    ignored = {entry.name: entry.code for entry in classes.ignore}
    unknown = [name for name in region_names if name not in ignored]
    if unknown:
        remedy = f"Known in ignore: {', '.join(ignored) or 'nothing'}."
        raise DataError(f"{source}: ignore_regions names {', '.join(unknown)}.", remedy, path=source)
    regions = [code for name, code in ignored.items() if name in region_names and code is not None]
    background = [code for name, code in ignored.items() if name not in region_names and code is not None]
    known = [code for code in codes if code is not None]
    black: Code = 0 if isinstance(known[0], int) else (0, 0, 0)
    if not background and black not in (*known, *regions):
        background = [black]
    table = ColourTable(classes.categories, tuple(known), tuple(background), tuple(regions), tolerance)
    _check_tolerance(table, source)
    return table


def _check_tolerance(table: ColourTable, source: Path) -> None:
    listed = [(code,) if isinstance(code, int) else code for code in (*table.codes, *table.background, *table.regions)]
    for n, first in enumerate(listed):
        for second in listed[n + 1 :]:
            if max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 2 * table.tolerance:
                message = f"{source}: colour_tolerance {table.tolerance} makes {first} and {second} one colour."
                raise DataError(message, "Lower it.", path=source)
