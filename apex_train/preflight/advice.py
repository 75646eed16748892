"""From what was measured to the values of a configuration, each with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from apex_train.config import FitConfig
from apex_train.preflight.facts import Facts

SMALLEST = 8  # px: a cell of the finest stride; of what is smaller, no cell sees most
_SMALL = 10  # percentile of the objects that must not be smaller: the middle of the smallest fifth
_SIZES = (512, 1536)  # px, bounds of train.size; images under the lower one are not enlarged without need
_MAX_TILES = 400  # of 64 px; beyond it, tiles of 128
_LIMITS = (100, 300, 500, 1000, 1500, 2000, 3000, 3840)  # model.max_detections
_ROOM = 1.25  # detections per object of the fullest image
_PIXELS = 16 * 256 * 256  # of a step: those of the defaults
_STEPS = 3000  # of a run: about those of the defaults on 500 images
_EPOCHS = (20, 30, 50, 80, 100, 150, 200, 300)
_SIDED = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


class Advice(NamedTuple):
    """A value of the configuration (``section.key``), and why."""

    key: str
    value: Any
    reason: str


def advise(facts: Facts) -> list[Advice]:
    """Values for this data, in the order in which they are written."""
    size, size_reason = _size(facts)
    tile, tile_reason = _tile(facts, size)
    size = _up(size, tile)
    crop, crop_reason = _crop(facts, size, tile)
    batch = _batch(crop, facts.splits[facts.train.split])
    return [
        Advice(
            "model.size", "nano", "the fastest; small and base see more and cost more, try them when nano has learned the data"
        ),
        Advice("model.tile", tile, tile_reason),
        Advice("model.halo", tile // 8, "what a tile sees around itself, px: an eighth of the tile, as in the defaults"),
        _max_detections(facts),
        Advice("train.dataset_type", facts.kind, "how the folder was read"),
        Advice("train.size", size, size_reason),
        Advice("train.crop", crop, crop_reason),
        Advice(
            "train.batch",
            batch,
            f"crops of {crop}: about the pixels of the defaults per step, fewer for few images; halve it when memory runs out",
        ),
        *_schedule(facts, batch),
        *_augment(facts, size),
    ]


def as_sections(advice: list[Advice]) -> dict[str, dict[str, Any]]:
    """The values as nested sections, checked against the configuration's own rules."""
    sections: dict[str, dict[str, Any]] = {}
    for item in advice:
        section, _, key = item.key.partition(".")
        sections.setdefault(section, {})[key] = item.value
    FitConfig.model_validate(sections)
    return sections


def _size(facts: Facts) -> tuple[int, str]:
    """The letterbox side at which the small objects keep SMALLEST pixels; not more than twice the images, and not less than
    the default or the images themselves, whichever is smaller: outlines need pixels too.
    """
    small = float(np.percentile(facts.short_shares, _SMALL))
    native = float(np.percentile(facts.longest, 90))
    wanted = SMALLEST / max(small, 1e-6)
    least = min(_SIZES[0], max(native, _SIZES[0] / 2))
    most = max(least, min(_SIZES[1], 2 * native))
    size = _up(min(max(wanted, least), most), 64)
    kept = small * size
    reason = f"nine of ten objects are at least {kept:.1f} px thin at this letterbox side (images: up to {native:.0f} px)"
    if wanted > most:
        reason += f"; {SMALLEST} px would need {_up(wanted, 64)}: cut the images into pieces if the smallest matter"
    return size, reason


def _tile(facts: Facts, size: int) -> tuple[int, str]:
    median = float(np.median(facts.long_shares)) * size
    if median > 128 or (size // 64) ** 2 > _MAX_TILES:
        count = (_up(size, 128) // 128) ** 2
        return 128, f"{count} tiles per image; half of the objects are longer than {median:.0f} px"
    return 64, f"{(size // 64) ** 2} tiles per image; half of the objects are shorter than {median:.0f} px"


def _crop(facts: Facts, size: int, tile: int) -> tuple[int, str]:
    long = float(np.percentile(facts.long_shares, 90)) * size
    crop = min(size, _up(max(256.0, 1.5 * long), max(64, tile)))
    return crop, f"nine of ten objects are shorter than {long:.0f} px, and a crop should hold them whole with room around"


def _batch(crop: int, images: int) -> int:
    """A power of two from 4 to 16: about the default's pixels per step, and not so many that an epoch has under 8 steps."""
    wanted = min(_PIXELS / crop**2, images / 8)
    return next((batch for batch in (16, 8) if batch <= wanted), 4)


def _max_detections(facts: Facts) -> Advice:
    wanted = _ROOM * facts.fullest
    limit = next((limit for limit in _LIMITS if limit >= wanted), _LIMITS[-1])
    return Advice("model.max_detections", limit, f"the fullest image has {facts.fullest} objects; a quarter more, rounded up")


def _schedule(facts: Facts, batch: int) -> Iterator[Advice]:
    images = facts.splits[facts.train.split]
    steps = max(1, images // batch)
    epochs = next((epochs for epochs in _EPOCHS if epochs * steps >= _STEPS), _EPOCHS[-1])
    total = epochs * steps
    yield Advice("train.epochs", epochs, f"{images} images are {steps} steps per epoch: {total} steps in all")
    yield Advice("train.warmup_steps", min(200, max(1, total // 10)), "at most a tenth of the steps")
    yield Advice("train.evaluate_every", max(1, epochs // 20), "about twenty measurements on val")


def _augment(facts: Facts, size: int) -> Iterator[Advice]:
    small = float(np.percentile(facts.short_shares, _SMALL)) * size
    low = 0.6 if small >= SMALLEST else 0.8
    yield Advice("augment.scale_min", low, f"small objects have {small:.1f} px and at this scale {small * low:.1f}")
    yield Advice("augment.scale_max", 1.5, "the default")
    sided = [name for name in facts.train.class_names if _SIDED.search(name)]
    if sided:
        for key in ("flip_horizontal", "flip_vertical", "transpose"):
            yield Advice(f"augment.{key}", 0.0, f"a class is called {sided[0]}: a mirrored picture would have a wrong label")
        return
    yield Advice("augment.flip_horizontal", 0.5, "no class name says left or right; 0 when a mirrored object is another class")
    above = facts.kind == "satellite"
    reason = (
        "read as satellite imagery, which has no upper side"
        if above
        else "are the pictures taken from above or through a microscope? Then 0.5: they have no upper side. Photographs have one"
    )
    for key in ("flip_vertical", "transpose"):
        yield Advice(f"augment.{key}", 0.5 if above else 0.0, reason)


def _up(value: float, multiple: int) -> int:
    """The next multiple; a thousandth of one, which may come of rounding, counts for nothing."""
    return max(1, math.ceil(value / multiple - 1e-3)) * multiple
