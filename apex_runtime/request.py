"""What a call of ``Engine.predict`` asks for: images in any of the forms it takes, each with its budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from apex_runtime.data.sources import resolve_sources
from apex_runtime.errors import UsageError
from apex_runtime.routing.budget import Budget, parse_budget

Image = str | Path | np.ndarray
AnyBudget = Budget | int | float | str

ARRAYS = "Give paths, or arrays uint8 [h,w,3] in RGB order: np.asarray(image.convert('RGB')) of a PIL image."


def images_of(sources: Image | Iterable[Image]) -> tuple[Iterable[Image], int | None]:
    """The images, and how many they are; None when only reading them will tell. Raises UsageError when there are none to read."""
    if isinstance(sources, np.ndarray):
        return [sources], 1
    if isinstance(sources, str | Path):
        files = [item.path for item in resolve_sources(str(sources))]
        return files, len(files)
    if not isinstance(sources, Iterable):
        raise UsageError(f"predict: a {type(sources).__name__} is neither a path, an array nor a list of them.", ARRAYS)
    return sources, len(sources) if isinstance(sources, Sequence) else None


def budgets_of(budget: AnyBudget | Sequence[AnyBudget]) -> Budget | list[Budget]:
    """One budget, or one for each image. Raises UsageError for one that means nothing."""
    if isinstance(budget, str) or not isinstance(budget, Sequence):
        return parse_budget(budget)
    return [parse_budget(each) for each in budget]


def with_budgets(images: Iterable[Image], count: int | None, budgets: Budget | list[Budget]) -> Iterable[tuple[Image, Budget]]:
    """Each image with its budget. Raises UsageError at once for a wrong number of them."""
    if isinstance(budgets, Budget):
        return zip(images, repeat(budgets), strict=False)
    if count is not None and count != len(budgets):
        raise _uneven(len(budgets), f"{count} images")
    return _paired(images, budgets)


def _paired(images: Iterable[Image], budgets: Sequence[Budget]) -> Iterator[tuple[Image, Budget]]:
    given = 0
    for image in images:
        if given == len(budgets):
            raise _uneven(len(budgets), "more images")
        yield image, budgets[given]
        given += 1
    if given < len(budgets):
        raise _uneven(len(budgets), f"{given} images")


def _uneven(budgets: int, images: str) -> UsageError:
    return UsageError(f"budget: {budgets} of them for {images}.", "Give one for all, or one for each image.")
