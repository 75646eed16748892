"""Load on a server: the plan of requests, the judges, and a very small run where MLServer is installed."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from server_client import BAD, Answered, Asked, Mix, moments
from server_load import judge, main, recovered, row
from server_memory import growth


def answered(at: float, seconds: float = 0.1, status: str = "OK", bad: str = "") -> Answered:
    return Answered(Asked(b"", "1.0", bad), at, seconds, status)


def test_even_requests_come_evenly_and_those_of_a_process_at_the_same_rate() -> None:
    assert moments(4, 2, "even") == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    drawn = moments(50, 100, "poisson")
    gaps = np.diff(drawn)
    assert len(drawn) == pytest.approx(5000, rel=0.05) and max(drawn) < 100
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1), "exponential gaps spread as far as they are long"


def test_a_share_of_the_requests_is_wrong_in_every_way() -> None:
    mix = Mix([b"a", b"b"], ["0.25", "1.0"], 0.05)
    asked = [mix.next() for _ in range(4000)]
    wrong = [one.bad for one in asked if one.bad]
    assert len(wrong) == pytest.approx(200, rel=0.25) and set(wrong) == set(BAD)
    assert {(one.image, one.budget) for one in asked} == {(b"a", "0.25"), (b"a", "1.0"), (b"b", "0.25"), (b"b", "1.0")}


def test_a_row_counts_good_and_wrong_requests_apart() -> None:
    found = row(
        [*(answered(at / 10, 0.05) for at in range(20)), answered(0.5, 9, "INTERNAL"), answered(1, 7, "INVALID", "garbage")]
    )
    assert found["good"] == {"OK": 20, "INTERNAL": 1} and found["wrong"] == {"INVALID": 1}
    assert found["p50_ms"] == found["p100_ms"] == pytest.approx(50)
    assert [second["failed"] for second in found["seconds"]] == [1, 0]


def test_recovered_is_when_nothing_fails_any_more_and_all_is_as_fast_as_before() -> None:
    calm = [answered(at / 4) for at in range(40)]
    assert recovered(calm, 0.2) == 0
    assert recovered([*calm, answered(3.4, status="RESOURCE_EXHAUSTED")], 0.2) == 4
    slow = [answered(at / 4, 0.5 if at < 8 else 0.1) for at in range(40)]
    assert recovered(slow, 0.2) == 2
    assert recovered([answered(at, status="INTERNAL") for at in range(6)], 0.2) == 6


def test_growth_is_that_of_settled_memory() -> None:
    flat = [(float(at), 100 << 20 if at > 15 else at << 20) for at in range(100)]
    assert growth(flat)["growth_percent"] == pytest.approx(0) and abs(growth(flat)["mib_per_minute"]) < 1e-6
    rising = [(float(at), (100 + at) << 20) for at in range(100)]
    assert growth(rising)["mib_per_minute"] == pytest.approx(60) and growth(rising)["growth_percent"] > 50


KEPT: dict[str, Any] = {
    "sustained": {"good": {"OK": 900}, "wrong": {"INVALID_ARGUMENT": 40}, "p50_ms": 50.0, "p99_ms": 120.0},
    "memory": {"growth_percent": 0.4},
    "overload": {"good": {"OK": 500, "RESOURCE_EXHAUSTED": 900}, "p100_ms": 900.0, "deadline_ms": 1000.0},
    "recovery": {"recovered_seconds": 2.0},
    "exit_code": 0,
}


@pytest.mark.parametrize(
    ("place", "value", "promise"),
    [
        (("sustained", "good"), {"OK": 900, "INTERNAL": 1}, "no error"),
        (("sustained", "wrong"), {"INTERNAL": 1, "INVALID_ARGUMENT": 9}, "every wrong request"),
        (("sustained", "wrong"), {"OK": 1}, "every wrong request"),
        (("sustained", "p99_ms"), 151.0, "p99"),
        (("sustained", "p99_ms"), float("nan"), "p99"),
        (("memory", "growth_percent"), 3.1, "memory"),
        (("overload", "good"), {"OK": 500}, "overload is refused"),
        (("overload", "good"), {"OK": 5, "RESOURCE_EXHAUSTED": 9, "UNKNOWN": 1}, "overload is refused"),
        (("overload", "p100_ms"), 1001.0, "within the deadline"),
        (("overload", "p100_ms"), float("nan"), "within the deadline"),
        (("recovery", "recovered_seconds"), 6.0, "recovers"),
        (("exit_code",), 1, "stops"),
    ],
)
def test_a_broken_promise_is_noticed(place: tuple[str, ...], value: Any, promise: str) -> None:
    assert all(judge(KEPT).values())
    found = copy.deepcopy(KEPT)
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    broken = [text for text, kept in judge(found).items() if not kept]
    assert len(broken) == 1 and promise in broken[0]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlserver") is None, reason="MLServer is not installed: the extra serve")
def test_a_very_small_run(tmp_path: Path, repo_root: Path) -> None:
    words = ["--data", repo_root / "engines" / "samples", "--budget", "1,4", "--probe-seconds", 2, "--seconds", 3]
    words += ["--overload-seconds", 2, "--recovery-seconds", 2, "--queue", 2, "--evidence", tmp_path / "evidence.json"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    found = json.loads((tmp_path / "evidence.json").read_text())
    assert min(found["capacity"], found["capacity_after"]) > 0 and found["sustained"]["good"]["OK"] > 3, done.output
    assert found["promises"]["stops when it is asked to"] and "RESOURCE_EXHAUSTED" in found["overload"]["good"]
    assert len(done.output.splitlines()) > 15
