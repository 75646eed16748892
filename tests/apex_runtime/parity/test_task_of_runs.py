"""Faults that only the task level can see: they are there when a side is left alone, and gone when tiles are forced on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.cases import Case, synthetic_cases
from apex_runtime.parity.run import BudgetResult, compare_sessions
from apex_runtime.parity.task import both_sides
from apex_runtime.parity.tolerance import Precision, Rules, load_profile
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import parse_budget

BUDGETS = tuple(parse_budget(text) for text in ("0.5", "1.0"))
Fault = Callable[[dict], None]


def real(info: ModelInfo, seed: int = 1) -> Case:
    pixels = np.random.default_rng(seed).integers(0, 256, (info.input.height, info.input.width, 3), dtype=np.uint8)
    return Case(f"real {seed}", pixels, np.ones(info.tiles.count, bool), False)


def compare(reference, candidate, precision: Precision = "fp32", cases: list[Case] | None = None) -> list[BudgetResult]:
    given = [real(reference.info), *synthetic_cases(reference.info)] if cases is None else cases
    return compare_sessions(reference, candidate, given, BUDGETS, Rules(load_profile("quality"), precision))


def reasons(results: list[BudgetResult], precision: Precision = "fp32") -> list[str]:
    return [why for result in results for why in result.reasons(Rules(load_profile("quality"), precision))]


@pytest.fixture
def alone(fake: type) -> type:
    """A session with an edit more while no tiles are forced on it."""

    class Alone(fake):  # type: ignore[misc, valid-type]
        def __init__(self, fault: Fault | None, edit: Fault) -> None:
            super().__init__(fault)
            self.edit = edit

        def run(self, images, tiles, tile_bonus):
            outputs = super().run(images, tiles, tile_bonus)
            if not np.any(tile_bonus == 24):
                self.edit(outputs)
            return outputs

    return Alone


def wide(outputs: dict) -> None:
    """Boxes of 24 pixels, far apart, and masks of half of them: of the fake model's own objects many overlap."""
    place = np.arange(12)
    corner = np.stack([place % 4 * 32, place // 4 * 20], 1).astype(np.float32)
    outputs["boxes"] = np.concatenate([corner, corner + np.float32((24, 18))], 1)[None].astype(np.float32)
    outputs["mask_coefficients"][:] = np.array([1, 0, 0], np.float32)
    planes = outputs["mask_prototypes"].shape
    outputs["mask_prototypes"][:] = np.where(np.arange(planes[-1]) % 8 < 3, 4.0, -4.0).astype(np.float32)


def shift_boxes(outputs: dict) -> None:
    outputs["boxes"] += np.float32(3)


def shift_scores(outputs: dict) -> None:
    outputs["scores"] -= np.float32(0.05)


def invert_masks(outputs: dict) -> None:
    outputs["mask_coefficients"] *= -1


def lose_the_best(outputs: dict) -> None:
    outputs["scores"][:, 0] = 0.01


def swap_masks(outputs: dict) -> None:
    outputs["mask_prototypes"] = outputs["mask_prototypes"][:, :, :, ::-1].copy()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (shift_boxes, "mean box IoU"),
        (shift_scores, "mean |score difference| 0.05"),
        (invert_masks, "mean mask IoU 0.0000"),
        (lose_the_best, "1 only in the reference"),
        (swap_masks, "mean mask IoU"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_a_fault_of_the_free_run_is_seen_by_the_task_level_alone(fake, alone, edit: Fault, words: str, precision) -> None:
    found = reasons(compare(fake(wide), alone(wide, edit), precision), precision)
    assert found and all(why.startswith("task: ") for why in found)
    assert any(words in why for why in found)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_the_same_model_passes(fake, precision) -> None:
    results = compare(fake(wide), fake(wide), precision)
    assert reasons(results, precision) == []
    assert all(result.task.matched > 5 and result.task.match_rate == 1 for result in results)


def rounded(outputs: dict) -> None:
    """As a float16 graph would answer."""
    wide(outputs)
    for name in ("boxes", "scores", "mask_coefficients", "mask_prototypes"):
        outputs[name] = outputs[name].astype(np.float16).astype(np.float32)


def noisy(outputs: dict) -> None:
    """As far off as int8 was measured to be: scores by 0.02, boxes so that they still overlap by 0.985."""
    wide(outputs)
    random = np.random.default_rng(0)
    outputs["scores"] = -np.sort(-(outputs["scores"] + random.normal(0, 0.02, outputs["scores"].shape))).astype(np.float32)
    outputs["boxes"] += random.normal(0, 0.1, outputs["boxes"].shape).astype(np.float32)


@pytest.mark.parametrize(
    ("form", "precision", "passes"), [(rounded, "fp16", True), (noisy, "int8", True), (noisy, "fp16", False)]
)
def test_what_a_precision_costs_passes_as_that_precision(fake, form: Fault, precision: Precision, passes: bool) -> None:
    found = [why for why in reasons(compare(fake(wide), fake(form), precision), precision) if why.startswith("task: ")]
    assert (found == []) is passes


def test_a_shift_of_scores_that_eight_bits_allow_as_noise(fake) -> None:
    """Forced or not: 0.05 is 20 dB below these scores, and 17 dB are asked for."""

    def fault(outputs: dict) -> None:
        wide(outputs)
        shift_scores(outputs)

    found = reasons(compare(fake(wide), fake(fault), "int8"), "int8")
    assert found and all(why.startswith("task: mean |score difference| 0.05") for why in found)


def test_synthetic_images_do_not_count(fake, alone) -> None:
    cases = synthetic_cases(fake().info)
    results = compare(fake(wide), alone(wide, shift_boxes), cases=[real(fake().info), *cases])
    assert [result.task.images for result in results] == [1, 1]
    only = compare(fake(wide), alone(wide, shift_boxes), cases=cases)
    assert reasons(only) == ["task: nothing was compared"] * 2


def test_an_image_on_which_rounding_swaps_tiles_is_set_aside(fake) -> None:
    """Constant pixels and utilities 1e-6 apart: which tiles are chosen is rounding; what they show differs much."""
    shift = -np.linspace(0, 1, 8, dtype=np.float32)
    tiny = np.zeros(8, np.float32)
    tiny[5] = 1 / 128 + 1e-6
    flat = real(fake().info)
    flat.pixels[:] = 90
    flat.pixels[:, 60:62] = 92
    cases = [flat, real(fake().info, 2)]
    for precision, aside in (("fp32", 1), ("int8", 0)):
        results = compare(fake(utility_shift=shift), fake(utility_shift=shift + tiny), precision, cases)
        assert results[0].decisions.equal_sets < 2, "other tiles on the flat image"
        assert results[0].task.set_aside == aside
        assert results[0].task.images == 2


def test_boxes_and_masks_are_those_of_the_image_that_was_given(fake) -> None:
    info = fake().info
    plain = real(info)
    large = Case("large", plain.pixels, plain.content_N, False, Letterbox(128, 128, 64, 128))  # 64 of 128 columns show it
    outputs = fake(wide).run(plain.pixels[None], 8, np.zeros((1, 8), np.float32))
    small_boxes, large_boxes = (both_sides(outputs, outputs, case, info, 0.3)[0].boxes for case in (plain, large))
    inside = (large_boxes < 128).all(1)
    assert 3 < inside.sum() < len(small_boxes)
    assert all(any(np.allclose(box, 2 * small) for small in small_boxes) for box in large_boxes[inside])
    small, big = (both_sides(outputs, outputs, case, info, 0.3)[1].masks[0] for case in (plain, large))
    assert big.area == pytest.approx(4 * small.area, rel=0.1)


@pytest.mark.parametrize("name", ["boxes", "scores", "mask_prototypes"])
def test_outputs_that_give_no_detections_are_named(fake, alone, name: str) -> None:
    def spoil(outputs: dict) -> None:
        outputs[name].flat[0] = np.nan

    found = reasons(compare(fake(), alone(None, spoil)))
    assert found == [
        f"task: no detections of the candidate: graph output '{name}': 1 of {fake_size(fake, name)} values are NaN or infinite. "
        "[non_finite_output]"
    ] * len(BUDGETS)
    assert any(
        "scores has shape" in why for why in reasons(compare(fake(), alone(None, lambda o: o.update(scores=o["scores"][:, 1:]))))
    )
    assert any(
        "task: no detections to compare: boxes is missing" in why
        for why in reasons(compare(fake(), alone(None, lambda o: o.pop("boxes"))))
    )


def fake_size(fake, name: str) -> int:
    info = fake().info
    return fake().run(real(info).pixels[None], 2, np.zeros((1, info.tiles.count), np.float32))[name].size


def test_an_unknown_class_is_no_detection(fake, alone) -> None:
    found = reasons(compare(fake(), alone(None, lambda outputs: outputs["labels"].__setitem__((0, 0), 1))))
    assert len(found) == 2 and "the model has 1 classes" in found[0]
