import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.routing.budget import Budget, parse_budget, parse_levels

INFO = cast(ModelInfo, SimpleNamespace(gflops=SimpleNamespace(base=2.0, per_tile=0.5)))


def tiles(text: Any, n_content: int = 40, n_total: int = 64) -> int:
    return parse_budget(text).tiles_for(n_content, n_total, INFO)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16", 16),
        (16, 16),
        ("1", 1),
        (1, 1),
        ("1.0", 40),
        (1.0, 40),
        ("100%", 40),
        ("25%", 10),
        (0.25, 10),
        (".25", 10),
        ("0.001", 1),
        (" 12.5 % ", 5),
        ("1e-1", 4),
        ("64", 40),
        ("999999", 40),
        ("2.5gflops", 1),
        ("4.49 GFLOPS", 4),
        ("4.5gflops", 5),
        ("1e4gflops", 40),
    ],
)
def test_grammar(text: Any, expected: int) -> None:
    assert tiles(text) == expected


NONSENSE_NUMBERS = [0, -1, 10**9, 1.5, float("nan"), float("inf"), True]
NONSENSE_TEXT = "0,-1,0.0,0%,-25%,1e9,1000001,abc,,nan,inf,1.5,150%,16 tiles,8 s,0ms,-1gflops,0x10,1;5,\u0663"


@pytest.mark.parametrize("text", [*NONSENSE_NUMBERS, *NONSENSE_TEXT.split(",")])
def test_nonsense_is_refused_with_examples(text: Any) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert "Examples: 16" in str(caught.value) and caught.value.code == ""


@pytest.mark.parametrize("text", ["8ms", " 8 MS", "8.0ms"])
def test_a_deadline_is_understood_and_means_nothing_without_a_table(text: str) -> None:
    assert parse_budget(text) == Budget(text.strip(), "ms", 8.0)
    with pytest.raises(UsageError, match="apex-rt bench") as caught:
        tiles(text)
    assert caught.value.code == "latency_table_missing"


def test_too_few_gflops_say_what_is_needed() -> None:
    with pytest.raises(UsageError, match=r"2\.5gflops"):
        tiles("2.4gflops")


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 100), st.integers(1, 3840))
@example(29, 100)  # 0.29 * 100 is 28.999999999999996 in binary
def test_percent_is_floor_of_exact_arithmetic(percent: int, n_content: int) -> None:
    assert tiles(f"{percent}%", n_content, 3840) == max(1, percent * n_content // 100)
    assert tiles(percent / 100, n_content, 3840) == max(1, math.floor(percent * n_content / 100 + 1e-9))


def test_a_budget_passes_through_and_keeps_what_was_asked() -> None:
    budget = parse_budget("25%")
    assert parse_budget(budget) is budget and budget == Budget("25%", "share", 0.25)


meant = st.one_of(
    st.integers(1, 100),
    st.floats(0.001, 1.0),
    st.integers(1, 100).map(lambda percent: f"{percent}%"),
    st.floats(2.5, 60.0).map(lambda cost: f"{cost:.6f}gflops"),
).map(parse_budget)
images = st.integers(1, 80).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total)))


@settings(deadline=None, max_examples=100)
@given(meant, meant, images)
def test_a_limited_budget_is_the_smaller_of_the_two(own: Budget, limit: Budget, image: tuple[int, int]) -> None:
    both = own.at_most(limit)
    found = both.tiles_for(*image, INFO)
    assert found == min(own.tiles_for(*image, INFO), limit.tiles_for(*image, INFO)) and found >= 1
    assert both.asked == own.asked and found == limit.at_most(own).tiles_for(*image, INFO)


@settings(deadline=None, max_examples=50)
@given(st.lists(meant, min_size=2, max_size=5), images)
def test_of_several_limits_the_smallest_counts(budgets: list[Budget], image: tuple[int, int]) -> None:
    limited = budgets[0]
    for limit in budgets[1:]:
        limited = limited.at_most(limit)
    assert limited.tiles_for(*image, INFO) == min(budget.tiles_for(*image, INFO) for budget in budgets)


@settings(deadline=None, max_examples=50)
@given(meant, images)
def test_a_limit_that_means_nothing_is_refused_as_a_budget_is(own: Budget, image: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"budget 2\.4gflops.*2\.5gflops"):
        own.at_most(parse_budget("2.4gflops")).tiles_for(*image, INFO)
    with pytest.raises(UsageError, match="budget 8ms") as caught:
        own.at_most(parse_budget("8ms")).tiles_for(*image, INFO)
    assert caught.value.code == "latency_table_missing"


def test_a_limit_drops_how_the_levels_were_shared_out_and_keeps_what_was_asked() -> None:
    asked = parse_levels("16,12")
    limited = asked.at_most(parse_budget("8"))
    assert (limited.asked, limited.levels, limited.tiles_for(40, 64, INFO)) == ("16,12", (), 8)
    assert asked.at_most(parse_budget("1.0")).tiles_for(40, 64, INFO) == 28


def test_a_deadline_is_noticed_also_where_it_is_the_limit() -> None:
    own, deadline = parse_budget("8"), parse_budget("8ms")
    assert deadline.has_deadline and not own.has_deadline and not own.at_most(own).has_deadline
    assert own.at_most(deadline).has_deadline and deadline.at_most(own).has_deadline
