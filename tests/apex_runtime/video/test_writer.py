"""Annotated clips can be played back, have the size and rate of their source, and are not there before they are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import moving_disc, read_clip

from apex_runtime.data.sources import Clip
from apex_runtime.errors import ApexError
from apex_runtime.video.writer import ClipWriter, clip_path, count_frames


@pytest.mark.parametrize(("height", "width", "fps"), [(128, 96, 24.0), (97, 65, 30000 / 1001), (40, 300, 7.5)])
def test_what_is_written_can_be_read(tmp_path: Path, height: int, width: int, fps: float) -> None:
    frames = moving_disc(6, height, width)
    writer, clip = ClipWriter(tmp_path), Clip("a/b.avi", 6, fps, True)
    for frame in frames:
        writer.add(clip, frame)
    assert not (tmp_path / "a" / "b.avi.mp4").exists()
    writer.close()
    read, rate = read_clip(tmp_path / "a" / "b.avi.mp4")
    assert rate == pytest.approx(fps, rel=1e-3)
    assert len(read) == 6 and read[0].shape == (height // 2 * 2, width // 2 * 2, 3)
    for frame, truth in zip(read, frames, strict=True):
        assert np.abs(frame.astype(int) - truth[: frame.shape[0], : frame.shape[1]]).mean() < 8
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.avi.mp4"]


def test_another_clip_ends_the_one_before_and_frames_of_another_size_are_scaled(tmp_path: Path) -> None:
    writer, one, two = ClipWriter(tmp_path), Clip("one.mp4", 2, 10, True), Clip("two", 1, 10, False)
    for clip, size in ((one, 64), (one, 100), (two, 80)):
        writer.add(clip, np.full((size, size, 3), 99, np.uint8))
    assert [frame.shape[0] for frame in read_clip(tmp_path / "one.mp4")[0]] == [64, 64]
    writer.close()
    writer.close()
    assert count_frames(tmp_path / "two.mp4") == 1 and count_frames(tmp_path / "three.mp4") == 0


def test_a_clip_that_cannot_be_read_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is silent in OpenCV."""
    writer = ClipWriter(tmp_path)
    writer.add(Clip("a.mp4", 1, 10, True), moving_disc(1)[0])
    monkeypatch.setattr("apex_runtime.video.writer.count_frames", lambda _path: 0)
    with pytest.raises(ApexError, match=r"a\.mp4.*0 can be read back") as caught:
        writer.close()
    assert "--resume" in caught.value.remedy and list(tmp_path.iterdir()) == []


def test_a_clip_stays_inside_the_folder() -> None:
    assert clip_path("../x/./y.MP4") == "_/x/_/y.MP4" and clip_path("a.mov") == "a.mov.mp4"
