import os
from pathlib import Path

import pytest

from apex_runtime.data.image import decode_image, image_size
from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.data.sources import resolve_sources
from apex_runtime.errors import ImageError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a/z.JPG", "a/c.tif", "a/notes.md", "a.webp", ".hidden/x.png", ".y.png", "deep/er/d.jpeg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    return tmp_path / "in"


def names(source: str) -> list[str]:
    items = resolve_sources(source)
    assert all(item.path.is_file() for item in items)
    return [item.relative for item in items]


def test_a_folder_gives_every_image_below_it_sorted(folder: Path) -> None:
    assert names(str(folder)) == ["a.webp", "a/c.tif", "a/z.JPG", "b.png", "deep/er/d.jpeg"]


def test_a_file_is_taken_whatever_its_name(folder: Path) -> None:
    assert names(str(folder / "a" / "notes.md")) == ["notes.md"]


def test_patterns(folder: Path) -> None:
    assert names(f"{folder}/*.png") == ["b.png"]
    assert names(f"{folder}/**/*.tif") == ["a/c.tif"]
    assert names(f"{folder}/a/*") == ["c.tif", "notes.md", "z.JPG"]
    assert names(f"{folder}/*/[cz].*") == ["a/c.tif", "a/z.JPG"]


def test_a_name_with_brackets_that_exists_is_a_name(folder: Path) -> None:
    (folder / "scan[1].png").write_bytes(b"")
    assert names(str(folder / "scan[1].png")) == ["scan[1].png"]


def test_a_link_to_nothing_stays_in(folder: Path) -> None:
    (folder / "lost.png").symlink_to(folder / "store" / "lost.png")
    for source in (str(folder), f"{folder}/*.png"):
        assert "lost.png" in [item.relative for item in resolve_sources(source)]


def test_a_pipe_is_no_source_and_is_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert "pipe.png" not in names(str(folder))
    with pytest.raises(UsageError, match="neither a regular file nor a folder"):
        resolve_sources(str(folder / "pipe.png"))
    for reading in (decode_image, image_size, open_scene):
        with pytest.raises(ImageError, match="not a regular file"):
            reading(folder / "pipe.png")


def test_a_relative_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(".")[0] == "a.webp" and names("*.png") == ["b.png"] and names("a") == ["c.tif", "z.JPG"]


@pytest.mark.parametrize(
    ("source", "reason"), [("absent", "no such file"), ("in/*.bmp", "no file matches"), ("empty", "no images"), ("", "no such")]
)
def test_nothing_found_names_what_was_looked_for(source: str, reason: str, folder: Path) -> None:
    (folder.parent / "empty").mkdir()
    (folder.parent / "empty" / "readme.txt").write_bytes(b"")
    asked = str(folder.parent / source) if source else ""
    with pytest.raises(UsageError, match=reason) as caught:
        resolve_sources(asked)
    assert asked in str(caught.value) and caught.value.remedy
