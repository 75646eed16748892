"""A run survives bad images, failing batches, full disks and interruptions, and never waits for itself."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import discs, save

from apex_runtime.backends.ort import OrtSession
from apex_runtime.data.sources import SourceItem, resolve_sources
from apex_runtime.errors import BackendError
from apex_runtime.pipeline import pictures, reader, runner, stages
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import OutputFolder
from apex_runtime.pipeline.runner import Run
from apex_runtime.pipeline.stages import RunOptions
from apex_runtime.routing.budget import parse_budget


@pytest.fixture
def predictor(tiny_onnx: Path) -> Predictor:
    return Predictor(OrtSession(tiny_onnx, threads=1))


@pytest.fixture
def images(tmp_path: Path) -> list[SourceItem]:
    """Nine images of three shapes (three different K), two of them no images at all."""
    for index in range(9):
        height, width = ((128, 128), (128, 64), (32, 128))[index % 3]
        save(tmp_path / "in" / f"{index}.png", discs(height, width, (16, 16, 10)))
    (tmp_path / "in" / "2.png").write_bytes(b"")
    (tmp_path / "in" / "7.png").write_text("not an image")
    return resolve_sources(str(tmp_path / "in"))


PATIENCE = 180.0  # seconds; a loaded machine is slow, a deadlock is for ever


def options(predictor: Predictor, batch: int = 1, lanes: int = 1) -> RunOptions:
    return RunOptions(parse_budget("0.5"), predictor.filter(0.001, None, None), 0.3, batch, lanes=lanes)


def run(predictor: Predictor, items: list[SourceItem], out: Path, batch: int = 1, **more: Any) -> dict[str, Any]:
    """Execute in a thread of its own, so that a deadlock fails the test instead of hanging it."""
    resume, lanes = more.pop("resume", False), more.pop("lanes", 1)
    folder = OutputFolder(out, predictor.info.classes)
    one = Run(predictor, items, folder, options(predictor, batch, lanes), **more)
    ended: list[Any] = []

    def execute() -> None:
        try:
            ended.append(one.execute({"budget": "0.5"}, {}, resume))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=execute, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert ended, "the run hangs"
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_bad_images_are_named_and_the_rest_is_the_same_for_every_batch(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, batch: int
) -> None:
    seen: list[tuple[int, int]] = []
    summary = run(predictor, images, tmp_path / "out", batch, progress=lambda done, failed: seen.append((done, failed)))
    assert summary["images"] == {"found": 9, "done": 7, "failed": 2, "resumed": 0}
    assert seen[0] == (0, 0) and seen[-1] == (7, 2) and len(seen) == 10
    value = results(tmp_path / "out")
    assert [image["id"] for image in value["images"]] == [1, 2, 4, 5, 6, 7, 9]
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert [item["file_name"] for item in failures] == ["2.png", "7.png"] and all(item["remedy"] for item in failures)
    single = predictor.predict([discs(128, 64, (16, 16, 10))], 0.5)[0]
    mine = [item for item in value["annotations"] if item["image_id"] == 2]
    assert len(mine) == len(single)
    assert mine[0]["score"] == pytest.approx(float(single.scores[0]), abs=1e-3)
    for image in value["images"]:
        assert (tmp_path / "out" / "annotated" / f"{image['file_name']}.png").is_file()


class _Sometimes:
    """A session that fails when a batch holds an image that is mostly bright, or is larger than ``limit``."""

    def __init__(self, session: OrtSession, limit: int = 99) -> None:
        self.session, self.info, self.name, self.limit = session, session.info, session.name, limit

    def run(self, images: np.ndarray, tiles: int, bonus: np.ndarray) -> dict[str, np.ndarray]:
        if len(images) > self.limit or (images[:, :20, :20].mean((1, 2, 3)) > 250).any():
            raise BackendError("the device fell over.", "Pick it up.", code="execution_failed")
        return self.session.run(images, tiles, bonus)


def test_one_image_that_breaks_the_engine_does_not_take_its_batch_along(tiny_onnx: Path, tmp_path: Path) -> None:
    for index in range(5):
        image = discs(128, 128, (64, 64, 10)) if index != 3 else np.full((128, 128, 3), 255, np.uint8)
        save(tmp_path / "in" / f"{index}.png", image)
    predictor = Predictor(_Sometimes(OrtSession(tiny_onnx, 1)))
    summary = run(predictor, resolve_sources(str(tmp_path / "in")), tmp_path / "out", 5)
    assert summary["images"]["done"] == 4
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert failures == [
        {"file_name": "3.png", "reason": "the device fell over.", "remedy": "Pick it up.", "code": "execution_failed"}
    ]


def test_a_batch_too_large_for_the_device_is_done_one_by_one(tiny_onnx: Path, images: list[SourceItem], tmp_path: Path) -> None:
    predictor = Predictor(_Sometimes(OrtSession(tiny_onnx, 1), limit=1))
    assert run(predictor, images, tmp_path / "out", 4)["images"]["done"] == 7


def test_everything_bad_still_gives_outputs(
    predictor: Predictor, tmp_path: Path, validate: Callable[[str, object], None]
) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"\x89PNG")
    summary = run(predictor, resolve_sources(str(tmp_path)), tmp_path / "out")
    assert summary["images"] == {"found": 3, "done": 0, "failed": 3, "resumed": 0}
    validate("results", results(tmp_path / "out"))


@pytest.mark.parametrize("batch", [1, 3])
def test_stopping_keeps_what_is_done_and_resume_does_the_rest(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    original = runner.look

    def look_and_stop(*arguments: Any) -> list[stages.Looked]:
        stop.set()
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "look", look_and_stop)
        first = run(predictor, images, tmp_path / "out", batch, stop=stop)
    assert first["status"] == "interrupted"
    done = {image["file_name"]: image for image in results(tmp_path / "out")["images"]}
    assert len(done) == batch, "the batch in progress is finished"
    second = run(predictor, images, tmp_path / "out", batch, resume=True)
    assert second["status"] == "done"
    assert second["images"] == {"found": 9, "done": 7, "failed": 2, "resumed": len(done)}
    after = results(tmp_path / "out")
    for image in after["images"]:
        assert done.get(image["file_name"], image) == image, "what was done is not done again"
    fresh = run(predictor, images, tmp_path / "fresh", batch)
    assert fresh["detections"] == second["detections"]
    identity = [(item["id"], item["image_id"]) for item in after["annotations"]]
    assert [(item["id"], item["image_id"]) for item in results(tmp_path / "fresh")["annotations"]] == identity


def test_a_stop_before_the_first_image(predictor: Predictor, images: list[SourceItem], tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    summary = run(predictor, images, tmp_path / "out", stop=stop)
    assert summary["status"] == "interrupted" and summary["images"]["done"] == 0


def test_a_full_disk_ends_the_run_with_that_error(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _image: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(pictures, "write_png", full)
    with pytest.raises(OSError, match="No space left"):
        run(predictor, images, tmp_path / "out")


def test_a_name_too_long_for_a_picture_is_a_failure_of_that_image(predictor: Predictor, tmp_path: Path) -> None:
    long = "n" * 251 + ".png"
    save(tmp_path / "in" / "a.png", discs(64, 64, (16, 16, 9)))
    (tmp_path / "in" / "a.png").rename(tmp_path / "in" / long)
    save(tmp_path / "in" / "b.png", discs(64, 64, (16, 16, 9)))
    summary = run(predictor, resolve_sources(str(tmp_path / "in")), tmp_path / "out")
    assert summary["images"] == {"found": 2, "done": 1, "failed": 1, "resumed": 0}


def test_an_error_nobody_expected_is_recorded_with_its_type(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = stages.decode_image

    def odd(path: Path) -> np.ndarray:
        if path.name == "4.png":
            raise ZeroDivisionError("division by zero")
        if path.name == "5.png":
            raise MemoryError
        return original(path)

    monkeypatch.setattr(stages, "decode_image", odd)
    run(predictor, images, tmp_path / "out")
    reasons = {item["file_name"]: item["reason"] for item in json.loads((tmp_path / "out" / "failures.json").read_text())}
    assert reasons["4.png"].startswith("ZeroDivisionError") and "memory" in reasons["5.png"]


def test_an_error_in_the_graph_thread_stops_the_others(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "look", leave)
    with pytest.raises(KeyboardInterrupt):
        run(predictor, images, tmp_path / "out")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("apex-")]


def test_stages_overlap(predictor: Predictor, images: list[SourceItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the graph works on one image, the reader reads the next: shown by order of events, not by a clock."""
    second_read = threading.Event()
    original_read, original_look = reader.read, runner.look

    def read(item: SourceItem, *rest: Any) -> stages.Loaded:
        loaded = original_read(item, *rest)
        if item.relative == "1.png":
            second_read.set()
        return loaded

    def look(batch: list[stages.Loaded], *rest: Any) -> list[stages.Looked]:
        assert second_read.wait(PATIENCE / 2), "the reader waits for the graph"
        return original_look(batch, *rest)

    monkeypatch.setattr(reader, "read", read)
    monkeypatch.setattr(runner, "look", look)
    assert run(predictor, images, tmp_path / "out")["images"]["done"] == 7


def test_images_waiting_for_their_kind_are_bounded(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many different K with a large batch: the smallest groups run early instead of piling up."""
    for index in range(40):
        save(tmp_path / "in" / f"{index:02}.png", discs(16 + 12 * (index % 10), 128, (8, 8, 6)))
    sizes: list[int] = []
    original = runner.look

    def look(batch: list[stages.Loaded], *rest: Any) -> list[stages.Looked]:
        sizes.append(len(batch))
        return original(batch, *rest)

    monkeypatch.setattr(runner, "look", look)
    monkeypatch.setattr(runner, "_MAX_WAITING", 1)
    assert run(predictor, resolve_sources(str(tmp_path / "in")), tmp_path / "out", 8)["images"]["done"] == 40
    assert sum(sizes) == 40 and max(sizes) <= 8


def journal(out: Path) -> list[str]:
    """Its lines without their times, which differ from run to run."""
    lines = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    return [json.dumps({**line, "milliseconds": None}) for line in lines]


@pytest.mark.parametrize("batch", [1, 2])
def test_the_journal_does_not_depend_on_the_number_of_lanes(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, batch: int
) -> None:
    for lanes in (1, 2, 5):
        summary = run(predictor, images, tmp_path / str(lanes), batch, lanes=lanes)
        assert summary["images"] == {"found": 9, "done": 7, "failed": 2, "resumed": 0}
    assert journal(tmp_path / "1") == journal(tmp_path / "2") == journal(tmp_path / "5") and len(journal(tmp_path / "5")) == 7


class _FirstWaits:
    """A session whose first call ends only when ``calls`` others have; with less than two lanes it would wait for ever."""

    def __init__(self, session: OrtSession, calls: int) -> None:
        self.session, self.info, self.name = session, session.info, session.name
        self._others, self._lock, self._ended, self._wanted = threading.Event(), threading.Lock(), -1, calls

    def run(self, images: np.ndarray, tiles: int, bonus: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock:
            first, self._ended = self._ended < 0, self._ended + 1
        if first:
            assert self._others.wait(PATIENCE / 2), "one call at a time"
        elif self._ended >= self._wanted:
            self._others.set()
        return self.session.run(images, tiles, bonus)


def test_images_overtake_each_other_in_lanes_and_not_in_the_journal(
    tiny_onnx: Path, images: list[SourceItem], tmp_path: Path
) -> None:
    predictor = Predictor(_FirstWaits(OrtSession(tiny_onnx, 1), calls=3))
    assert run(predictor, images, tmp_path / "out", lanes=2)["images"]["done"] == 7
    names = [json.loads(line)["file_name"] for line in journal(tmp_path / "out")]
    assert names == [f"{number}.png" for number in (0, 1, 3, 4, 5, 6, 8)]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_failure_in_one_lane_is_a_failure_of_that_image(tiny_onnx: Path, tmp_path: Path, batch: int) -> None:
    for index in range(7):
        image = discs(128, 128, (64, 64, 10)) if index != 3 else np.full((128, 128, 3), 255, np.uint8)
        save(tmp_path / "in" / f"{index}.png", image)
    predictor = Predictor(_Sometimes(OrtSession(tiny_onnx, 1)))
    assert run(predictor, resolve_sources(str(tmp_path / "in")), tmp_path / "out", batch, lanes=3)["images"]["done"] == 6
    (failure,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert (failure["file_name"], failure["code"]) == ("3.png", "execution_failed")


def test_a_stop_in_lanes_finishes_what_was_begun_and_begins_nothing(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, both, begun = threading.Event(), threading.Barrier(2), []
    original = runner.look

    def look_and_stop(batch: list[stages.Loaded], *rest: Any) -> list[stages.Looked]:
        begun.append(batch[0].file_name)
        both.wait(PATIENCE / 2)
        stop.set()
        return original(batch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "look", look_and_stop)
        first = run(predictor, images, tmp_path / "out", lanes=2, stop=stop)
    assert first["status"] == "interrupted" and sorted(begun) == ["0.png", "1.png"]
    assert [json.loads(line)["file_name"] for line in journal(tmp_path / "out")] == ["0.png", "1.png"]
    assert run(predictor, images, tmp_path / "out", lanes=2, resume=True)["images"]["resumed"] == 2
    run(predictor, images, tmp_path / "fresh")
    assert journal(tmp_path / "out") == journal(tmp_path / "fresh")


def test_an_error_that_is_of_no_image_ends_the_run_from_within_a_lane(
    predictor: Predictor, images: list[SourceItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_arguments: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(runner, "look", leave)
    with pytest.raises(SystemExit):
        run(predictor, images, tmp_path / "out", lanes=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("apex-")]
