"""Which images a page shows, and that their pictures show what was planted. Sessions are stand-ins."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from apex_runtime.parity import worst
from apex_runtime.parity.cases import Case, synthetic_cases
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.panels import COMMON, MAX_SIDE, NOT_FINITE, ONLY_CANDIDATE, ONLY_REFERENCE
from apex_runtime.parity.run import compare_sessions
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.parity.worst import MOST, Sight, Worst, strain
from apex_runtime.routing.budget import parse_budget

RULES = Rules(load_profile("quality"), "fp32")
GREY = 100


def images(info, values) -> list[Case]:
    """Grey pictures; the value of the first pixel tells a fault which one it is looking at."""
    found = []
    for value in values:
        pixels = np.full((info.input.height, info.input.width, 3), GREY, np.uint8)
        pixels[0, 0] = value
        found.append(Case(f"{value}.png", pixels, np.ones(info.tiles.count, bool), False))
    return found


class OfImage:
    """A session of ``fake`` whose fault is told the value of the first pixel."""

    def __init__(self, fake, fault, shift=None) -> None:
        self.inner, self.fault, self.info, self.name = fake(utility_shift=shift), fault, fake().info, "fake"

    def run(self, pixels, tiles, bonus):
        outputs = self.inner.run(pixels, tiles, bonus)
        self.fault(int(pixels[0, 0, 0, 0]), outputs)
        return outputs


def look(fake, fault, values=(1, 2, 3), budgets=("2",), shift=None, more=()) -> list[Sight]:
    reference = fake()
    room = Worst(reference.info, RULES)
    candidate = OfImage(fake, fault, shift)
    cases = [*images(reference.info, values), *more]
    compare_sessions(reference, candidate, cases, [parse_budget(text) for text in budgets], RULES, watcher=room.watch)
    return room.sights


def picture(sight: Sight, panel: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(sight.panels[panel].jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def near(pixel, colour, within=24) -> bool:
    return bool(np.abs(pixel.astype(int) - np.array(colour)).max() <= within)


def test_failing_images_come_first_then_other_tiles_then_the_larger_difference(fake) -> None:
    def fault(value, outputs) -> None:
        outputs["mask_prototypes"] += {1: 0.0, 2: 1e-3, 3: 5e-3, 4: 1.0}[value]

    sights = look(fake, fault, (1, 2, 3, 4))
    assert [sight.name for sight in sights] == ["4.png", "3.png", "2.png", "1.png"]
    assert [sight.badness.fails for sight in sights] == [True, False, False, False]
    assert sights[0].reasons and sights[0].reasons[0].startswith("mask_prototypes: ") and not sights[1].reasons


def test_another_tile_is_worse_than_a_larger_difference(fake) -> None:
    def fault(value, outputs) -> None:
        outputs["mask_prototypes"] += 1.0 if value == 1 else 0.5
        if value == 2:
            outputs["tile_ids"] = (outputs["tile_ids"] + 1) % 8

    assert [sight.name for sight in look(fake, fault, (1, 2))] == ["2.png", "1.png"]


def test_at_most_so_many_each_once_and_no_synthetic_one(fake, monkeypatch) -> None:
    drawn = []
    plain = worst.draw_panels
    monkeypatch.setattr(worst, "draw_panels", lambda seen, *rest: drawn.append(seen.case.name) or plain(seen, *rest))

    def fault(value, outputs) -> None:
        outputs["scores"] -= np.float32(1e-7 * value)

    values = range(20, 0, -1)  # from bad to good: what does not enter the list is not drawn
    sights = look(fake, fault, values, ("2", "4"), more=synthetic_cases(fake().info))
    assert len(sights) == MOST and len({sight.name for sight in sights}) == MOST
    assert {sight.name for sight in sights} == {f"{value}.png" for value in range(20, 14, -1)}
    assert len(drawn) < 3 * MOST and not any("synthetic" in name for name in drawn)


def test_an_image_is_shown_at_its_worst_budget(fake) -> None:
    def fault(value, outputs) -> None:
        if outputs["tile_ids"].shape[1] == 4:
            outputs["boxes"][0, 0] = np.nan

    (sight,) = look(fake, fault, (1,), ("2", "4", "8"))
    assert sight.asked == "4" and sight.badness.fails


@pytest.mark.parametrize(
    ("stats", "output", "expected"),
    [
        (Stats(count=4, max_abs=2e-4, signal=4.0), "scores", 2.0),  # 1e-4 absolute
        (Stats(count=4, max_abs=3e-4, signal=4.0), "mask_prototypes", 1.0),  # 1e-4 + 2e-4 of a typical value of 1
        (Stats(count=4), "scores", 0.0),
        (Stats(), "scores", np.inf),
        (Stats(count=4, non_finite=1), "scores", np.inf),
        (Stats(count=4, problems=["shape"]), "scores", np.inf),
    ],
)
def test_strain_is_the_part_of_the_tolerance(stats, output, expected) -> None:
    assert strain(stats, RULES, output) == pytest.approx(expected)


def test_strain_in_eight_bits_is_noise_over_allowed_noise() -> None:
    rules = Rules(load_profile("quality"), "int8")  # prototypes: 13 dB at least
    assert strain(Stats(count=9, signal=100.0, noise=100 / 10**1.3), rules, "mask_prototypes") == pytest.approx(1.0)
    assert strain(Stats(count=9, signal=100.0, noise=100 / 10**3.3), rules, "mask_prototypes") == pytest.approx(0.1)
    assert strain(Stats(count=9, signal=100.0), rules, "mask_prototypes") == 0


def test_the_tiles_of_both_sides_bear_their_colours(fake) -> None:
    shift = np.zeros(8, np.float32)
    shift[0] = 4.0  # the reference, on grey, chooses the last two; the candidate the first and the last
    (sight,) = look(fake, lambda value, outputs: None, (1,), ("2",), shift=shift)
    tiles = picture(sight, 3)
    middle = {number: tiles[(number // 4) * 32 + 16, (number % 4) * 32 + 16] for number in range(8)}
    assert sight.badness.other_tiles == 0.5
    tint = {colour: np.array(colour) * 0.25 + GREY * 0.75 for colour in (COMMON, ONLY_REFERENCE, ONLY_CANDIDATE)}
    assert near(middle[7], tint[COMMON]) and near(middle[6], tint[ONLY_REFERENCE]) and near(middle[0], tint[ONLY_CANDIDATE])
    assert near(middle[3], [GREY * 0.45] * 3)
    edge = tiles[0:2, 4:28].mean((0, 1))
    assert edge[0] > edge[2], "a red line around what only the candidate chose"


def test_the_map_is_brightest_where_the_difference_is(fake) -> None:
    def fault(value, outputs) -> None:
        outputs["mask_prototypes"][0, 1, 3, 20] += 0.5  # cells of 4 pixels
        outputs["mask_prototypes"][0, 2, 10, 2] = np.nan

    (sight,) = look(fake, fault, (1,))
    shown = picture(sight, 2)
    bright = shown.astype(int).sum(2)
    assert bright[13:15, 81:83].mean() > 3 * np.median(bright) + 200
    assert near(shown[42, 10], NOT_FINITE, 60)
    assert "brightest: 5.00e-01" in sight.panels[2].caption and "1 cells not finite" in sight.panels[2].caption


def test_both_drawings_are_the_products_own(fake) -> None:
    def fault(value, outputs) -> None:
        outputs["scores"] -= 1  # nothing left to draw

    (sight,) = look(fake, fault, (1,))
    reference, candidate = picture(sight, 0), picture(sight, 1)
    colourful = [int(np.count_nonzero(np.ptp(one.astype(int), axis=2) > 90)) for one in (reference, candidate)]
    assert colourful[0] > 10 * max(colourful[1], 1)
    assert max(reference.shape) <= MAX_SIDE


def test_an_object_has_one_colour_in_both_drawings(fake) -> None:
    """The candidate lost its best detection, so that all others have another rank."""

    def fault(value, outputs) -> None:
        for name in ("boxes", "scores", "labels", "mask_coefficients", "candidate_ids"):
            outputs[name] = np.roll(outputs[name], -1, axis=1)
        outputs["scores"][0, -1] = 0

    (sight,) = look(fake, fault, (1,))
    first, second = (picture(sight, at).astype(int) for at in (0, 1))
    same = np.abs(first - second).max(2) < 40
    assert 0.9 < same.mean() < 1, "all but what was lost"


@pytest.mark.parametrize(
    "fault",
    [
        lambda value, outputs: outputs.pop("mask_prototypes"),
        lambda value, outputs: outputs.pop("tile_ids"),
        lambda value, outputs: outputs.update(mask_coefficients=outputs["mask_coefficients"][:, :, :1]),
        lambda value, outputs: outputs.update(tile_levels=outputs["tile_levels"] + 7),
        lambda value, outputs: outputs.update(tile_ids=outputs["tile_ids"] + 1000),
        lambda value, outputs: outputs.update(labels=outputs["labels"] + 9),
        lambda value, outputs: outputs["boxes"].fill(np.inf),
    ],
)
def test_what_cannot_be_drawn_is_still_shown_as_failing(fake, fault) -> None:
    (sight,) = look(fake, fault, (1,))
    assert sight.badness.fails and len(sight.panels) == 4 and all(picture(sight, at).size for at in range(4))
