"""Files become images and frames, in order, each with a name of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import moving_disc, write_clip
from pictures import discs, save

from apex_runtime.data.sources import SourceItem, resolve_sources
from apex_runtime.errors import UsageError
from apex_runtime.video.plan import MEDIA, plan_frames


def plan(source: Path | str, images_are_frames: bool = False, fps: float | None = None) -> list[SourceItem]:
    return plan_frames(resolve_sources(str(source), MEDIA), images_are_frames, fps)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for name in ("a.png", "d/frame10.png", "d/frame2.png", "z.png"):
        save(tmp_path / "in" / name, discs(32, 32, (9, 9, 5)))
    write_clip(tmp_path / "in" / "m.mp4", moving_disc(3))
    (tmp_path / "in" / "broken.avi").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text("")
    return tmp_path / "in"


def test_a_folder_of_images_and_clips(mixed: Path) -> None:
    items = plan(mixed)
    frames = ["m.mp4#000000", "m.mp4#000001", "m.mp4#000002"]
    assert [item.relative for item in items] == ["a.png", "broken.avi", "d/frame10.png", "d/frame2.png", *frames, "z.png"]
    assert [item.frame_index for item in items if item.clip] == [0, 0, 1, 2]
    assert items[1].clip is not None and items[1].clip.frames == 0, "its reading will say what is wrong"


def test_images_as_frames_are_one_clip_per_folder_in_the_order_of_their_numbers(mixed: Path) -> None:
    items = [item for item in plan(mixed, True, 24) if item.clip and not item.clip.is_file]
    assert [(item.relative, item.clip.name, item.frame_index) for item in items if item.clip] == [
        ("d/frame2.png", "d", 0),
        ("d/frame10.png", "d", 1),
        ("a.png", "in", 0),
        ("z.png", "in", 1),
    ]
    assert {item.clip.fps for item in items if item.clip} == {24}
    assert [item.relative for item in plan(f"{mixed}/d/*.png", True)] == ["frame2.png", "frame10.png"]


def test_a_single_clip(mixed: Path) -> None:
    assert len(plan(mixed / "m.mp4")) == len(plan(mixed / "m.mp4", True)) == 3
    assert [item.relative for item in plan(mixed / "a.png")] == ["a.png"]


def test_names_must_differ(mixed: Path) -> None:
    save(mixed / "x.png", discs(8, 8))
    (mixed / "x.png").rename(mixed / "m.mp4#000001")
    with pytest.raises(UsageError, match="#000001"):
        plan(f"{mixed}/m*")
    (mixed / "broken.avi.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="drawn"):
        plan(mixed)
