"""Files as images and frames: clips are opened for their length, and with ``--video`` the images of a folder become a clip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from apex_runtime.data.image import EXTENSIONS
from apex_runtime.data.sources import Clip, SourceItem
from apex_runtime.errors import ImageError, UsageError
from apex_runtime.video.container import VIDEO_EXTENSIONS, is_clip
from apex_runtime.video.decode import FALLBACK_FPS, probe_clip

MEDIA = EXTENSIONS + VIDEO_EXTENSIONS


def frame_name(clip: str, index: int) -> str:
    """The name of a frame of a video file, which has none of its own: ``clip.mp4#000012``."""
    return f"{clip}#{index:06d}"


def plan_frames(files: Sequence[SourceItem], images_are_frames: bool, fps: float | None) -> list[SourceItem]:
    """Images, and the frames of clips, in the order in which they are processed and numbered.

    ``images_are_frames``: the images of each folder are the frames of one clip, by name (2 before 10), ``fps`` per second.
    A clip that cannot be opened becomes one item, whose reading fails. Raises UsageError when two things would have one name.
    """
    clips = [item for item in files if is_clip(item.path, look_inside=len(files) == 1)]
    names = {item.relative for item in clips}
    images = [item for item in files if item.relative not in names]
    units = [_of_file(item) for item in clips]
    units += _of_folders(images, fps or FALLBACK_FPS) if images_are_frames else [[item] for item in images]
    planned = [item for unit in sorted(units, key=_unit_name) for item in unit]
    _check_names(planned)
    return planned


def _unit_name(unit: list[SourceItem]) -> str:
    return unit[0].clip.name if unit[0].clip else unit[0].relative


def _of_file(item: SourceItem) -> list[SourceItem]:
    try:
        clip = probe_clip(item.path, item.relative)
    except ImageError:
        return [replace(item, clip=Clip(item.relative, 0, FALLBACK_FPS, is_file=True))]
    return [SourceItem(item.path, frame_name(clip.name, index), clip, index) for index in range(clip.frames)]


def _of_folders(images: Sequence[SourceItem], fps: float) -> list[list[SourceItem]]:
    ordered = sorted(images, key=lambda item: (_folder(item), _natural(item.relative)))
    return [_of_folder(folder, list(group), fps) for folder, group in groupby(ordered, key=_folder)]


def _of_folder(folder: str, images: list[SourceItem], fps: float) -> list[SourceItem]:
    """The images directly in the source are a clip named after its folder."""
    name = images[0].path.resolve().parent.name or "clip" if folder == "." else folder
    clip = Clip(name, len(images), fps, is_file=False)
    return [replace(item, clip=clip, frame_index=index) for index, item in enumerate(images)]


def _folder(item: SourceItem) -> str:
    return Path(item.relative).parent.as_posix()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that puts frame2 before frame10; 2 and 02, which are equal as numbers, fall to the text."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _check_names(planned: Sequence[SourceItem]) -> None:
    seen: dict[str, SourceItem] = {}
    drawn: dict[str, Clip] = {}
    for item in planned:
        if seen.setdefault(item.relative, item) is not item:
            raise UsageError(f"{item.path}: something else has the name {item.relative} in the results.", "Rename one of them.")
        if item.clip and drawn.setdefault(picture_name(item.clip.name), item.clip) is not item.clip:
            raise UsageError(f"{item.path}: another clip is drawn to {picture_name(item.clip.name)}.", "Rename one of them.")


def picture_name(clip: str) -> str:
    """What the annotated clip is called: ``.mp4`` is added to any other name."""
    return clip if clip.lower().endswith(".mp4") else f"{clip}.mp4"
