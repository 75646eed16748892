"""Faults planted one by one into one side: each must be found and named by the right level; harmless differences must pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from apex_runtime.errors import ModelError
from apex_runtime.model_info import OUTPUT_NAMES
from apex_runtime.parity.cases import Case, synthetic_cases
from apex_runtime.parity.decision import is_explained
from apex_runtime.parity.run import BudgetResult, compare_sessions, info_differences
from apex_runtime.parity.tolerance import PROFILE_NAMES, Rules, load_profile
from apex_runtime.routing.budget import parse_budget

RULES = Rules(load_profile("quality"), "fp32")
BUDGETS = tuple(parse_budget(text) for text in ("0.25", "0.5", "1.0"))


def cases(info) -> list[Case]:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (info.input.height, info.input.width, 3), dtype=np.uint8)
    content = np.array([True] * 3 + [False] + [True] * 3 + [False])
    return [Case("real", pixels, content, False), *synthetic_cases(info)]


def compare(reference, candidate) -> list[BudgetResult]:
    return compare_sessions(reference, candidate, cases(reference.info), BUDGETS, RULES)


def reasons(results: list[BudgetResult]) -> str:
    return "\n".join(why for result in results for why in result.reasons(RULES))


def test_a_model_equals_itself(fake: type) -> None:
    results = compare(fake(), fake())
    assert reasons(results) == ""
    assert [result.asked for result in results] == ["0.25", "0.5", "1.0"]
    assert results[0].tiles == [1, 1, 2, 2, 2], "a share is of content tiles: 6 in the image, 4 in the noise, 8 in the others"
    for result in results:
        assert set(result.outputs) == set(OUTPUT_NAMES)
        assert all(stats.count > 0 and stats.max_abs == 0 for stats in result.outputs.values())
        assert result.decisions.equal_orders == result.decisions.images == 5


def test_the_forced_run_forces_the_references_tiles_on_both_sides(fake: type) -> None:
    shift = np.linspace(3, -3, 8).astype(np.float32)
    reference, candidate = fake(), fake(utility_shift=shift)
    results = compare(reference, candidate)
    tile_stats = [result.outputs["tile_ids"] for result in results]
    assert all(stats.mismatches == 0 for stats in tile_stats), "other utilities, yet the forced tiles are the reference's"
    assert "decision: other tiles" in reasons(results)
    assert "utilities:" in reasons(results)
    for tiles, bonus in candidate.calls[1::2]:
        assert np.count_nonzero(bonus == 24) == tiles
        assert np.count_nonzero(bonus == -24) == bonus.size - tiles


def test_padding_tiles_are_forbidden_in_the_free_run(fake: type) -> None:
    reference = fake()
    compare(reference, fake())
    first_free = reference.calls[0][1]
    assert first_free[0].tolist() == [0, 0, 0, -24, 0, 0, 0, -24]


def replace(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    def fault(outputs: dict) -> None:
        outputs[name] = edit(outputs[name].copy())

    return fault


def put(value: float, at: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array.flat[at] = value
        return array

    return edit


FLOATS = ("boxes", "scores", "mask_coefficients", "mask_prototypes", "utilities")


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite(fake: type, name: str, value: float) -> None:
    assert f"{name}: 5 NaN or Inf values" in reasons(compare(fake(), fake(replace(name, put(value)))))


@pytest.mark.parametrize("name", FLOATS)
def test_a_value_that_is_not_finite_on_both_sides(fake: type, name: str) -> None:
    fault = replace(name, put(np.nan, at=1))
    assert f"{name}: " in reasons(compare(fake(fault), fake(fault)))


@pytest.mark.parametrize("name", OUTPUT_NAMES)
def test_a_missing_output(fake: type, name: str) -> None:
    assert f"{name}: missing on the candidate" in reasons(compare(fake(), fake(lambda outputs: outputs.pop(name))))


@pytest.mark.parametrize("name", OUTPUT_NAMES)
def test_another_dtype(fake: type, name: str) -> None:
    def narrower(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16 if array.dtype == np.float32 else np.int32)

    assert f"{name}: dtype" in reasons(compare(fake(), fake(replace(name, narrower))))


@pytest.mark.parametrize("name", OUTPUT_NAMES)
def test_another_shape(fake: type, name: str) -> None:
    assert f"{name}: shape" in reasons(compare(fake(), fake(replace(name, lambda array: array[..., :-1]))))


@pytest.mark.parametrize("rank", [lambda array: array[0], lambda array: array[0, 0], lambda array: array[..., None]])
def test_tiles_of_another_rank(fake: type, rank: Callable[[np.ndarray], np.ndarray]) -> None:
    fault = replace("tile_ids", rank)
    for reference, candidate in ((fake(), fake(fault)), (fake(fault), fake())):
        assert "tile_ids: shape" in reasons(compare(reference, candidate))


def test_a_tile_outside_the_grid(fake: type) -> None:
    def beyond(outputs: dict) -> None:
        outputs["tile_ids"] = outputs["tile_ids"] + 1000

    assert "decision: other tiles on 5 of 5 images" in reasons(compare(fake(), fake(beyond)))
    with pytest.raises(ModelError, match=r"fake chose tile 10\d\d, and the model has the tiles 0 to 7"):
        compare(fake(beyond), fake())


@pytest.mark.parametrize(
    ("name", "harmless", "fault"),
    [
        ("boxes", 0.04, 0.06),
        ("scores", 0.9e-4, 1.2e-4),
        ("mask_coefficients", 1e-5, 1e-3),
        ("mask_prototypes", 1e-5, 0.5),
        ("utilities", 1e-5, 1e-2),
    ],
)
def test_a_shift_below_the_tolerance_passes_and_one_above_fails(fake: type, name: str, harmless: float, fault: float) -> None:
    def shifted(by: float) -> list[BudgetResult]:
        return compare(fake(), fake(replace(name, lambda array: array + np.float32(by))))

    assert reasons(shifted(harmless)) == ""
    assert f"{name}: " in reasons(shifted(fault))


@pytest.mark.parametrize(("name", "value"), [("labels", 1), ("tile_levels", 1), ("candidate_ids", 5000)])
def test_a_wrong_integer(fake: type, name: str, value: int) -> None:
    assert f"{name}: " in reasons(compare(fake(), fake(replace(name, put(value)))))


def permute(outputs: dict) -> None:
    order = np.random.default_rng(0).permutation(outputs["scores"].shape[1])
    for name in ("boxes", "scores", "labels", "mask_coefficients", "candidate_ids"):
        outputs[name] = outputs[name][:, order]


def test_permuted_detections_pass(fake: type) -> None:
    assert reasons(compare(fake(), fake(permute))) == ""


def test_boxes_permuted_alone_fail(fake: type) -> None:
    assert "boxes: " in reasons(compare(fake(), fake(replace("boxes", lambda array: array[:, ::-1]))))


def last_swapped(score_step: float) -> Callable[[dict], None]:
    """Another candidate in the last place, with the score that was there plus a step."""

    def fault(outputs: dict) -> None:
        outputs["candidate_ids"][0, -1] = 5000
        outputs["scores"][0, -1] += np.float32(score_step)

    return fault


def test_a_swap_at_the_boundary_of_the_list_passes(fake: type) -> None:
    results = compare(fake(), fake(last_swapped(5e-5)))
    assert reasons(results) == ""
    assert [result.outputs["candidate_ids"].exempt for result in results] == [10] * 3, "one on each side, five images"


def test_a_swap_beyond_the_tolerance_of_the_boundary_fails(fake: type) -> None:
    found = reasons(compare(fake(), fake(last_swapped(5e-3))))
    assert "candidate_ids: 5 of 65 values on one side only" in found


def test_the_same_tiles_in_another_order(fake: type) -> None:
    found = reasons(compare(fake(), fake(replace("tile_ids", lambda array: array[:, ::-1]))))
    assert "decision: the same tiles in another order" in found
    assert "tile_ids: " in found


def test_a_tile_swapped_in_by_the_candidate(fake: type) -> None:
    def fault(outputs: dict) -> None:
        ids = outputs["tile_ids"][0]
        others = np.setdiff1d(np.arange(8), ids)
        if len(others):
            worst = others[np.argmin(outputs["utilities"][0, others])]
            ids[np.argmax(outputs["utilities"][0, ids])] = worst

    found = reasons(compare(fake(), fake(fault)))
    assert "decision: other tiles on 5 of 5 images" in found
    assert "decision: mean overlap" in found
    assert "tile_ids: " in found


def test_a_reference_that_ignores_the_forcing_is_named(fake: type) -> None:
    class Deaf(fake):  # type: ignore[misc, valid-type]
        def run(self, images, tiles, tile_bonus):
            return super().run(images, tiles, -tile_bonus if np.any(tile_bonus == 24) else tile_bonus)

    assert "the reference does not run the tiles that tile_bonus forces" in reasons(compare(Deaf(), fake()))


def test_an_empty_comparison_fails(fake: type) -> None:
    results = compare_sessions(fake(), fake(), [], BUDGETS, RULES)
    assert "nothing was compared" in reasons(results)
    assert "decision: nothing was compared" in reasons(results)


def test_lists_without_a_common_candidate_fail_even_when_the_boundary_excuses_them(fake: type) -> None:
    def strangers(outputs: dict) -> None:
        outputs["candidate_ids"] += 1000
        outputs["scores"][:] = outputs["scores"].min()

    def flat(outputs: dict) -> None:
        outputs["scores"][:] = outputs["scores"].min()

    assert "boxes: nothing was compared" in reasons(compare(fake(flat), fake(strangers)))


def test_two_tiles_within_one_step_may_change_places() -> None:
    totals = np.array([1.0, 1.0 - 1 / 256, 0.5, -3.0])
    assert is_explained({0, 2}, {0, 2}, totals, 0.0)
    assert is_explained({0}, {1}, totals, 1e-6)
    assert not is_explained({0}, {2}, totals, 1e-6)
    assert is_explained({0}, {2}, totals, 0.25)
    assert not is_explained({0}, {9}, totals, 1.0), "an id outside the grid"
    assert not is_explained({0}, {1}, np.array([np.nan, 1.0]), 1.0)


def test_models_of_another_size_are_not_compared(fake: type) -> None:
    info = fake().info
    other = info.model_copy(update={"max_detections": 13})
    assert info_differences(info, info) == []
    assert [line.split(":")[0] for line in info_differences(info, other)] == ["max_detections"]


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_the_hard_numbers_hold_in_every_profile(name: str) -> None:
    profile = load_profile(name)
    rules = Rules(profile, "fp32")
    assert (profile.name, profile.version) == (name, 2)
    assert (rules.tolerance("scores").atol, rules.tolerance("scores").rtol) == (1e-4, 0)
    assert (rules.tolerance("boxes").atol, rules.tolerance("boxes").rtol) == (0.05, 0)
    assert rules.tolerance("utilities") == profile.tolerances["fp32"]
    assert set(profile.tolerances) == {"fp32", "fp16", "bf16"}


LEVELS = (slice(0, 4), slice(4, 20))


@pytest.mark.parametrize(
    ("candidate", "explained"),
    [
        ({0, 4, 5}, True),
        ({0, 4, 6}, True),  # 5 and 6 are within a step
        ({0, 4, 7}, False),
        ({1, 8, 9}, True),  # 0 and 1 are within a step, and then the children are others
        ({2, 12, 13}, False),
        ({0, 1, 4}, False),  # one more above, one fewer below
    ],
)
def test_the_first_level_that_differs_decides(candidate: set[int], explained: bool) -> None:
    totals_N = np.zeros(20)
    totals_N[[0, 1, 4, 5, 6, 7]] = 5, 5 - 1 / 256, 3, 2, 2 - 1 / 256, 1
    assert is_explained({0, 4, 5}, candidate, totals_N, 0.0, LEVELS) is explained
