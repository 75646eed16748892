"""Scenes as items of a run: one that is cut short leaves nothing and is done anew."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import discs, save

from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.session import Tiles
from apex_runtime.data.sources import resolve_sources
from apex_runtime.errors import BackendError
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import OutputFolder
from apex_runtime.pipeline.runner import Run
from apex_runtime.pipeline.stages import RunOptions
from apex_runtime.routing.budget import parse_budget
from apex_runtime.windows import passes
from apex_runtime.windows.plan import parse_windowing


class Counting:
    """A session that counts its calls and does something at one of them."""

    def __init__(self, session: OrtSession, at: int, action: Any) -> None:
        self._session, self._at, self._action = session, at, action
        self.info, self.name, self.calls = session.info, session.name, 0
        self._lock = threading.Lock()

    def run(self, images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock:
            self.calls += 1
            if self.calls == self._at:
                self._action()
        return self._session.run(images, tiles, bonus)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "in" / "a.png", discs(128, 128, (40, 40, 12)))
    save(tmp_path / "in" / "b.png", discs(300, 400, (60, 70, 14), (330, 250, 14)))
    save(tmp_path / "in" / "c.png", discs(200, 200, (130, 60, 12)))
    return tmp_path / "in"


def go(
    session: Any,
    folder: Path,
    out: Path,
    batch: int = 1,
    stop: threading.Event | None = None,
    resume: bool = False,
    lanes: int = 1,
) -> Any:
    predictor = Predictor(session)
    windowing = parse_windowing("auto", 32, session.info.input)
    options = RunOptions(parse_budget("30"), predictor.filter(0.1, None, None), batch=batch, windowing=windowing, lanes=lanes)
    items = resolve_sources(str(folder))
    return Run(predictor, items, OutputFolder(out, session.info.classes), options, stop).execute({}, {}, resume)


def records(out: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    return sorted(({**line, "milliseconds": None} for line in lines), key=lambda line: line["id"])


@pytest.mark.parametrize("at", [5, 14])
def test_a_scene_cut_short_leaves_nothing(tiny_onnx: Path, folder: Path, tmp_path: Path, at: int) -> None:
    """In its first pass of 12 windows, which begins with the second call, and in its second one."""
    stop = threading.Event()
    first = go(Counting(OrtSession(tiny_onnx, threads=1), at, stop.set), folder, tmp_path / "out", stop=stop)
    assert first["status"] == "interrupted" and [line["file_name"] for line in records(tmp_path / "out")] == ["a.png"]
    assert [path.name for path in (tmp_path / "out" / "annotated").iterdir()] == ["a.png.png"]
    assert not json.loads((tmp_path / "out" / "failures.json").read_text()), "an interruption is no failure"
    second = go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / "out", resume=True)
    assert (second["status"], second["images"]["resumed"], second["images"]["done"]) == ("done", 1, 3)
    go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / "fresh")
    assert records(tmp_path / "out") == records(tmp_path / "fresh")


def test_a_scene_that_fails_is_named_and_the_next_one_is_done(tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise BackendError("the device is gone.", "Turn it on.")

    summary = go(Counting(OrtSession(tiny_onnx, threads=1), 5, fail), folder, tmp_path / "out")
    assert (summary["status"], summary["images"]["failed"]) == ("done", 1)
    (failure,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert (failure["file_name"], failure["reason"]) == ("b.png", "the device is gone.")
    assert [line["file_name"] for line in records(tmp_path / "out")] == ["a.png", "c.png"]


def test_batches_of_windows_change_nothing(tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    one, many = Counting(OrtSession(tiny_onnx, threads=1), 0, None), Counting(OrtSession(tiny_onnx, threads=1), 0, None)
    go(one, folder, tmp_path / "one")
    go(many, folder, tmp_path / "many", batch=4)
    assert records(tmp_path / "one") == records(tmp_path / "many") and many.calls < one.calls


def test_masks_made_before_the_second_look_change_nothing(
    tiny_onnx: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a window waits for a second look with its masks made or not: what the last look found is what counts."""
    go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / "late")
    monkeypatch.setattr(passes, "_UNPACKED", 1)
    go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / "early")
    found = records(tmp_path / "early")
    assert found == records(tmp_path / "late")
    assert any(line["budget"].get("twice") for line in found) and any(line["annotations"] for line in found)


@pytest.mark.parametrize("batch", [1, 3])
def test_lanes_change_nothing(tiny_onnx: Path, folder: Path, tmp_path: Path, batch: int) -> None:
    for name in "defg":
        save(folder / f"{name}.png", discs(128, 128, (40, 40, 12)))
    for lanes in (1, 3):
        assert go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / str(lanes), batch, lanes=lanes)["images"]["done"] == 7
    names = [json.loads(line)["file_name"] for line in (tmp_path / "3" / "results.jsonl").read_text().splitlines()]
    assert names == sorted(names) or batch > 1
    assert records(tmp_path / "1") == records(tmp_path / "3")


def test_a_scene_cut_short_in_lanes_leaves_nothing(tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    """In its first pass: of the second one all windows may have been begun, and then it is finished."""
    stop = threading.Event()
    first = go(Counting(OrtSession(tiny_onnx, threads=1), 5, stop.set), folder, tmp_path / "out", stop=stop, lanes=2)
    assert first["status"] == "interrupted" and not json.loads((tmp_path / "out" / "failures.json").read_text())
    assert "b.png" not in [line["file_name"] for line in records(tmp_path / "out")]
    assert go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / "out", resume=True, lanes=2)["images"]["done"] == 3
    go(OrtSession(tiny_onnx, threads=1), folder, tmp_path / "fresh")
    assert records(tmp_path / "out") == records(tmp_path / "fresh")


def test_scenes_that_fail_in_lanes_are_named_every_one(tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    """More of them than may be in memory at a time: each makes room for the next."""
    for name in "hijk":
        save(folder / f"{name}.png", discs(200, 200, (130, 60, 12)))

    class Broken(Counting):
        def run(self, images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> dict[str, np.ndarray]:
            raise BackendError("the device is gone.", "Turn it on.")

    summary = go(Broken(OrtSession(tiny_onnx, threads=1), 0, None), folder, tmp_path / "out", lanes=2)
    assert (summary["status"], summary["images"]["failed"], summary["images"]["done"]) == ("done", 7, 0)
