"""Which figure decides, which epoch is the best, when patience is over."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import UsageError
from apex_train.engine.selection import Selection, choose_metric


class Without:
    """A data set seen without its masks, or without any object."""

    def __init__(self, inner, boxes: bool) -> None:
        self.inner, self.boxes, self.source = inner, boxes, Path("val.json")

    def __len__(self) -> int:
        return len(self.inner)

    def instances(self, index: int):
        found = self.inner.instances(index)
        count = len(found) if self.boxes else 0
        return type(found)(found.boxes[:count], found.labels[:count], [None] * count, found.crowd[:count], found.areas[:count])


def test_the_metric_follows_the_truth(nuclei_fixture: Path) -> None:
    val = open_dataset(nuclei_fixture, "val")
    boxes, nothing = Without(val, True), Without(val, False)
    assert choose_metric("auto", val) == "mAP_segm"
    assert choose_metric("auto", boxes) == "mAP_bbox"
    assert choose_metric("auto", nothing) == "val_loss"
    assert choose_metric("auto", None) is None
    assert choose_metric("mAP_bbox", val) == "mAP_bbox" and choose_metric("val_loss", val) == "val_loss"
    with pytest.raises(UsageError, match="mAP_segm"):
        choose_metric("mAP_segm", boxes)
    with pytest.raises(UsageError, match="no split val"):
        choose_metric("val_loss", None)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan), st.just(-1.0)), max_size=12), st.integers(1, 4))
def test_the_best_is_the_largest_usable_value_and_patience_counts_the_rest(values: list[float], patience: int) -> None:
    chosen = Selection("mAP_segm", patience)
    for epoch, value in enumerate(values, start=1):
        chosen.offer(value, epoch)
    usable = [value for value in values if math.isfinite(value) and value >= 0]
    assert chosen.best == (max(usable) if usable else None)
    if usable:
        first = values.index(max(usable)) + 1
        assert chosen.best_epoch == first and chosen.stale == len(values) - first
    else:
        assert chosen.stale == len(values)
    assert chosen.exhausted == (chosen.stale >= patience)


def test_a_loss_is_better_when_smaller_and_small_gains_do_not_renew_the_patience() -> None:
    chosen = Selection("val_loss", patience=2, min_delta=0.1)
    for epoch, value in enumerate([1.0, 0.95, 0.93], start=1):
        chosen.offer(value, epoch)
    assert chosen.best == 0.93 and chosen.best_epoch == 3 and chosen.exhausted
    assert not Selection("val_loss").exhausted  # no patience: never


def test_it_goes_on_as_it_was() -> None:
    chosen = Selection("mAP_segm", patience=2)
    chosen.offer(0.4, 1)
    chosen.offer(0.3, 2)
    again = Selection("mAP_segm", patience=2)
    again.restore(chosen.state())
    assert again == chosen
    again.offer(0.2, 3)
    assert again.exhausted
