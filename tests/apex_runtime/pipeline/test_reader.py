"""What a run reads: clips whose header is wrong, frames decoded ahead but never all of them, tiles that are remembered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clips import moving_disc, read_clip, write_clip
from pictures import discs, save

from apex_runtime.backends.ort import OrtSession
from apex_runtime.data.sources import SourceItem, resolve_sources
from apex_runtime.pipeline import reader, runner, stages
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import OutputFolder
from apex_runtime.pipeline.runner import Run
from apex_runtime.pipeline.stages import RunOptions
from apex_runtime.routing.budget import parse_budget
from apex_runtime.video.decode import DecodedFrame, decode_frames
from apex_runtime.video.plan import MEDIA, plan_frames

PATIENCE = 90.0  # seconds; a loaded machine is slow, a deadlock is for ever


@pytest.fixture
def predictor(tiny_onnx: Path) -> Predictor:
    return Predictor(OrtSession(tiny_onnx, threads=1))


def plan(source: Path) -> list[SourceItem]:
    return plan_frames(resolve_sources(str(source), MEDIA), False, None)


def run(predictor: Predictor, items: list[SourceItem], out: Path, hysteresis: float = 2.0, batch: int = 1) -> dict[str, Any]:
    options = RunOptions(parse_budget("2"), predictor.filter(0.3, 2, None), 0.3, batch, hysteresis)
    folder = OutputFolder(out, predictor.info.classes)
    return Run(predictor, items, folder, options).execute({"budget": "2"}, {})


def failures(out: Path) -> dict[str, str]:
    return {item["file_name"]: item["reason"] for item in json.loads((out / "failures.json").read_text())}


@pytest.mark.parametrize(("stated", "done", "reason"), [(3, 3, "more frames"), (12, 11, ""), (30, 11, "only 11 of 30")])
def test_headers_that_are_wrong(predictor: Predictor, tmp_path: Path, stated: int, done: int, reason: str) -> None:
    """11 frames: more than stated, a little fewer (edit lists hide some), far fewer. The next file is not affected."""
    write_clip(tmp_path / "in" / "a.mp4", moving_disc(11))
    save(tmp_path / "in" / "b.png", discs(64, 64, (20, 20, 9)))
    items = plan(tmp_path / "in")
    clip = replace(items[0].clip, frames=stated)  # type: ignore[type-var]
    frames = [SourceItem(items[0].path, f"a.mp4#{index:06d}", clip, index) for index in range(stated)]
    summary = run(predictor, [*frames, items[-1]], tmp_path / "out")
    expected = done + 1 + bool(reason)
    assert summary["status"] == "done"
    assert summary["images"] == {"found": expected, "done": done + 1, "failed": int(bool(reason)), "resumed": 0}
    assert list(failures(tmp_path / "out")) == (["a.mp4"] if reason else []) and reason in "".join(
        failures(tmp_path / "out").values()
    )
    assert len(read_clip(tmp_path / "out" / "annotated" / "a.mp4")[0]) == done
    images = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    assert images[-1]["id"] == stated + 1 and len({image["id"] for image in images}) == len(images)


def test_frames_are_decoded_ahead_and_never_all_of_them(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the graph looks at the first frame two more are decoded; not one more than the queue and both hands hold."""
    count, ahead = [0], threading.Event()

    def decode(path: Path, fps: float) -> Iterator[DecodedFrame]:
        for frame in decode_frames(path, fps):
            count[0] += 1
            if count[0] == 3:
                ahead.set()
            yield frame

    original, seen = runner.look, [0]

    def look(batch: list[stages.Loaded], *rest: Any) -> list[stages.Looked]:
        assert ahead.wait(PATIENCE), "the decoder waits for the graph"
        seen[0] += 1
        assert count[0] <= seen[0] + 3
        return original(batch, *rest)

    monkeypatch.setattr(reader, "decode_frames", decode)
    monkeypatch.setattr(runner, "look", look)
    write_clip(tmp_path / "a.mp4", moving_disc(30))
    assert run(predictor, plan(tmp_path / "a.mp4"), tmp_path / "out")["images"]["done"] == 30


def test_a_frame_that_fails_is_named_and_the_tiles_before_it_are_kept(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = reader.prepare
    bonuses: list[set[float]] = []

    def prepare(image: Any, item: SourceItem, *rest: Any) -> stages.Loaded:
        if item.relative.endswith("#000002"):
            raise MemoryError
        return original(image, item, *rest)

    look = runner.look

    def watch(batch: list[stages.Loaded], *rest: Any) -> list[stages.Looked]:
        bonuses.append({float(value) for value in batch[0].prepared.bonus_N})
        return look(batch, *rest)

    monkeypatch.setattr(reader, "prepare", prepare)
    monkeypatch.setattr(runner, "look", watch)
    write_clip(tmp_path / "in" / "a.mp4", moving_disc(4))
    write_clip(tmp_path / "in" / "b.mp4", moving_disc(2))
    summary = run(predictor, plan(tmp_path / "in"), tmp_path / "out")
    assert list(failures(tmp_path / "out")) == ["a.mp4#000002"]
    assert (summary["images"]["done"], summary["video"]["frames"]) == (5, 5)
    assert bonuses == [{0.0}, {0.0, 2.0}, {0.0, 2.0}, {0.0}, {0.0, 2.0}], "every clip begins without tiles of a frame before"


def test_images_in_a_batch_do_not_disturb_the_clip_between_them(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "c", "d", "x"):
        save(tmp_path / "in" / f"{name}.png", discs(128, 128, (100, 100, 9)))
    write_clip(tmp_path / "in" / "b.mp4", moving_disc(6))
    together = run(predictor, plan(tmp_path / "in"), tmp_path / "one", batch=3)
    alone = run(predictor, plan(tmp_path / "in" / "b.mp4"), tmp_path / "two")
    assert together["images"]["done"] == 10 and together["video"]["clips"] == alone["video"]["clips"]
