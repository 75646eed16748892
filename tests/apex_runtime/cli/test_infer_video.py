"""``apex-rt infer clip.mp4`` from the outside: frames in the results, hysteresis, the annotated clip, what breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import moving_disc, read_clip, write_clip
from pictures import discs, save

from apex_runtime.engine import load
from apex_runtime.routing.hysteresis import DEFAULT_BONUS


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def restless(count: int) -> list[np.ndarray]:
    """Two grey discs in different tiles, by turns a little brighter than the other: without hysteresis the tile flips."""
    frames = []
    for index in range(count):
        frame = discs(128, 128, (16, 16, 10), (112, 112, 10)) // 2
        frame[:64] += np.uint8(10 * (index % 2)) * (frame[:64] > 0)
        frame[64:] += np.uint8(10 * (1 - index % 2)) * (frame[64:] > 0)
        frames.append(frame)
    return frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", restless(8), 12.5)


def test_frames_are_images_of_the_coco_file(apex_rt, validate, tiny_onnx: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = apex_rt("infer", clip, "--engine", tiny_onnx, "-o", out, "--budget", 2, "--min-score", 0.3, "--max-detections", 1)
    assert ran.code == 0, ran.err
    assert "8 of 8 images" in ran.out and "flip rate" in ran.out
    results, summary = read(out / "results.json"), read(out / "summary.json")
    validate("results", results)
    validate("summary", summary)
    for line in (out / "results.jsonl").read_text().splitlines():
        validate("journal", json.loads(line))
    assert [image["file_name"] for image in results["images"]] == [f"clip.mp4#{index:06d}" for index in range(8)]
    assert [image["id"] for image in results["images"]] == list(range(1, 9))
    assert [image["seconds"] for image in results["images"]] == [pytest.approx(index / 12.5, abs=1e-3) for index in range(8)]
    assert all(image["clip"] == "clip.mp4" and image["budget"]["spent"] == 2 for image in results["images"])
    assert [item["image_id"] for item in results["annotations"]] == list(range(1, 9))
    video = summary["video"]
    assert (video["frames"], video["fps"], video["mean_tiles"]) == (8, 12.5, 2.0)
    assert summary["settings"]["hysteresis"] == DEFAULT_BONUS
    pictures, fps = read_clip(out / "annotated" / "clip.mp4")
    assert len(pictures) == 8 and fps == pytest.approx(12.5) and pictures[0].shape == (128, 128, 3)
    assert pictures[0][40:90, 8:20].astype(int).max() > 15, "tiles left alone are fogged: the ground there is black"


def test_hysteresis_keeps_tiles_and_zero_is_every_frame_for_itself(apex_rt, tiny_onnx: Path, clip: Path, tmp_path: Path) -> None:
    rates = {}
    for bonus in (0, 2):
        out = tmp_path / f"out{bonus}"
        assert apex_rt("infer", clip, "--engine", tiny_onnx, "-o", out, "--budget", 1, "--hysteresis", bonus).code == 0
        rates[bonus] = read(out / "summary.json")["video"]["flip_rate"]
    assert rates == {0: 1.0, 2: 0.0}
    engine = load(tiny_onnx, threads=1)
    for frame, image in zip(read_clip(clip)[0], read(tmp_path / "out0" / "results.json")["images"], strict=True):
        found = next(engine.predict(np.ascontiguousarray(frame), budget=1))
        assert [tile["id"] for tile in image["tiles"]] == found.tile_ids.tolist()


def test_a_batch_of_frames_needs_hysteresis_off(apex_rt, tiny_onnx: Path, clip: Path, tmp_path: Path) -> None:
    common = ("infer", clip, "--engine", tiny_onnx, "--budget", 1)
    ran = apex_rt(*common, "-o", tmp_path / "a", "--batch", 4, "--hysteresis", 2)
    assert ran.code == 0 and "one by one" in ran.err
    assert read(tmp_path / "a" / "summary.json")["video"]["flip_rate"] == 0
    ran = apex_rt(*common, "-o", tmp_path / "b", "--batch", 3, "--hysteresis", 0)
    assert ran.code == 0 and "one by one" not in ran.err
    apex_rt(*common, "-o", tmp_path / "c", "--hysteresis", 0)
    tiles = [[image["tiles"] for image in read(tmp_path / name / "results.json")["images"]] for name in ("b", "c")]
    assert tiles[0] == tiles[1]
    first, second = (read_clip(tmp_path / name / "annotated" / "clip.mp4")[0] for name in ("b", "c"))
    assert len(first) == len(second) == 8
    assert np.abs(np.array(first)[:, :100].astype(int) - np.array(second)[:, :100]).max() < 40, (
        "the same frames in the same order"
    )


def test_images_and_clips_good_and_broken_in_one_folder(apex_rt, validate, tiny_onnx: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    save(source / "a.png", discs(128, 128, (16, 16, 10)))
    write_clip(source / "b.avi", moving_disc(3), codec="MJPG")
    cut = write_clip(source / "cut.avi", moving_disc(20), codec="MJPG")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (source / "empty.mp4").write_bytes(b"")
    (source / "text.mkv").write_text("this is not a clip" * 100)
    write_clip(source / "sub" / "wide.webm", moving_disc(2, 64, 128), codec="VP80")
    command = [sys.executable, "-m", "apex_runtime.cli.main", "infer", source, "--engine", tiny_onnx, "-o", out, "--threads", "1"]
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "moov" not in ran.stderr and "WARN" not in ran.stderr, "the decoder's own words are kept away"
    failures = {item["file_name"]: item for item in json.loads((out / "failures.json").read_text())}
    assert set(failures) == {"cut.avi", "empty.mp4", "text.mkv"}
    assert "cut off" in failures["cut.avi"]["reason"] and "empty" in failures["empty.mp4"]["reason"]
    results, summary = read(out / "results.json"), read(out / "summary.json")
    validate("results", results)
    validate("summary", summary)
    parts = {part["file_name"]: part for part in summary["video"]["clips"]}
    assert 0 < parts["cut.avi"]["frames"] < 20 and parts["empty.mp4"]["annotated"] is None
    assert summary["status"] == "done"
    assert summary["images"]["found"] == summary["images"]["done"] + 3 == len(results["images"]) + 3
    ids = [image["id"] for image in results["images"]]
    assert ids == sorted(set(ids))
    for name in ("b.avi.mp4", "cut.avi.mp4", "sub/wide.webm.mp4"):
        assert len(read_clip(out / "annotated" / name)[0]) == parts[name.removesuffix(".mp4")]["frames"]
    assert (out / "annotated" / "a.png.png").is_file()


def test_a_folder_is_images_unless_told_otherwise(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    for index, frame in enumerate(restless(4)):
        save(tmp_path / "scene" / f"{index}.png", frame)
    save(tmp_path / "scene" / "4.png", discs(64, 128, (16, 16, 10)))
    common = ("infer", tmp_path / "scene", "--engine", tiny_onnx, "--budget", 1, "--hysteresis", 2)
    assert apex_rt(*common, "-o", tmp_path / "images").code == 0
    assert "video" not in read(tmp_path / "images" / "summary.json")
    assert read(tmp_path / "images" / "summary.json")["settings"]["hysteresis"] is None
    assert apex_rt(*common, "-o", tmp_path / "frames", "--video", "--fps", 5).code == 0
    images, summary = read(tmp_path / "frames" / "results.json")["images"], read(tmp_path / "frames" / "summary.json")
    assert [(image["file_name"], image["clip"], image["seconds"]) for image in images] == [
        (f"{index}.png", "scene", index / 5) for index in range(5)
    ]
    assert summary["video"]["flip_rate"] == 0, "the last frame has another size: its tiles are not compared"
    assert len(read_clip(tmp_path / "frames" / "annotated" / "scene.mp4")[0]) == 5
    assert apex_rt(*common, "-o", tmp_path / "x", "--fps", 5).code == 2
    assert apex_rt("infer", tmp_path / "scene", "-o", tmp_path / "x", "--hysteresis", -1).code == 2


def test_the_same_command_again_starts_afresh(apex_rt, tiny_onnx: Path, clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a.mp4", "b.mp4"):
        write_clip(source / name, moving_disc(2))
    for _run in range(2):
        assert apex_rt("infer", source, "--engine", tiny_onnx, "-o", source / "out").code == 0
        assert read(source / "out" / "summary.json")["images"]["found"] == 4, "annotated clips are not read again"
    (source / "b.mp4").unlink()
    assert apex_rt("infer", source, "--engine", tiny_onnx, "-o", source / "out").code == 0
    assert [path.name for path in (source / "out" / "annotated").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interruption_loses_nothing_and_resume_goes_on_with_the_last_tiles(
    tiny_onnx: Path, tmp_path: Path, how: signal.Signals, apex_rt
) -> None:
    """After a resume results and the annotated clip are those of a run that was never interrupted."""
    clip = write_clip(tmp_path / "clip.mp4", restless(40))
    out, whole = tmp_path / "out", tmp_path / "whole"
    common = ["infer", str(clip), "--engine", str(tiny_onnx), "--budget", "1", "--hysteresis", "2", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "apex_runtime.cli.main", *common, "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = out / "results.jsonl"
    waited = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 500) and time.monotonic() < waited:
        time.sleep(0.005)
    os.kill(process.pid, how)
    printed, errors = process.communicate(timeout=120)
    done = len(journal.read_text().splitlines())
    assert 0 < done < 40
    if how == signal.SIGINT:
        assert process.returncode == 1 and "--resume" in printed and "Traceback" not in errors
        assert len(read_clip(out / "annotated" / "clip.mp4")[0]) == done, "what is done can be watched"
    assert apex_rt(*common, "-o", out, "--resume").code == 0
    assert apex_rt(*common, "-o", whole).code == 0
    resumed, fresh = read(out / "results.json"), read(whole / "results.json")
    assert read(out / "summary.json")["images"]["resumed"] >= done - 1
    assert [image["tiles"] for image in resumed["images"]] == [image["tiles"] for image in fresh["images"]]
    assert resumed["annotations"] == fresh["annotations"]
    assert read(out / "summary.json")["video"] == read(whole / "summary.json")["video"]
    one, two = (np.array(read_clip(folder / "annotated" / "clip.mp4")[0])[:, :110].astype(int) for folder in (out, whole))
    assert one.shape == two.shape == (40, 110, 128, 3) and np.abs(one - two).mean() < 1
    assert sorted(path.name for path in (out / "annotated").iterdir()) == ["clip.mp4"]
    assert apex_rt(*common, "-o", out, "--resume").code == 0
