from __future__ import annotations

import pickle
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apex_runtime.data.image import Scaling, percentile_scaling, read_picture
from apex_runtime.data.scenes import scene as scenes
from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.data.scenes.windows import Window, windows
from apex_runtime.errors import ImageError


def write_tiff(path: Path, bands: np.ndarray, **options: Any) -> Path:
    """Bands [c,h,w] as a tiled GeoTIFF."""
    rasterio = pytest.importorskip("rasterio")
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.write(bands)
    return path


def check_windows(path: Path) -> None:
    """Windows are the crops of the whole read, with its scaling."""
    scene = open_scene(path)
    whole = scene.read()
    assert whole.pixels.shape == (scene.height, scene.width, 3)
    for window in windows(scene.height, scene.width, 120, 30):
        part = scene.read(window)
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        assert np.array_equal(part.pixels, whole.pixels[rows, columns]) and part.scaling == whole.scaling


@pytest.mark.parametrize("whole", [scenes._WHOLE, 1])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_rasterio_reads_what_the_decoder_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int, dtype: str, count: int
) -> None:
    top = 250 if dtype == "uint8" else 4000
    bands = np.random.default_rng(count).integers(0, top, (count, 700, 900)).astype(dtype)
    photometric = {} if count == 1 else {"photometric": "rgb"}
    path = write_tiff(tmp_path / "a.tif", bands, interleave="pixel", **photometric)
    monkeypatch.setattr(scenes, "_WHOLE", whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_scene(path).read()
    expected = read_picture(path)
    assert np.array_equal(found.pixels, expected.pixels) and found.scaling == expected.scaling
    check_windows(path)


@pytest.mark.parametrize("whole", [scenes._WHOLE, 1])
def test_pixels_without_data_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    """With and without windows, and in the decoder that inference uses."""
    monkeypatch.setattr(scenes, "_WHOLE", whole)
    bands = np.random.default_rng(0).integers(1000, 3000, (1, 200, 300)).astype(np.uint16)
    bands[:, :, :100] = 0
    path = write_tiff(tmp_path / "a.tif", bands, nodata=0)
    expected = percentile_scaling(bands[:, :, 100:])
    scaling = open_scene(path).read().scaling
    assert isinstance(scaling, Scaling) and scaling.low >= 1000
    assert scaling.low == pytest.approx(expected.low, abs=2) and scaling.high == pytest.approx(expected.high, abs=2)
    assert read_picture(path).scaling == scaling
    check_windows(path)


def test_real_files_read_as_the_decoder_does(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        *(shared_data / "format-samples").rglob("*.tif"),
        *sorted((shared_data / "satellite-banepa/raw_tif").glob("*.tif"))[:3],
    ]
    for whole in (scenes._WHOLE, 1):
        monkeypatch.setattr(scenes, "_WHOLE", whole)
        for file in files:
            assert np.array_equal(open_scene(file).read().pixels, read_picture(file).pixels)
            check_windows(file)


def test_without_rasterio_a_scene_beyond_the_limit_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 50, 60), np.uint8))
    monkeypatch.setattr(scenes, "has_rasterio", lambda: False)
    check_windows(path)
    monkeypatch.setattr(scenes, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"apex-x\[geo\]"):
        open_scene(path)


def test_scenes_are_pickled_and_windows_beyond_them_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 50, 60), np.uint8))
    scene = pickle.loads(pickle.dumps(open_scene(path)))
    assert scene.read(Window(10, 10, 50, 40)).pixels.shape == (40, 50, 3)
    with pytest.raises(ImageError, match="not inside"):
        scene.read(Window(11, 10, 50, 40))


def test_rasterio_is_not_imported_with_the_module() -> None:
    code = "import sys, apex_runtime.data.scenes.geojson, apex_runtime.data.scenes.scene; sys.exit('rasterio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


INVERTED = [(1, "uint8", "miniswhite"), (1, "uint16", "miniswhite")]


@pytest.mark.parametrize(("count", "dtype", "photometric"), [*INVERTED, (4, "uint16", "cmyk"), (2, "int8", "minisblack")])
def test_kinds_that_the_two_would_read_differently_are_left_to_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, dtype: str, photometric: str
) -> None:
    bands = np.random.default_rng(0).integers(0, 120, (count, 50, 60)).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", bands, photometric=photometric, interleave="pixel")
    monkeypatch.setattr(scenes, "_WHOLE", 1)
    try:
        expected = read_picture(path)
    except ImageError:
        with pytest.raises(ImageError):
            open_scene(path).read()
        return
    found = open_scene(path).read()
    assert np.array_equal(found.pixels, expected.pixels) and found.scaling == expected.scaling


def test_windows_of_a_large_scene_never_decode_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.arange(4000, dtype=np.uint16)[:, None], np.arange(5000, dtype=np.uint16)[None]
    place = (x % 256, y % 256, x // 256 + 16 * (y // 256))
    bands = np.stack([np.broadcast_to(band.astype(np.uint8), (4000, 5000)) for band in place])
    path = write_tiff(tmp_path / "a.tif", bands, photometric="rgb", tiled=True, crs="EPSG:32645")

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was decoded whole")

    monkeypatch.setattr(scenes, "read_picture", refuse)
    scene, seen = open_scene(path), np.zeros((4000, 5000), bool)
    for window in windows(scene.height, scene.width, 1024, 128):
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        assert np.array_equal(scene.read(window).pixels, np.moveaxis(bands[:, rows, columns], 0, 2))
        seen[rows, columns] = True
    assert seen.all()


def test_threads_decode_a_scene_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 50, 60), np.uint8))
    decoded = []

    def slowly(path: Path) -> Any:
        decoded.append(path)
        time.sleep(0.05)
        return read_picture(path)

    monkeypatch.setattr(scenes, "read_picture", slowly)
    scene = open_scene(path)
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(scene.read, [Window(x, 0, 10, 10) for x in (0, 10, 20, 30)]))
    assert len(pictures) == 4 and decoded == [path]
