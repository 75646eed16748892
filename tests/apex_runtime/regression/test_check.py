"""What is compared, what is judged, and what fails although no figure is worse."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_measurement import made_measurement

from apex_runtime.own_time import Turn
from apex_runtime.regression.baseline import Measurement
from apex_runtime.regression.check import Limits, check, settings_of, undecided
from apex_runtime.regression.record import times
from apex_runtime.regression.rounds import Samples
from apex_runtime.regression.rule import parse_allowances


def limits(ratio: float = 0.07, absolute: bool = False) -> Limits:
    return Limits(parse_allowances([str(ratio)], "--ratio", 0.07), parse_allowances([], "--abs", 0.0), absolute)


def read(document: dict[str, Any]) -> Measurement:
    return Measurement.model_validate_json(json.dumps(document), strict=True)


def with_value(name: str, value: object) -> Measurement:
    document = made_measurement()
    document["metrics"][name]["value"] = value
    return read(document)


def failing(report: dict[str, Any]) -> list[str]:
    return [row["name"] for row in report["metrics"] if row["verdict"] == "fail"]


BASELINE = read(made_measurement())


def test_the_same_passes_and_the_report_follows_its_schema(validate) -> None:
    report = check(BASELINE, BASELINE, limits())
    validate("check", report)
    assert report["verdict"] == "pass" and report["reasons"] == [] and report["differences"] == []
    judged = {row["name"]: row["judged"] for row in report["metrics"]}
    assert [name for name in judged if judged[name]] == ["graph_over_anchor@0.25", "peak_memory_bytes"]
    assert all(row["verdict"] == "shown" for row in report["metrics"] if not row["judged"])


@pytest.mark.parametrize(("value", "fails"), [(1.25 * 1.069, False), (1.25 * 1.071, True), (0.5, False)])
def test_a_quotient_with_the_anchor_decides(value: float, fails: bool) -> None:
    report = check(BASELINE, with_value("graph_over_anchor@0.25", value), limits())
    assert failing(report) == (["graph_over_anchor@0.25"] if fails else [])
    assert report["verdict"] == ("fail" if fails else "pass")


def test_memory_decides() -> None:
    assert failing(check(BASELINE, with_value("peak_memory_bytes", 215_000_000), limits())) == ["peak_memory_bytes"]


def test_milliseconds_decide_only_when_asked_or_without_an_anchor() -> None:
    slow = with_value("graph_ms@0.25", 100.0)
    assert check(BASELINE, slow, limits())["verdict"] == "pass"
    assert failing(check(BASELINE, slow, limits(absolute=True))) == ["graph_ms@0.25"]
    plain = {"graph_ms@1": {"unit": "ms", "value": 10.0}}
    on_gpu = [
        read(
            made_measurement(
                {"graph_ms@1": {"unit": "ms", "value": value}}, anchor_sha256=None, executed="tensorrt", device="cuda"
            )
        )
        for value in (plain["graph_ms@1"]["value"], 12.0)
    ]
    assert failing(check(on_gpu[0], on_gpu[1], limits())) == ["graph_ms@1"]
    assert check(on_gpu[0], on_gpu[0], limits())["verdict"] == "pass"


@pytest.mark.parametrize("wrong", [None, math.nan, math.inf, 0, -1.0, True, "1.25"])
def test_a_judged_metric_that_is_no_figure_fails_on_either_side(wrong: object, validate) -> None:
    broken = with_value("graph_over_anchor@0.25", wrong)
    for sides in ((BASELINE, broken), (broken, BASELINE), (broken, broken)):
        report = check(*sides, limits())
        validate("check", report)
        assert report["verdict"] == "fail" and failing(report) == ["graph_over_anchor@0.25"]


@given(st.sets(st.sampled_from(["graph_over_anchor@0.25", "peak_memory_bytes"]), min_size=1), st.booleans())
def test_a_judged_metric_that_is_missing_on_one_side_fails(missing: set[str], in_baseline: bool) -> None:
    document = made_measurement()
    for name in missing:
        del document["metrics"][name]
    sides = (read(document), BASELINE) if in_baseline else (BASELINE, read(document))
    report = check(*sides, limits(1e6))
    assert set(failing(report)) == missing and report["verdict"] == "fail"


@pytest.mark.parametrize("metrics", [{}, {"anchor_ms": {"unit": "ms", "value": 1.0}}])
def test_an_empty_baseline_fails(metrics: dict, validate) -> None:
    empty = read(made_measurement(metrics))
    report = check(empty, empty, limits())
    validate("check", report)
    assert report["verdict"] == "fail" and "empty" in report["reasons"][0]


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("processor", "q"),
        ("usable_cpus", 4),
        ("system", "t"),
        ("executed", "ort-cuda"),
        ("input", [64, 64]),
        ("threads", 2),
        ("device", "cuda"),
        ("clock", "wall"),
        ("anchor_sha256", "c" * 64),
        ("backend_version", "1.1"),
    ],
)
def test_what_may_not_be_compared_fails_and_is_named(what: str, value: object, validate) -> None:
    report = check(BASELINE, read(made_measurement(**{what: value})), limits())
    validate("check", report)
    assert report["verdict"] == "fail" and what in [item["what"] for item in report["differences"]]
    assert any(what in reason for reason in report["reasons"])


def test_another_engine_of_the_same_size_is_what_a_check_is_about() -> None:
    assert check(BASELINE, read(made_measurement(model_sha256="d" * 64, precision="int8")), limits())["verdict"] == "pass"


def test_gpus_matter_on_a_gpu_only() -> None:
    card = [{"name": "a", "driver": "1"}]
    assert check(BASELINE, read(made_measurement(gpus=card)), limits())["verdict"] == "pass"
    sides = [
        read(made_measurement(gpus=gpus, device="cuda", executed="ort-cuda")) for gpus in (card, [{"name": "b", "driver": "1"}])
    ]
    assert [item["what"] for item in check(*sides, limits())["differences"]] == ["gpus"]


def test_the_engine_is_measured_as_the_baseline_was() -> None:
    chosen = settings_of(read(made_measurement(budgets=["1", "1.0"], threads=3)))
    assert (chosen.budgets, chosen.threads, chosen.device) == (("1", "1.0"), 3, "cpu")


def samples(quotient: float, spread: float, rounds: int = 41) -> Samples:
    engine = [Turn(1.0, 40 * quotient * (1 + spread * (place / (rounds - 1) - 0.5))) for place in range(rounds)]
    return Samples({"0.25": engine}, {"0.25": [Turn(1.0, 40.0)] * rounds}, 1.0)


def test_measuring_ends_when_the_quotient_is_clearly_on_one_side() -> None:
    enough = undecided(BASELINE, limits())
    assert enough(samples(1.25, 0.1)) and enough(samples(1.25 * 1.15, 0.1))
    assert not enough(samples(1.25 * 1.07, 0.2)), "on the limit"
    assert enough(samples(1.25 * 1.07, 0.001)), "on the limit, and nothing more is to be learned"
    assert not enough(Samples({"0.25": []}, {"0.25": []}))


def test_measuring_ends_when_only_the_baseline_is_unsure() -> None:
    """With a baseline known to 5 % no number of rounds decides 4 % from the limit."""
    document = made_measurement()
    document["metrics"]["graph_over_anchor@0.25"] |= {"low": 1.19, "high": 1.315}
    enough = undecided(read(document), limits())
    assert not enough(samples(1.25 * 1.03, 0.3)) and enough(samples(1.25 * 1.03, 0.05))


def test_measuring_ends_at_once_where_the_baseline_has_no_figure() -> None:
    assert undecided(with_value("graph_over_anchor@0.25", math.nan), limits())(samples(1.0, 0.9))


def test_the_quotient_of_a_small_engine_keeps_its_digits() -> None:
    found = times(samples(0.00123456, 0.0))["graph_over_anchor@0.25"]
    assert found["value"] == pytest.approx(0.00123456, rel=1e-5)
