"""``Engine.predict``: every form of image and of budget, in order, lazily, from several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import discs, save

import apex_runtime
from apex_runtime.backends.ort import OrtSession
from apex_runtime.bundle.load import Opened
from apex_runtime.data.image import decode_image
from apex_runtime.engine import Engine
from apex_runtime.errors import ImageError, UsageError
from apex_runtime.in_turn import in_turn
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget

SIZES = ((128, 128), (64, 128), (128, 128), (128, 64), (256, 256))


@pytest.fixture(scope="module")
def engine(tiny_onnx: Path) -> Engine:
    return apex_runtime.load(tiny_onnx, threads=1)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Every one with its disc at another place, so that a wrong order shows."""
    return [discs(h, w, (16 + 7 * i, 16 + 4 * i, 9)) for i, (h, w) in enumerate(SIZES)]


@pytest.fixture
def folder(tmp_path: Path, images: list[np.ndarray]) -> Path:
    for index, image in enumerate(images):
        save(tmp_path / ("sub" if index == 1 else ".") / f"{index}.png", image)
    return tmp_path


class Spy:
    """A session that notes the batch and K of each call, and how many threads were inside at once."""

    def __init__(self, session: OrtSession, name: str = "ort-cpu", seconds: float = 0.0) -> None:
        self.session, self.name, self.seconds = session, name, seconds
        self.calls: list[tuple[int, int]] = []
        self.inside = self.most_inside = 0

    @property
    def info(self):
        return self.session.info

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append((len(images), tiles))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        time.sleep(self.seconds)
        self.inside -= 1
        return self.session.run(images, tiles, tile_bonus)


@pytest.fixture
def spy(tiny_onnx: Path) -> Spy:
    return Spy(OrtSession(tiny_onnx, threads=1))


def engine_of(session: Spy) -> Engine:
    return Engine(Opened(session, session.name, session.name, ""))


def same(a: apex_runtime.Result, b: apex_runtime.Result) -> None:
    np.testing.assert_array_equal(a.tile_ids, b.tile_ids)
    np.testing.assert_allclose(a.scores[:1], b.scores[:1], atol=1e-3)
    np.testing.assert_allclose(a.boxes[:1], b.boxes[:1], atol=0.05)


def test_every_form_of_image(engine: Engine, folder: Path, images: list[np.ndarray]) -> None:
    alone = [engine.predict_one(image, budget=4) for image in images]
    assert len({tuple(result.boxes[0].round()) for result in alone}) == len(images)
    names = [folder / "0.png", folder / "2.png", folder / "3.png", folder / "4.png", folder / "sub" / "1.png"]
    order = [0, 2, 3, 4, 1]
    for sources in (folder, str(folder), f"{folder}/**/*.png", names, map(str, names), (decode_image(path) for path in names)):
        results = list(engine.predict(sources, budget=4))
        for result, index in zip(results, order, strict=True):
            same(result, alone[index])
    assert [result.source for result in engine.predict(folder, budget=1)] == names
    assert [result.source for result in engine.predict(images[0])] == [None]
    same(next(engine.predict(names[1], budget=4)), alone[2])
    assert list(engine.predict([])) == []


def test_a_budget_for_each_image(engine: Engine, images: list[np.ndarray]) -> None:
    budgets = [3, 0.25, "50%", 1.0, parse_budget(2)]
    expected = [3, 2, 8, 8, 2]  # of 16, 8, 16, 8, 16 tiles
    for sources in (images, iter(images)):
        results = list(engine.predict(sources, budget=budgets))
        assert [len(result.tiles) for result in results] == expected
        for result, image, budget in zip(results, images, budgets, strict=True):
            same(result, engine.predict_one(image, budget))
            assert result.budget.asked == parse_budget(budget).asked
            assert result.budget.tiles == result.budget.spent == len(result.tiles) and result.budget.per_level == (
                len(result.tiles),
            )


def test_budgets_that_do_not_fit(engine: Engine, images: list[np.ndarray]) -> None:
    for bad in ([1, 2], [1] * 6, [], [1, 2, 3, 4, 0], "many"):
        with pytest.raises(UsageError, match="budget"):
            engine.predict(images, budget=bad)  # at once, not when the first result is asked for
    results = engine.predict(iter(images), budget=[1, 2])
    assert [len(next(results).tiles), len(next(results).tiles)] == [1, 2]
    with pytest.raises(UsageError, match="more images"):
        next(results)
    with pytest.raises(UsageError, match="6 of them for 5 images"):
        list(engine.predict(iter(images), budget=[1] * 6))


def test_images_of_equal_budget_share_a_call(spy: Spy, images: list[np.ndarray]) -> None:
    results = list(engine_of(spy).predict(images, budget=[4, 2, 4, 2, 4]))
    assert spy.calls == [(3, 4), (2, 2)]
    assert [len(result.tiles) for result in results] == [4, 2, 4, 2, 4]
    spy.calls.clear()
    list(engine_of(spy).predict(images * 2, budget=4))
    assert spy.calls == [(8, 4), (2, 4)]
    spy.calls.clear()
    list(engine_of(spy).predict(images, budget=4, batch=2))
    assert spy.calls == [(2, 4), (2, 4), (1, 4)]


def test_a_generator_is_not_read_ahead(engine: Engine, images: list[np.ndarray]) -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for index, image in enumerate(images):
            taken.append(index)
            yield image

    results = engine.predict(camera(), budget=1)
    assert taken == []
    for index in range(len(images)):
        next(results)
        assert taken == list(range(index + 1))
    taken.clear()
    next(engine.predict(camera(), budget=1, batch=3))
    assert taken == [0, 1, 2]


def test_what_was_read_before_an_error_is_handed_on(engine: Engine, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    results = engine.predict([folder / "0.png", folder / "2.png", folder / "1.png", folder / "3.png"], budget=1)
    assert [next(results).source, next(results).source] == [folder / "0.png", folder / "2.png"]
    with pytest.raises(ImageError, match=r"1\.png"):
        next(results)


def test_what_is_no_image(engine: Engine, folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        engine.predict(folder / "absent")
    with pytest.raises(UsageError, match="int is neither"):
        engine.predict(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NoneType is neither") as caught:
        next(engine.predict([None]))  # type: ignore[list-item]
    assert "RGB" in caught.value.remedy
    with pytest.raises(UsageError, match="batch 0"):
        engine.predict(folder, batch=0)
    with pytest.raises(ImageError, match="expected uint8"):
        engine.predict_one(np.zeros((8, 8), np.uint8))


def test_backends_that_need_it_run_one_call_at_a_time(tiny_onnx: Path, images: list[np.ndarray]) -> None:
    ort = OrtSession(tiny_onnx, threads=1)
    assert in_turn(ort) is ort
    for name, alone in (("tensorrt", True), ("ort-cpu", False)):
        session = Spy(ort, name, seconds=0.02)
        engine = engine_of(session)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda image, used=engine: used.predict_one(image, 2), images * 2))
        assert len(session.calls) == 10
        assert (session.most_inside == 1) == alone, name


def test_eight_threads_get_what_one_gets(nuclei_fixture: Path) -> None:
    """The shipped engine on real images, every thread with a budget of its own, all at the same time."""
    engine = apex_runtime.load(threads=1)
    paths = sorted((nuclei_fixture / "images").glob("*"))[:3]
    budgets = [1, 2, 5, 0.125, 0.25, "40%", 0.75, 1.0]
    alone = [list(engine.predict(paths, budget, min_score=0.05, batch=1)) for budget in budgets]
    start = threading.Barrier(len(budgets))

    def work(budget: float | str) -> list[apex_runtime.Result]:
        start.wait()
        return list(engine.predict(paths, budget, min_score=0.05, batch=1))

    with ThreadPoolExecutor(len(budgets)) as pool:
        together = list(pool.map(work, budgets))
    assert len({len(results[0].tiles) for results in alone}) >= 6, "budgets that all mean the same would prove nothing"
    for expected, found in zip(alone, together, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert len(a) > 3
            for name in ("boxes", "scores", "labels", "tile_ids"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
            for mask, other in zip(a.masks, b.masks, strict=True):
                assert (mask.x, mask.y) == (other.x, other.y)
                np.testing.assert_array_equal(mask.bits, other.bits)


def test_several_threads_may_ask_for_the_masks_of_one_result(engine: Engine, images: list[np.ndarray]) -> None:
    expected = [mask.bits for mask in engine.predict_one(images[0]).masks]
    result = engine.predict_one(images[0])
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: [mask.bits for mask in result.masks], range(8)))
    assert len(expected) > 3
    for bits in asked:
        for mine, theirs in zip(bits, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_result_is_what_the_predictor_finds(engine: Engine, images: list[np.ndarray]) -> None:
    (found,) = Predictor(engine.opened.session).predict([images[0]], 4, min_score=0.2, max_detections=2, classes=["blob"])
    result = engine.predict_one(images[0], 4, min_score=0.2, max_detections=2, classes=["blob"])
    assert 0 < len(result) == len(found) <= 2
    np.testing.assert_array_equal(result.boxes, found.boxes)
