"""Clips are recognised, counted and read frame by frame; broken ones are named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import moving_disc, write_clip
from pictures import save

from apex_runtime.errors import ImageError
from apex_runtime.video.container import is_clip, is_cut_off, knows_its_length
from apex_runtime.video.decode import decode_frames, probe_clip

FORMATS = [(".mp4", "mp4v"), (".mov", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v"), (".webm", "VP80"), (".m4v", "mp4v")]


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_the_frames_come_in_order_with_their_times(tmp_path: Path, suffix: str, codec: str) -> None:
    frames = moving_disc(7)
    path = write_clip(tmp_path / f"clip{suffix}", frames, 12.5, codec)
    clip = probe_clip(path, "clip")
    assert (clip.frames, clip.is_file) == (7, True) and clip.fps == pytest.approx(12.5, rel=0.01)
    read = list(decode_frames(path, clip.fps))
    assert [round(frame.seconds, 2) for frame in read] == [round(index / 12.5, 2) for index in range(7)]
    for frame, truth in zip(read, frames, strict=True):
        assert frame.pixels.shape == truth.shape and frame.pixels.dtype == np.uint8
        assert np.abs(frame.pixels.astype(int) - truth).mean() < 8
    assert not is_cut_off(path)


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0] = 200
    frame = next(decode_frames(write_clip(tmp_path / "a.mp4", [red] * 2), 10)).pixels
    assert frame[:, :, 0].mean() > 150 and frame[:, :, 1:].mean() < 50


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_a_clip_is_recognised_by_its_content_whatever_its_name(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", moving_disc(2), codec=codec)
    assert is_clip(path)
    for name in ("noext", "a.dat", "a.png"):
        path = path.rename(tmp_path / name)
        assert is_clip(path, look_inside=True)
        assert probe_clip(path, name).frames == 2
    assert not is_clip(path), "in a folder a suffix of images is believed"
    assert is_clip(path.rename(tmp_path / "x.bin"))


def test_images_and_texts_are_no_clips(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", moving_disc(1)[0])
    (tmp_path / "notes.txt").write_text("ftyp")
    (tmp_path / "photo.dat").write_bytes(b"\0\0\0\x1cftypavif" + bytes(64))
    for path in (image, tmp_path / "notes.txt", tmp_path / "photo.dat", tmp_path / "absent.dat"):
        assert not is_clip(path, look_inside=True)
    assert is_clip(tmp_path / "absent.MP4"), "a suffix is enough: the error is the reader's"


@pytest.mark.parametrize(("suffix", "codec", "known"), [(".mp4", "mp4v", True), (".avi", "MJPG", True), (".mkv", "mp4v", False)])
def test_who_counts_the_frames(tmp_path: Path, suffix: str, codec: str, known: bool) -> None:
    assert knows_its_length(write_clip(tmp_path / f"a{suffix}", moving_disc(3), codec=codec)) == known
    assert not knows_its_length(tmp_path / "absent")


def test_frames_of_a_bare_stream_are_counted(tmp_path: Path) -> None:
    """Motion JPEG without a container: no header, no length; the decoder keeps the first size."""
    sizes = [(64, 96), (64, 96), (96, 64)]
    stream = b"".join(cv2.imencode(".jpg", np.full((*size, 3), 90, np.uint8))[1].tobytes() for size in sizes)
    (tmp_path / "a.mjpeg").write_bytes(stream)
    clip = probe_clip(tmp_path / "a.mjpeg", "a")
    assert (clip.frames, clip.fps) == (3, 25.0)
    assert {frame.pixels.shape for frame in decode_frames(tmp_path / "a.mjpeg", clip.fps)} == {(64, 96, 3)}


@pytest.mark.skipif(not hasattr(cv2, "imwriteanimation"), reason="this OpenCV cannot write a clip of variable frame rate")
def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames, animation.durations = moving_disc(4), np.array([100, 100, 500, 300])
    assert cv2.imwriteanimation(str(tmp_path / "a.gif"), animation)
    clip = probe_clip(tmp_path / "a.gif", "a")
    assert (clip.frames, clip.fps) == (4, 4.0), "the mean rate"
    assert [frame.seconds for frame in decode_frames(tmp_path / "a.gif", clip.fps)] == [0.0, 0.1, 0.2, 0.7]


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mkv", "mp4v"), (".mp4", "mp4v")])
def test_a_file_that_was_cut_off_is_seen(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write_clip(tmp_path / f"a{suffix}", moving_disc(20), codec=codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert is_cut_off(path)


@pytest.mark.parametrize("content", [b"", b"no clip at all" * 50, b"\0\0\0\x1cftypisom" + bytes(100)])
def test_what_is_no_clip_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for attempt in (lambda: probe_clip(path, "clip.mp4"), lambda: next(decode_frames(path, 25))):
        with pytest.raises(ImageError, match=r"clip\.mp4") as caught:
            attempt()
        assert caught.value.remedy
    with pytest.raises(ImageError, match="absent"):
        probe_clip(tmp_path / "absent.mp4", "absent.mp4")
