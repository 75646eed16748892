"""The one rule: what is more than it may be fails, and so does everything that is not a figure."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.errors import UsageError
from apex_runtime.regression.rule import allowed, check_patterns, judge, parse_allowances

FIGURES = st.floats(1e-6, 1e12)
SHARES = st.floats(0, 2)
NO_FIGURES = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.sampled_from([math.nan, math.inf, -math.inf, 0, 0.0, -0.0, 10**400, [1.0], {"value": 1.0}]),
    st.floats(max_value=0, allow_nan=False),
    st.integers(max_value=0),
)


@given(FIGURES, FIGURES, SHARES, st.floats(0, 100))
def test_the_verdict_is_that_of_the_inequality(baseline: float, current: float, ratio: float, amount: float) -> None:
    """Against exact arithmetic; where rounding could decide, both answers are right."""
    limit = Fraction(baseline) * (1 + Fraction(ratio)) + Fraction(amount)
    if abs(Fraction(current) / limit - 1) > Fraction(1, 10**12):
        judged = judge(baseline, current, ratio, amount)
        assert (judged.verdict == "fail") == (Fraction(current) > limit)
        assert judged.limit == pytest.approx(float(limit)) and bool(judged.reason) == (judged.verdict == "fail")


@given(FIGURES, SHARES)
def test_the_limit_itself_passes(baseline: float, ratio: float) -> None:
    limit = judge(baseline, baseline, ratio, 0.0).limit
    assert limit is not None and judge(baseline, limit, ratio, 0.0).verdict == "pass"
    assert judge(baseline, math.nextafter(limit, math.inf), ratio, 0.0).verdict == "fail"


@given(NO_FIGURES, st.one_of(FIGURES, NO_FIGURES), SHARES)
def test_what_is_no_figure_fails_on_either_side(wrong: object, other: object, ratio: float) -> None:
    for baseline, current, side in ((wrong, other, "baseline"), (other, wrong, "current")):
        judged = judge(baseline, current, ratio, 1e9)
        assert judged.verdict == "fail" and judged.reason is not None and side in judged.reason
        assert getattr(judged, side) is None


def test_reasons_say_what_is_wrong() -> None:
    assert judge(1.0, None, 0.07, 0).reason == "current: missing"
    assert judge(math.nan, 1.0, 0.07, 0).reason == "baseline: 'nan' is not a positive number"
    assert (
        judge(True, "fast", 0.07, 0).reason
        == "baseline: 'True' is not a positive number; current: 'fast' is not a positive number"
    )
    assert judge(100, 115, 0.07, 3).reason == "15.0 % more than the baseline, allowed are 10.0 %"


@pytest.mark.parametrize(("ratio", "amount"), [(math.inf, 0.0), (math.nan, 0.0), (0.0, math.nan), (1e308, 1e308)])
def test_a_limit_that_is_no_number_allows_nothing(ratio: float, amount: float) -> None:
    judged = judge(1e3, 1.0, ratio, amount)
    assert judged.verdict == "fail" and judged.limit is None


def test_the_last_allowance_that_fits_counts() -> None:
    found = parse_allowances(["0.1", "graph_ms@*=0.2", "graph_ms@1=0.3"], "--ratio", 0.07)
    assert [allowed(name, found) for name in ("graph_ms@1", "graph_ms@0.25", "peak_memory_bytes")] == [0.3, 0.2, 0.1]
    assert allowed("anything", parse_allowances([], "--ratio", 0.07)) == 0.07


@pytest.mark.parametrize("text", ["", "nan", "-0.1", "inf", "fast", "=0.1", "graph_ms@*=", "graph_ms@*=x"])
def test_what_cannot_be_allowed_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--ratio"):
        parse_allowances([text], "--ratio", 0.07)


def test_a_pattern_without_a_metric_is_wrong_usage() -> None:
    found = parse_allowances(["0.1", "grahp*=0.2"], "--ratio", 0.07)
    with pytest.raises(UsageError, match=r"grahp\*"):
        check_patterns(found, ["graph_ms@1"], "--ratio")
    check_patterns(found, ["grahp"], "--ratio")
