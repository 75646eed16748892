"""Load on a server: the plan of requests, the judges, and a very small run where MLServer is installed."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from server_anchor import anchored, fixed_work, in_second
from server_client import BAD, Answered, Asked, Mix, moments
from server_load import judge, main
from server_memory import growth
from server_rows import recovered, row


def answered(at: float, seconds: float = 0.1, status: str = "OK", bad: str = "", budget: str = "1.0", spent: int = 0) -> Answered:
    return Answered(Asked(b"", budget, bad), at, seconds, status, spent)


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


def test_a_row_tells_what_good_answers_spent_by_what_was_asked_for() -> None:
    found = [answered(0, budget="1.0", spent=16), answered(0.1, budget="1.0", spent=4), answered(0.2, budget="0.25", spent=4)]
    found += [answered(0.3, status="RESOURCE_EXHAUSTED"), answered(0.4, budget="0.5", status="DEADLINE_EXCEEDED")]
    found += [answered(0.5, bad="garbage", spent=99)]
    assert row(found)["tiles"] == {"0.25": 4.0, "1.0": 10.0}


def test_the_anchor_is_told_of_every_second_and_of_the_phase() -> None:
    samples = [(0.5, 2.0), (1.5, 4.0), (1.9, 6.0), (7.5, 3.0)]
    found = row([answered(0), answered(1.2), answered(2.8)], samples)
    assert [second["anchor_ms"] for second in found["seconds"]] == [2.0, 5.0, pytest.approx(float("nan"), nan_ok=True)]
    assert found["anchor_p50_ms"] == 3.5 and found["anchor_p99_ms"] == pytest.approx(5.94)
    assert math.isnan(row([answered(0)])["anchor_p50_ms"])
    assert in_second(samples, 7) == 3.0


def test_the_anchor_is_timed_beside_a_load_until_it_ends_and_the_loads_error_is_raised() -> None:
    async def load() -> str:
        await asyncio.sleep(0.35)
        return "answers"

    async def broken() -> None:
        raise ZeroDivisionError

    found, samples = asyncio.run(anchored(load(), every=0.1))
    assert found == "answers" and 1 <= len(samples) <= 4
    for place, (at, taken) in enumerate(samples):
        assert (place + 0.5) * 0.1 <= at and taken > 0
    with pytest.raises(ZeroDivisionError):
        asyncio.run(anchored(broken()))


def test_the_anchor_is_one_computation_in_one_thread() -> None:
    work = fixed_work()
    first, again = work(), fixed_work()()
    np.testing.assert_array_equal(first, again)
    before = time.process_time(), time.thread_time()
    for _ in range(20):
        work()
    process, thread = time.process_time() - before[0], time.thread_time() - before[1]
    assert thread > 0.9 * process, "no other thread computes"


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
    words += ["--overload-budget", 2, "--overload-waiting", 1]
    done = CliRunner().invoke(main, [str(word) for word in words])
    found = json.loads((tmp_path / "evidence.json").read_text())
    assert min(found["capacity"], found["capacity_after"]) > 0 and found["sustained"]["good"]["OK"] > 3, done.output
    assert found["promises"]["stops when it is asked to"] and "RESOURCE_EXHAUSTED" in found["overload"]["good"]
    assert found["probe"]["tiles"]["1"] == found["overload"]["tiles"]["1"] == 1 and 2 <= found["overload"]["tiles"]["4"] < 4
    assert found["asked"]["overload_budget"] == "2" and found["sustained"]["anchor_p50_ms"] > 0
    assert found["sustained"]["seconds"][1]["anchor_ms"] > 0 and found["probe"]["anchor_p50_ms"] is None
    assert len(done.output.splitlines()) > 18 and done.output.count("of 4; anchor p50") == 3
