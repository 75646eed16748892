"""The stopwatch against a clock that only the parts of a call move: every time has exactly the parts it claims."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.session import Tiles, in_all
from apex_runtime.benchmark import measure
from apex_runtime.benchmark.images import MAX_IMAGES, choose_images
from apex_runtime.benchmark.measure import STEADY, WARM_UP_ROUNDS, Bench, Cell, ladder
from apex_runtime.errors import UsageError
from apex_runtime.routing.budget import parse_budget, parse_levels

DECODE, RLE = 0.003, 0.0005


class FakeClock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeSession:
    """The tiny model, whose call takes 5 ms and 1 ms per tile and image on the clock; ``slow`` more in its first calls."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self._real, self._clock = OrtSession(path, threads=1), clock
        self.info, self.name = self._real.info, "fake"
        self.calls: list[tuple[int, int]] = []
        self.slow_calls = 0

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append((len(images), in_all(tiles)))
        late = len(self.calls) <= self.slow_calls
        self._clock.now += 0.005 + 0.001 * in_all(tiles) * len(images) + (1.0 / len(self.calls) if late else 0)
        return self._real.run(images, tiles, tile_bonus)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three images; the second is wide, so a part of the input is padding."""
    random = np.random.default_rng(1)
    paths = []
    for name, shape in (("a", (128, 128)), ("b", (64, 128)), ("c", (100, 90))):
        paths.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(paths[-1]), random.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return paths


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> list[str]:
    """The images that were decoded, in order; decoding and run lengths move the clock."""
    names: list[str] = []
    decode, results = measure.decode_image, measure.detections_to_results

    def decoding(path: Path) -> np.ndarray:
        names.append(path.stem)
        clock.now += DECODE
        return decode(path)

    def encoding(found, image_id: int) -> list:
        clock.now += RLE
        return results(found, image_id)

    monkeypatch.setattr(measure, "decode_image", decoding)
    monkeypatch.setattr(measure, "detections_to_results", encoding)
    return names


@contextmanager
def quiet(_total: int):
    yield lambda _done, _failed: None


def cells(session: FakeSession, *wanted: tuple[str, int]) -> list[Cell]:
    return [Cell.of(parse_budget(text), batch, session.info) for text, batch in wanted]


def test_each_time_has_its_parts_and_each_cell_its_tiles(tiny_onnx: Path, clock: FakeClock, images, seen: list[str]) -> None:
    session = FakeSession(tiny_onnx, clock)
    bench = Bench([(session, cells(session, ("1", 1), ("0.5", 1), ("1.0", 2)))], images, threading.Event())
    bench.run(4, quiet)
    assert Counter(session.calls) == {(1, 1): 4, (1, 8): 4, (2, 16): 4}, "padding changes nothing: all images get K tiles"
    for item, graph, batch in zip(bench.measured, (6, 13, 37), (1, 1, 2), strict=True):
        assert item.turns == 4
        assert item.milliseconds("graph") == pytest.approx([graph] * 4)
        assert item.milliseconds("with_copies") == pytest.approx([graph] * 4)
        assert item.milliseconds("end_to_end") == pytest.approx([graph + batch * 1000 * (DECODE + RLE)] * 4)


def test_cells_take_turns_on_the_same_images_and_another_begins_each_round(
    tiny_onnx: Path, clock: FakeClock, images, seen: list[str]
) -> None:
    session = FakeSession(tiny_onnx, clock)
    bench = Bench([(session, cells(session, ("1", 1), ("4", 1), ("16", 1)))], images, threading.Event())
    bench.run(4, quiet)
    assert [tiles for _, tiles in session.calls] == [1, 4, 16, 4, 16, 1, 16, 1, 4, 1, 4, 16]
    assert "".join(seen) == "aaabbbcccaaa"
    seen.clear()
    Bench([(session, cells(session, ("1", 2)))], images, threading.Event()).run(3, quiet)
    assert "".join(seen) == "abcabc"


def test_of_two_engines_none_always_comes_after_the_other_and_the_second_of_two_calls_counts(
    tiny_onnx: Path, clock: FakeClock, images, seen: list[str]
) -> None:
    one, two = (FakeSession(tiny_onnx, clock) for _ in range(2))
    order: list[str] = []
    for name, session in (("a", one), ("b", two)):
        real = session.run
        session.run = lambda *given, real=real, name=name: (order.append(f"{name}{in_all(given[1])}"), real(*given))[1]  # type: ignore[method-assign]
    bench = Bench([(each, cells(each, ("1", 1), ("4", 1))) for each in (one, two)], images, threading.Event())
    bench.run(8, quiet)
    rounds = [order[8 * number : 8 * number + 8] for number in range(8)]
    assert all(turns[0::2] == turns[1::2] and sorted(turns[0::2]) == ["a1", "a4", "b1", "b4"] for turns in rounds)
    before = Counter((turns[0::2].index("a1") < turns[0::2].index("b1")) for turns in rounds)
    assert before[True] == before[False] == 4
    assert [(item.engine, item.turns) for item in bench.measured] == [(0, 8), (1, 8), (0, 8), (1, 8)]
    assert bench.measured[0].milliseconds("graph") == pytest.approx([6] * 8), "one call, not two"


def test_warm_up_goes_on_until_rounds_are_alike_and_no_longer(tiny_onnx: Path, clock: FakeClock, images, seen: list[str]) -> None:
    session = FakeSession(tiny_onnx, clock)
    session.slow_calls = 4
    bench = Bench([(session, cells(session, ("1", 1)))], images, threading.Event())
    warm = bench.warm_up()
    assert (warm.rounds, warm.steady, len(session.calls)) == (6, True, 6)
    assert warm.seconds_of_last == pytest.approx(0.006 + DECODE + RLE)
    assert bench.measured[0].turns == 0, "warm-up is not counted"
    session.calls.clear()
    session.slow_calls = 1000
    warm = bench.warm_up()
    assert (warm.rounds, warm.steady) == (WARM_UP_ROUNDS[1], False)
    assert STEADY / 7 < 1 / 7 - 1 / 8, "the last rounds were not alike"


def test_a_wish_to_stop_ends_the_round_and_keeps_what_was_measured(
    tiny_onnx: Path, clock: FakeClock, images, seen: list[str]
) -> None:
    session, stop = FakeSession(tiny_onnx, clock), threading.Event()
    bench = Bench([(session, cells(session, ("1", 1), ("2", 1)))], images, stop)

    @contextmanager
    def stopping(total: int):
        assert total == 20
        yield lambda done, _failed: stop.set() if done == 3 else None

    bench.run(10, stopping)
    assert [item.turns for item in bench.measured] == [1, 2]
    assert bench.warm_up().rounds == 0


def test_enough_is_asked_after_whole_rounds(tiny_onnx: Path, clock: FakeClock, images, seen: list[str]) -> None:
    session = FakeSession(tiny_onnx, clock)
    bench = Bench([(session, cells(session, ("1", 1), ("2", 1)))], images, threading.Event())
    bench.run(10, quiet, lambda: bench.measured[0].turns == 3)
    assert [item.turns for item in bench.measured] == [3, 3]


def test_a_budget_in_tiles_per_level_is_taken_as_given(tiny_onnx: Path, clock: FakeClock) -> None:
    session = FakeSession(tiny_onnx, clock)
    assert Cell.of(parse_levels("3"), 1, session.info).tiles == 3
    with pytest.raises(UsageError, match="level"):
        Cell.of(parse_levels("3,1"), 1, session.info)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 64, 100, 3840])
def test_the_ladder_goes_from_one_tile_to_all(count: int) -> None:
    steps = ladder(count)
    assert steps[0] == 1 and steps[-1] == count and list(steps) == sorted(set(steps)) and len(steps) <= 7
    if count >= 64:
        assert steps == (1, count // 16, round(count / 8), count // 4, count // 2, round(count * 3 / 4), count)


def test_many_images_are_thinned_out_evenly_and_none_means_the_samples(tmp_path: Path, repo_root: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.png").touch()
    numbers = [int(path.stem) for path in choose_images(str(tmp_path))]
    assert len(numbers) == MAX_IMAGES and {after - before for before, after in pairwise(numbers)} == {3, 4}
    assert numbers[0] == 0 and numbers[-1] >= 96
    samples = {path.name for path in (repo_root / "engines" / "samples").glob("*.jpg")}
    assert {path.name for path in choose_images(None)} == samples
    with pytest.raises(UsageError, match="no images"):
        choose_images(str(repo_root / "plugins"))
