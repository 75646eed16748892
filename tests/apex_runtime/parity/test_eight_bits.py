"""Candidates in eight bits: noise decides, not single values; what must fail still fails; synthetic images decide little."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from apex_runtime.parity.cases import Case, synthetic_cases
from apex_runtime.parity.run import BudgetResult, compare_sessions
from apex_runtime.parity.tolerance import PROFILE_NAMES, EightBit, LeastSqnr, Rules, load_profile
from apex_runtime.routing.budget import parse_budget

BUDGETS = tuple(parse_budget(text) for text in ("0.25", "1.0"))
REAL = np.random.default_rng(1).integers(0, 256, (64, 128, 3), dtype=np.uint8)
FLOATS = tuple(LeastSqnr.model_fields)
EVERY_RULE = [Rules(load_profile(name), precision) for name in PROFILE_NAMES for precision in get_args(EightBit)]
RULES = EVERY_RULE[0]
Fault = Callable[[dict], None]


def found(reference: object, candidate: object, rules: Rules = RULES) -> str:
    content = np.ones(reference.info.tiles.count, bool)
    cases = [Case("real", REAL, content, False), *synthetic_cases(reference.info)]
    results: list[BudgetResult] = compare_sessions(reference, candidate, cases, BUDGETS, rules)
    reasons = (why for result in results for why in result.reasons(rules))
    return "\n".join(why for why in reasons if not why.startswith("task: "))  # that level has tests of its own


def noise(name: str, decibels: float) -> Fault:
    """White noise of exactly so many dB below the power of one output."""

    def fault(outputs: dict) -> None:
        values = outputs[name].astype(np.float64)
        error = np.random.default_rng(0).standard_normal(values.shape)
        error *= np.linalg.norm(values) / np.linalg.norm(error) / 10 ** (decibels / 20)
        outputs[name] = (values + error).astype(np.float32)

    return fault


@pytest.mark.parametrize("rules", EVERY_RULE, ids=lambda rules: f"{rules.profile.name}-{rules.precision}")
@pytest.mark.parametrize("name", FLOATS)
def test_noise_above_the_least_ratio_passes_and_below_it_fails(fake: type, rules: Rules, name: str) -> None:
    least = rules.gate(name).min_sqnr_db
    assert least is not None
    named = f"{name}: signal to noise {least - 1:.1f} dB, below {least:g}"
    assert named in found(fake(), fake(noise(name, least - 1)), rules)
    above = found(fake(), fake(noise(name, least + 1)), rules)
    assert f"{name}: " not in above


def test_every_output_may_be_noisy_at_once(fake: type) -> None:
    def fault(outputs: dict) -> None:
        for name in FLOATS:
            noise(name, RULES.gate(name).min_sqnr_db + 2)(outputs)

    assert found(fake(), fake(fault)) == ""
    fp32 = Rules(RULES.profile, "fp32")
    assert all(f"{name}: " in found(fake(), fake(fault), fp32) for name in FLOATS), "or the test above shows nothing"


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("only_synthetic", [False, True])
def test_a_value_that_is_not_finite_fails_on_every_image(fake: type, name: str, value: float, only_synthetic: bool) -> None:
    def fault(outputs: dict) -> None:
        outputs[name].flat[0] = value

    images = 4 if only_synthetic else 5
    assert f"{name}: {images} NaN or Inf values" in found(fake(), on(fake, fault, real=not only_synthetic))


def on(fake: type, fault: Fault, real: bool) -> object:
    """A session with the fault on synthetic images, and on the real one where ``real``."""

    class Session(fake):  # type: ignore[misc, valid-type]
        def run(self, images, tiles, tile_bonus):
            outputs = super().run(images, tiles, tile_bonus)
            if real or not np.array_equal(images[0], REAL):
                fault(outputs)
            return outputs

    return Session()


@pytest.mark.parametrize("name", ["boxes", "scores", "mask_coefficients", "mask_prototypes", "labels", "candidate_ids"])
def test_numbers_on_synthetic_images_decide_nothing(fake: type, name: str) -> None:
    def fault(outputs: dict) -> None:
        outputs[name] += outputs[name].dtype.type(70)

    assert found(fake(), on(fake, fault, real=False)) == ""
    assert found(fake(), on(fake, fault, real=False), Rules(RULES.profile, "fp16")) != "", "where tolerances judge, they do"
    assert f"{name}: " in found(fake(), on(fake, fault, real=True))


@pytest.mark.parametrize("name", ["tile_ids", "tile_levels"])
def test_forced_tiles_are_the_same_on_every_image(fake: type, name: str) -> None:
    def fault(outputs: dict) -> None:
        outputs[name][0, 0] += 1

    assert f"{name}: " in found(fake(), on(fake, fault, real=False))


def test_a_list_with_one_candidate_twice_fails_on_a_synthetic_image(fake: type) -> None:
    def fault(outputs: dict) -> None:
        outputs["candidate_ids"][0, 1] = outputs["candidate_ids"][0, 0]

    assert "candidate_ids: the candidate lists a candidate twice" in found(fake(), on(fake, fault, real=False))


@pytest.mark.parametrize("rules", EVERY_RULE[:2], ids=lambda rules: rules.precision)
def test_the_end_of_a_list_has_its_own_slack(fake: type, rules: Rules) -> None:
    def last_swapped(by: float) -> Fault:
        def fault(outputs: dict) -> None:
            outputs["candidate_ids"][0, -1] = 5000
            outputs["scores"][0, -1] += np.float32(by)

        return fault

    slack = rules.slack("scores").atol
    assert found(fake(), fake(last_swapped(slack * 0.9)), rules) == ""
    assert "candidate_ids: " in found(fake(), fake(last_swapped(slack * 1.2)), rules)


def test_the_profile_names_the_share_of_labels(fake: type) -> None:
    def fault(outputs: dict) -> None:
        outputs["labels"][0, 0] = 3

    assert "labels: 1 of 12 values" in found(fake(), fake(fault))
    lenient = RULES.profile.model_copy(
        update={"eight_bits": {"int8": RULES.profile.eight_bits["int8"].model_copy(update={"label_limit": 0.1})}}
    )
    assert found(fake(), fake(fault), Rules(lenient, "int8")) == ""
    assert Rules(lenient, "fp16").gate("labels").mismatch_limit == 0.0


def test_tiles_that_lie_too_far_apart_may_not_change_places(fake: type) -> None:
    shift = np.linspace(3, -3, 8).astype(np.float32)
    reasons = found(fake(), fake(utility_shift=shift))
    assert "decision: other tiles on" in reasons and "decision: mean overlap" in reasons and "utilities: signal" in reasons


def test_on_synthetic_images_rounding_may_choose_any_tiles(fake: type) -> None:
    """Utilities are numbers as well: a good fp8 engine had them 0.11 apart on noise, and tiles that changed places 0.07."""

    class Session(fake):  # type: ignore[misc, valid-type]
        def run(self, images, tiles, tile_bonus):
            self.shift = np.linspace(3, -3, 8).astype(np.float32) * (not np.array_equal(images[0], REAL))
            outputs = super().run(images, tiles, tile_bonus)
            if self.beyond and tile_bonus.max() <= 0:
                outputs["tile_ids"] = outputs["tile_ids"] + 8
            return outputs

        beyond = False

    assert found(fake(), Session()) == ""
    assert "decision: other tiles on 4 of 5" in found(fake(), Session(), Rules(RULES.profile, "fp16"))
    outside = Session()
    outside.beyond = True
    assert "decision: other tiles on 5 of 5" in found(fake(), outside), "tiles that there are, all the same"


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_a_laxer_profile_asks_for_less_and_fp8_is_held_to_more_than_int8(name: str) -> None:
    """FP8 keeps more of small numbers than int8 does; measured, it is the quieter of the two on every output."""
    profile, strictest = load_profile(name), load_profile("quality")
    for output in FLOATS:
        int8, fp8 = (getattr(profile.eight_bits[precision].min_sqnr_db, output) for precision in ("int8", "fp8"))
        assert 0 < int8 <= fp8
        assert fp8 <= getattr(strictest.eight_bits["fp8"].min_sqnr_db, output)
    assert Rules(profile, "int8").gate("utilities_1") == Rules(profile, "int8").gate("utilities")
    assert Rules(profile, "int8").gate("tile_ids").min_sqnr_db is None
