"""The values that ``init`` proposes: what they promise about the data holds, and every configuration is a valid one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data.dataset import DatasetType
from apex_train.config import FitConfig
from apex_train.preflight.advice import advise, as_sections
from apex_train.preflight.facts import Facts
from apex_train.preflight.recipe import as_yaml
from apex_train.preflight.statistics import SplitStatistics


def facts(
    short: list[float],
    long: list[float] | None = None,
    *,
    images: int = 100,
    side: float = 640,
    fullest: int = 10,
    kind: DatasetType = "coco",
    names: tuple[str, ...] = ("thing",),
) -> Facts:
    train = SplitStatistics("train", names)
    train.classes.update([0] * len(short))
    train.per_image = [1] * images
    longer = np.array(long if long is not None else short, np.float32)
    sides = np.full(images, side, np.float32)
    shares = np.array(short, np.float32)
    return Facts(Path("set"), kind, train, {"train": images}, fullest, shares, np.maximum(shares, longer), sides, 0)


def values(given_facts: Facts) -> dict[str, object]:
    return {item.key: item.value for item in advise(given_facts)}


shares = st.lists(st.floats(2**-13, 1, width=32), min_size=1, max_size=30)


@given(shares, shares, st.integers(1, 200_000), st.floats(8, 20_000), st.integers(1, 9000))
def test_any_data_gives_a_valid_configuration_that_reads_back(
    short: list[float], long: list[float], images: int, side: float, fullest: int
) -> None:
    long = [max(long[n % len(long)], value) for n, value in enumerate(short)]
    measured = facts(short, long, images=images, side=side, fullest=fullest)
    advice = advise(measured)
    sections = as_sections(advice)
    config = FitConfig.model_validate(sections)
    assert config.train.crop <= config.train.size
    assert config.model.max_detections >= min(fullest, 3840)
    assert config.train.evaluate_every <= config.train.epochs
    assert yaml.safe_load(as_yaml(measured, advice)) == sections
    assert all(item.reason for item in advice)


@given(st.floats(0.01, 0.2))
def test_nine_of_ten_objects_keep_eight_pixels(share: float) -> None:
    size = values(facts([share] * 9 + [1.0], side=4000))["train.size"]
    assert isinstance(size, int) and size % 64 == 0
    assert size * share >= 8 * 0.999  # a thousandth of a multiple is rounded away
    assert size == 512 or (size - 64) * share < 8.001


def test_small_images_are_not_enlarged_more_than_twice() -> None:
    advice = {item.key: item for item in advise(facts([0.005], side=300))}
    assert advice["train.size"].value == 640
    assert "would need 1600" in advice["train.size"].reason


@pytest.mark.parametrize(("side", "size"), [(100, 256), (320, 320), (432, 448), (640, 512), (4000, 512)])
def test_large_objects_leave_the_images_as_they_are_up_to_the_default(side: float, size: int) -> None:
    assert values(facts([0.2], side=side))["train.size"] == size


def test_large_objects_get_large_crops_and_fewer_of_them() -> None:
    small, large = (values(facts([0.0125], [long], images=5000)) for long in (0.03, 0.39))
    assert (small["train.size"], small["train.crop"], small["train.batch"]) == (640, 256, 16)
    assert (large["train.size"], large["train.crop"], large["train.batch"]) == (640, 384, 4)
    assert values(facts([0.0125], [0.03], images=100))["train.batch"] == 8  # else an epoch would be 6 steps


def test_tiles_grow_with_the_objects_and_with_the_image() -> None:
    assert values(facts([0.05]))["model.tile"] == 64
    for grown in (facts([0.05], [0.9]), facts([0.0055], side=4000)):
        found = values(grown)
        assert (found["model.tile"], found["model.halo"]) == (128, 16)


@pytest.mark.parametrize(("fullest", "limit"), [(1, 100), (80, 100), (81, 300), (375, 500), (401, 1000), (9000, 3840)])
def test_there_is_room_for_the_fullest_image(fullest: int, limit: int) -> None:
    assert values(facts([0.1], fullest=fullest))["model.max_detections"] == limit


@given(st.integers(1, 200_000))
def test_few_images_are_shown_more_often(images: int) -> None:
    found = values(facts([0.1], images=images))
    more = values(facts([0.1], images=images * 2))
    epochs, batch, warmup = found["train.epochs"], found["train.batch"], found["train.warmup_steps"]
    assert isinstance(epochs, int) and isinstance(batch, int) and isinstance(warmup, int)
    steps = epochs * max(1, images // batch)
    assert steps >= 3000 or epochs == 300
    assert warmup <= max(1, steps / 10)
    assert isinstance(more["train.epochs"], int)
    assert more["train.epochs"] <= epochs or more["train.batch"] != batch


@pytest.mark.parametrize(
    ("kind", "names", "flips"),
    [
        ("satellite", ("roof",), (0.5, 0.5, 0.5)),
        ("coco", ("person", "leftover"), (0.5, 0.0, 0.0)),
        ("yolo", ("hand_left", "hand_right"), (0.0, 0.0, 0.0)),
        ("satellite", ("Left turn",), (0.0, 0.0, 0.0)),
    ],
)
def test_turns_are_for_what_has_no_upper_side(kind: DatasetType, names: tuple[str, ...], flips: tuple[float, ...]) -> None:
    found = values(facts([0.1], kind=kind, names=names))
    assert tuple(found[f"augment.{key}"] for key in ("flip_horizontal", "flip_vertical", "transpose")) == flips


def test_what_cannot_be_seen_small_is_not_made_smaller() -> None:
    assert values(facts([0.1]))["augment.scale_min"] == 0.6
    assert values(facts([0.001], side=4000))["augment.scale_min"] == 0.8


def test_class_names_cannot_leave_the_comment() -> None:
    measured = facts([0.1], names=("a\nmodel: {size: base}\u2028train: {}", "b" * 500, "never"))
    advice = advise(measured)
    text = as_yaml(measured, advice)
    assert yaml.safe_load(text) == as_sections(advice)
    assert "Rare (fewer than 20 objects): a?model" in text and "Without an object" in text
