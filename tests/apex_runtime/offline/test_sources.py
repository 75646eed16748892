"""Images of stores and tables get the names and the order that a folder of them would have."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import save

from apex_runtime.data.sources import SourceItem, resolve_sources
from apex_runtime.errors import ImageError, MissingPackageError, UsageError
from apex_runtime.offline import fetch as fetching
from apex_runtime.offline import sources
from apex_runtime.offline.blocks import Image
from apex_runtime.offline.fetch import fetch
from apex_runtime.offline.sources import images_of
from apex_runtime.pipeline.results import Failure

pytest.importorskip("fsspec", reason="the extra ray is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a/z.JPG", "a/a.png", ".hidden/c.png", "note.md"):
        path = tmp_path / "images" / name
        if path.suffix == ".md":
            path.write_text("no image")
        else:
            save(path, np.zeros((8, 8, 3), np.uint8))
    return tmp_path / "images"


def never() -> list[SourceItem]:
    raise AssertionError("not a local source")


def table(file: Path, /, **columns: list[Any]) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), file)
    return file


def test_a_store_gives_what_its_folder_gives(folder: Path) -> None:
    local = images_of(str(folder), lambda: resolve_sources(str(folder)))
    remote = images_of(f"file://{folder}", never)
    assert [(image.number, image.name) for image in remote] == [(1, "a/a.png"), (2, "a/z.JPG"), (3, "b.png")]
    assert [(image.number, image.name) for image in local] == [(image.number, image.name) for image in remote]
    assert all(image.is_remote and image.shown == image.location for image in remote)
    assert [image.location for image in local] == [str(folder / image.name) for image in local]
    (one,) = images_of(f"file://{folder}/b.png", never)
    assert one.name == "b.png" and one.number == 1


def test_local_paths_are_whole_but_said_as_they_were_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    first, *_rest = images_of("images", lambda: resolve_sources("images"))
    assert first.shown == "images/a/a.png" and os.path.isabs(first.location)


def test_a_table_of_paths(folder: Path) -> None:
    rows = ["images/b.png", "images/a/a.png", "images/b.png"]
    found = images_of(str(table(folder.parent / "list.parquet", path=rows, label=[1, 2, 3])), never)
    assert [(image.name, image.location) for image in found] == [
        ("a/a.png", str(folder / "a" / "a.png")),
        ("b.png", str(folder / "b.png")),
    ]
    urls = [f"s3://bucket/x/{name}" for name in ("q//1.png", "p/2.png?version=3", "../3.png")]
    listed = images_of(str(table(folder.parent / "urls.parquet", url=urls)), never)
    assert [image.name for image in listed] == ["../3.png", "p/2.png?version=3", "q//1.png"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"file": ["a.png"]}, "its columns are file"),
        ({"image": [b"\x89PNG"]}, "Images inside of the file are not read"),
        ({"path": [None]}, "is no path"),
        ({"path": [3]}, "is no path"),
        ({"path": ["s3://bucket/a.png", "b.png"]}, "both paths and URLs"),
        ({"path": ["s3://bucket/a.png", "gs://bucket/a.png"]}, "URLs of gs and s3"),
    ],
)
def test_tables_that_list_no_images(columns: dict[str, list[Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        images_of(str(table(tmp_path / "list.parquet", **columns)), never)


def test_what_is_not_there_or_no_table(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra ray is not installed")
    (tmp_path / "text.parquet").write_text("path\na.png")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "note.md").write_text("no image")
    for source, words in [
        (str(tmp_path / "none.parquet"), "not a Parquet file"),
        (str(tmp_path / "text.parquet"), "not a Parquet file"),
        (f"file://{tmp_path}/nothing", "nothing is there"),
        (f"file://{tmp_path}/bare", "no images"),
        ("nosuchstore://a/b.parquet", "Protocol not known"),
        ("nosuchstore://a/b", "cannot be opened"),
    ]:
        with pytest.raises(UsageError, match=words):
            images_of(source, never)


def test_a_table_whose_texts_are_no_texts(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffers = [None, pyarrow.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0])), pyarrow.py_buffer(b"\xff\xfe")]
    parquet.write_table(pyarrow.table({"path": pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)}), tmp_path / "l.parquet")
    with pytest.raises(UsageError, match="can't decode"):
        images_of(str(tmp_path / "l.parquet"), never)


def test_a_store_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="the extra ray is not installed")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for source in ("s3://bucket/list.parquet", "s3://bucket/scans"):
        with pytest.raises(MissingPackageError, match="s3fs"):
            images_of(source, never)


def test_a_full_disk_is_not_the_fault_of_an_image(folder: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        fetch(f"file://{folder}/b.png", tmp_path / "full.png")


def test_an_object_is_fetched_whole_or_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(f"file://{folder}/b.png", tmp_path / "deep" / "b.png")
    assert (tmp_path / "deep" / "b.png").read_bytes() == (folder / "b.png").read_bytes()
    with pytest.raises(ImageError, match="cannot be read"):
        fetch(f"file://{folder}/none.png", tmp_path / "none.png")
    monkeypatch.setattr(fetching, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="larger than"):
        fetch(f"file://{folder}/b.png", tmp_path / "large.png")


def test_a_store_that_fails_now_and_then_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Store:
        tries = 0

        def open(self, url: str, mode: str) -> Any:
            self.tries += 1
            if self.tries < 3:
                raise OSError("connection reset")
            return (tmp_path / "source").open(mode)

    store = Store()
    (tmp_path / "source").write_bytes(b"pixels")
    monkeypatch.setattr(fetching, "fsspec_module", lambda: store)
    monkeypatch.setattr(fetching.time, "sleep", lambda _seconds: None)
    fetch("s3://bucket/a.png", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"pixels" and store.tries == 3
    store.tries = -9
    with pytest.raises(ImageError, match="connection reset"):
        fetch("s3://bucket/a.png", tmp_path / "target")


def test_names_of_signed_urls_hold_no_signature(tmp_path: Path) -> None:
    urls = [f"https://who:secret@store.example/x/{name}.png?X-Signature=ab/c{name}#part" for name in "ab"]
    found = images_of(str(table(tmp_path / "urls.parquet", url=urls)), never)
    assert [(image.name, image.shown, image.location) for image in found] == [
        (f"{name}.png", f"https://store.example/x/{name}.png", url) for name, url in zip("ab", urls, strict=True)
    ]
    pages = [f"https://store.example/get?image={name}" for name in "ab"]
    listed = images_of(str(table(tmp_path / "pages.parquet", url=pages)), never)
    assert [image.name for image in listed] == ["get?image=a", "get?image=b"], "nothing else tells them apart"


def test_the_name_of_one_signed_url_holds_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = "https://store.example/x/a.png?X-Signature=ab/c"

    class Web:
        def find(self, root: str) -> list[str]:
            return [root]

    monkeypatch.setattr(sources, "file_system", lambda url: (Web(), url))
    (one,) = images_of(signed, never)
    assert (one.name, one.shown, one.location) == ("a.png", "https://store.example/x/a.png", signed)


def test_failures_of_signed_urls_hold_no_signature() -> None:
    from apex_runtime.offline.block_run import _as_shown

    signed, shown = "https://b/a.png?signature=secret", "https://b/a.png"
    failure = Failure("a.png", f"/tmp/x/1/a.png: cannot be read ({signed} is gone).", f"Look at {signed}.", "unreadable")
    said = _as_shown(failure, {"a.png": Image("a.png", 1, signed, shown)}, {"a.png": "/tmp/x/1/a.png"})
    assert said.reason == f"{shown}: cannot be read ({shown} is gone)." and said.remedy == f"Look at {shown}."


SIGNED = f"https://b/a.png?signature={'a' * 300}"


def test_a_remote_image_keeps_its_name_and_stays_in_its_folder(tmp_path: Path) -> None:
    from apex_runtime.offline.block_run import _path

    for location, name in [("s3://b/5-3-4.png", "5-3-4.png"), ("s3://b/..", "image"), ("s3://b/a/", "image"), (SIGNED, "image")]:
        path = _path(Image("x", 7, location, location), tmp_path)
        assert path == tmp_path / "input" / "7" / name
