"""Classes of masks that no table explains: grey values and palette indices are taken as classes where that is safe."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from apex_runtime.data.satellite.colour_table import Code, ColourTable, count_codes, show_code
from apex_runtime.data.satellite.mask_picture import MaskPicture, decode_mask
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category

_MAX_CLASS = 64  # grey values above it are shades or object numbers rather than classes
_LISTED = 12  # colours shown in an error
_JPEG = (
    "Save them as PNG, or write satellite.yaml: for black and white `classes: [{name: object, value: 255}]` and "
    "`colour_tolerance: 127`, for colours `color` instead of `value` and a smaller tolerance."
)


def infer_table(masks: Iterable[Path]) -> ColourTable:
    """The table of masks that come without one. 0 is background.

    One further value in all of them (0 and 255, 0 and 1) is the class "object"; several up to 64 are classes named after their
    value. Raises DataError otherwise, with the colours found and the classes.json to write. Every mask is decoded for it.
    """
    counts: Counter[Code] = Counter()
    first: Path | None = None
    for path in masks:
        first = first or path
        try:
            counts.update(dict(_values(decode_mask(path))))
        except (ValueError, OSError):  # reported when this mask is read
            continue
    if set(counts) == {0}:
        remedy = "Are these the right masks? Every pixel of an object has the value of its class, 1 or 255 where there is one."
        raise DataError(f"{first and first.parent}: every pixel of every mask is 0.", remedy, path=first and first.parent)
    values = sorted(code for code in counts if isinstance(code, int) and code != 0)
    if first is None or len(values) < len(set(counts) - {0}) or not values or (len(values) > 1 and values[-1] > _MAX_CLASS):
        raise _unexplained(counts, first or Path("masks"))
    if len(values) == 1:
        return ColourTable((Category(id=1, name="object"),), (values[0],), (0,))
    return ColourTable(tuple(Category(id=value, name=f"class {value}") for value in values), tuple(values), (0,))


def _values(picture: MaskPicture) -> list[tuple[Code, int]]:
    """Values or palette indices of a mask with their counts; colours where it has neither."""
    if picture.is_grey:
        return count_codes(picture.pixels.reshape(-1))
    index_of = {colour: index for index, colour in reversed(list(enumerate(picture.palette)))}
    return [
        (index_of.get(code, code[0] if len(set(code)) == 1 else code), count)
        for code, count in count_codes(picture.pixels.reshape(-1, 3))
        if not isinstance(code, int)
    ]


def _unexplained(counts: Counter[Code], first: Path) -> DataError:
    folder = first.parent
    if first.suffix.lower() in (".jpg", ".jpeg"):
        return DataError(f"{folder}: masks saved as JPEG, with {len(counts)} colours where there were a few.", _JPEG, path=folder)
    if not all(isinstance(code, int) for code in counts):  # one form for all of them
        counts = Counter({(code, code, code) if isinstance(code, int) else code: count for code, count in counts.items()})
    found = counts.most_common(_LISTED)
    listed = ", ".join(f"{show_code(code)} ({count} pixels)" for code, count in found)
    more = f" and {len(counts) - len(found)} more" if len(counts) > len(found) else ""
    return DataError(
        f"{folder}: these masks need a table of classes. Found: {listed or 'no mask that can be read'}{more}.",
        f"Write classes.json beside the folder and name the classes: {_proposal([code for code, _ in found])}",
        path=folder,
    )


def _proposal(codes: list[Code]) -> str:
    """A classes.json with a line per colour; the most frequent one is taken for the background."""
    lines = []
    for place, code in enumerate(codes):
        shown = {"value": code} if isinstance(code, int) else {"color": show_code(code)}
        lines.append({"name": f"name {place}", **shown})
    return json.dumps({"classes": lines[1:], "ignore": lines[:1]})
