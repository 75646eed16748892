from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from satellite_sets import describe_as, write_image

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset, recognise
from apex_runtime.data.scenes.georeference import LON_LAT, WEB_MERCATOR, transform, xyz_georeference
from apex_runtime.errors import DataError

TILES = ("OAM-386690-220241-19", "OAM-386691-220241-19")  # neighbours, west and east
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


def ring(box: Box) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], float)


def on_earth(tile: str, box: Box, size: int = 64) -> list:
    """A rectangle in pixels of a tile as longitude and latitude."""
    georeference = xyz_georeference(tile, size, size)
    assert georeference is not None
    return transform(georeference.to_world(ring(box)), WEB_MERCATOR, LON_LAT).tolist()


def write_geojson(path: Path, *rings: list, names: tuple[object, ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [
        {
            "type": "Feature",
            "properties": {"kind": names[n]} if names else {},
            "geometry": {"type": "Polygon", "coordinates": [points]},
        }
        for n, points in enumerate(rings)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def boxes(dataset: InstanceDataset) -> dict[str, list[list[float]]]:
    return {record.file_name: dataset.decode(n)[0].boxes.tolist() for n, record in enumerate(dataset.records)}


def faults(dataset: InstanceDataset) -> list[Fault]:
    found = [*dataset.findings, *(finding for n in range(len(dataset)) for finding in dataset.decode(n)[1])]
    return sorted(finding.fault for finding in found)


@pytest.mark.parametrize("folder", ["images", "labels", "vectors", "raw_vector", "geojson", "."])
def test_a_geojson_per_scene(tmp_path: Path, folder: str) -> None:
    for name, box in {"a": (3, 4, 20, 30), "b": (10, 10, 15, 12)}.items():
        write_image(tmp_path / f"images/{name}.tif")
        write_geojson(tmp_path / folder / f"{name}.geojson", ring(box).tolist())
    assert recognise(tmp_path).kind == "satellite"
    dataset = open_dataset(tmp_path, "train")
    assert boxes(dataset) == {"a.tif": [[3, 4, 20, 30]], "b.tif": [[10, 10, 15, 12]]}
    assert [category.name for category in dataset.categories] == ["object"] and faults(dataset) == []
    assert len(dataset.annotation_files()) == 2


def test_a_geojson_per_scene_within_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_image(tmp_path / f"{split}/images/a.tif")
        write_geojson(tmp_path / f"{split}/vectors/a.geojson", ring((3, 4, 20, 30)).tolist())
    for split in ("train", "val"):
        assert list(boxes(open_dataset(tmp_path, split)).values()) == [[[3, 4, 20, 30]]]


def test_one_geojson_for_all_scenes_on_the_earth(tmp_path: Path) -> None:
    for tile in TILES:
        write_image(tmp_path / f"images/{tile}.png", 64, 64)
    across = on_earth(TILES[0], (50, 10, 70, 20))  # 14 columns in the west, 6 in the east
    sliver = on_earth(TILES[0], (30, 40, 65, 50))  # 10 square pixels in the east
    inside = on_earth(TILES[1], (20, 20, 23, 23))  # small, and whole
    write_geojson(tmp_path / "raw_vector/roofs.geojson", across, sliver, inside)
    dataset = open_dataset(tmp_path, "train")
    west, east = (boxes(dataset)[f"{tile}.png"] for tile in TILES)
    assert np.allclose(west, [[50, 10, 64, 20], [30, 40, 64, 50]], atol=1)
    assert np.allclose(east, [[0, 10, 6, 20], [20, 20, 23, 23]], atol=1)
    assert faults(dataset) == [Fault.SMALL_PIECES]
    assert len(dataset.annotation_files()) == 1


def test_a_tile_without_polygons_is_an_image_without_objects(tmp_path: Path) -> None:
    for tile in (*TILES, "OAM-1-220241-19"):
        write_image(tmp_path / f"images/{tile}.png", 64, 64)
    write_geojson(tmp_path / "roofs.geojson", on_earth(TILES[1], (5, 5, 25, 25)))
    found = boxes(open_dataset(tmp_path, "train"))
    assert [len(found[f"{tile}.png"]) for tile in (*TILES, "OAM-1-220241-19")] == [0, 1, 0]


def test_classes_come_from_a_property(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png")
    rings = [ring((n, n, n + 9, n + 9)).tolist() for n in (0, 10, 20)]
    write_geojson(tmp_path / "vectors/a.geojson", *rings, names=("tank", "roof", "tank"))
    describe_as(tmp_path, class_property="kind")
    dataset = open_dataset(tmp_path, "train")
    assert [(category.id, category.name) for category in dataset.categories] == [(1, "roof"), (2, "tank")]
    assert dataset.instances(0).labels.tolist() == [1, 0, 1]
    describe_as(tmp_path, class_property="kind", classes=[{"id": 7, "name": "tank"}])
    listed = open_dataset(tmp_path, "train", strict=False)
    assert listed.decode(0)[0].labels.tolist() == [0, 0] and faults(listed) == [Fault.UNKNOWN_CLASS]
    describe_as(tmp_path, classes=["roof", "tank"])
    with pytest.raises(DataError, match="which of the classes roof, tank"):
        open_dataset(tmp_path, "train")


def test_every_fault_is_found_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"images/{name}.png")
    good, outside = ring((3, 4, 20, 30)).tolist(), ring((100, 100, 120, 120)).tolist()
    bent, thin = [[1, 1], [2, 2]], ring((5.51, 5.51, 5.52, 5.52)).tolist()
    write_geojson(tmp_path / "vectors/a.geojson", good, outside, bent, thin)
    write_geojson(tmp_path / "vectors/b.geojson", good)
    dataset = open_dataset(tmp_path, "train", "satellite", strict=False)
    # c has no file of its own, and none is common to all
    expected = [Fault.BOX_OUTSIDE, Fault.DEGENERATE_POLYGON, Fault.EMPTY_MASK, Fault.MISSING_MASK]
    assert faults(dataset) == sorted(expected)
    assert {name: len(found) for name, found in boxes(dataset).items()} == {"a.png": 1, "b.png": 1}


def test_polygons_common_to_scenes_that_lie_nowhere_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"images/{name}.png")
    write_geojson(tmp_path / "roofs.geojson", ring((3, 4, 20, 30)).tolist())
    dataset = open_dataset(tmp_path, "train", "satellite", strict=False)
    assert len(dataset) == 0 and faults(dataset) == [Fault.MALFORMED] * 2


def test_which_of_several_files_is_read_is_never_guessed(tmp_path: Path) -> None:
    for tile in TILES:
        write_image(tmp_path / f"images/{tile}.png", 64, 64)
    for n, name in enumerate(("roofs", "tanks")):
        write_geojson(tmp_path / f"{name}.geojson", on_earth(TILES[n], (5, 5, 25, 25)))
    with pytest.raises(DataError, match=r"several GeoJSON files .*roofs\.geojson, tanks\.geojson"):
        open_dataset(tmp_path, "train")
    describe_as(tmp_path, polygons="tanks.geojson")
    assert [len(found) for found in boxes(open_dataset(tmp_path, "train")).values()] == [0, 1]
    describe_as(tmp_path, polygons=["roofs.geojson", "tanks.geojson"])
    assert [len(found) for found in boxes(open_dataset(tmp_path, "train")).values()] == [1, 1]


@pytest.mark.parametrize("name", ["roofs", TILES[0]])
def test_polygons_far_from_every_scene_are_told_once(tmp_path: Path, name: str) -> None:
    for tile in TILES[: 2 if name == "roofs" else 1]:
        write_image(tmp_path / f"images/{tile}.png", 64, 64)
    write_geojson(tmp_path / f"vectors/{name}.geojson", ring((-70.1, -30.1, -70, -30)).tolist())
    dataset = open_dataset(tmp_path, "train", strict=False)
    assert len(dataset) == 0 and faults(dataset) == [Fault.MALFORMED]
    with pytest.raises(DataError, match="meet no scene"):
        open_dataset(tmp_path, "train")
    describe_as(tmp_path, coordinates="geographic")  # then nothing is near, and that is all
    assert all(found == [] for found in boxes(open_dataset(tmp_path, "train", strict=False)).values())


def test_pixels_may_be_asked_for_where_scenes_lie_on_the_earth(tmp_path: Path) -> None:
    write_image(tmp_path / f"images/{TILES[0]}.png", 64, 64)
    write_geojson(tmp_path / f"images/{TILES[0]}.geojson", ring((3, 4, 20, 30)).tolist())
    for options in ({}, {"coordinates": "pixel"}):
        describe_as(tmp_path, **options)
        assert list(boxes(open_dataset(tmp_path, "train")).values()) == [[[3, 4, 20, 30]]]


def test_windows_of_polygons_join_to_the_scene(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", 90, 120)
    triangle = [[5.5, 80.0], [110.0, 75.0], [60.0, 4.0], [5.5, 80.0]]
    write_geojson(tmp_path / "vectors/a.geojson", triangle)
    whole = open_dataset(tmp_path, "train").instances(0).masks[0]
    assert whole is not None
    reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([np.array(triangle).ravel().tolist()], 90, 120)))
    assert np.array_equal(whole.full(90, 120), reference)
    describe_as(tmp_path, window=40, overlap=7, min_piece=0)
    dataset = open_dataset(tmp_path, "train")
    joined = np.zeros((90, 120), np.uint8)
    for n, record in enumerate(dataset.records):
        x, y = (int(value) for value in record.file_name.removesuffix(".png").partition("@")[2].split("_"))
        for mask in dataset.instances(n).masks:
            assert mask is not None
            joined[y : y + record.height, x : x + record.width] |= mask.full(record.height, record.width)
    assert np.array_equal(joined, reference)


def test_geotiff_in_utm_against_rasterio(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio (the extra geo) is not installed")
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    left, top = 400_000.0, 3_050_000.0
    profile = {"driver": "GTiff", "crs": "EPSG:32645", "count": 3, "dtype": "uint8", "height": 300, "width": 400}
    (tmp_path / "images").mkdir()
    for name, shift in (("train/a", 0), ("val/b", 300), ("test/c", 900)):  # b overlaps a in its last 100 columns
        (tmp_path / f"images/{name}").parent.mkdir()
        grid = rasterio.Affine(0.5, 0, left + shift / 2, 0, -0.5, top)
        with rasterio.open(tmp_path / f"images/{name}.tif", "w", transform=grid, **profile) as scene:
            scene.write(np.random.default_rng(shift).integers(0, 256, (3, 300, 400), np.uint8))
    corners = np.array([(40, 30), (220, 80), (180, 260), (60, 200), (40, 30)], float)
    shape = {"type": "Polygon", "coordinates": [[(left + x / 2, top - y / 2) for x, y in corners]]}
    lonlat = transform_geom("EPSG:32645", "EPSG:4326", shape)["coordinates"][0]
    write_geojson(tmp_path / "roofs.geojson", [list(point) for point in lonlat])
    dataset = open_dataset(tmp_path, "train", "satellite", strict=False)
    found = dataset.instances(0).masks
    reference = rasterize([shape], out_shape=(300, 400), transform=rasterio.Affine(0.5, 0, left, 0, -0.5, top))
    assert len(found) == 1 and found[0] is not None
    full = found[0].full(300, 400)
    assert (full & reference).sum() / (full | reference).sum() > 0.98
    assert [finding.message for finding in dataset.findings] == ["30000 pixels of this scene (train) are also in val/b.tif (val)"]
    assert [len(open_dataset(tmp_path, split, "satellite").instances(0)) for split in ("val", "test")] == [0, 0]


def test_degrees_for_a_scene_that_lies_nowhere_are_refused(tmp_path: Path) -> None:
    """Read as pixels they would be specks, and the image would count as one without objects."""
    write_image(tmp_path / "images/a.png", 64, 64)
    degrees = ring((25.5197, 27.6327, 25.5199, 27.6329)).tolist()
    write_geojson(tmp_path / "vectors/a.geojson", degrees)
    with pytest.raises(DataError, match="set `coordinates`"):
        open_dataset(tmp_path, "train")
    write_geojson(tmp_path / "vectors/a.geojson")
    assert boxes(open_dataset(tmp_path, "train")) == {"a.png": []}


def test_pixels_that_several_scenes_would_share_are_refused(tmp_path: Path) -> None:
    for tile in TILES:
        write_image(tmp_path / f"images/{tile}.png", 64, 64)
    shared = write_geojson(tmp_path / "roofs.geojson", ring((3, 4, 20, 30)).tolist())
    with pytest.raises(DataError, match="in pixels of one scene"):
        open_dataset(tmp_path, "train")
    describe_as(tmp_path, coordinates="pixel", polygons=shared.name)  # as many pictures of one place
    assert list(boxes(open_dataset(tmp_path, "train")).values()) == [[[3, 4, 20, 30]]] * 2


def test_an_outline_that_crosses_itself_keeps_its_pixels(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", 64, 64)
    bow = [[10, 10], [50, 50], [50, 10], [10, 50], [10, 10]]
    write_geojson(tmp_path / "vectors/a.geojson", bow, ring((1, 1, 6, 6)).tolist())
    dataset = open_dataset(tmp_path, "train")
    reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([np.array(bow[:-1], float).ravel().tolist()], 64, 64)))
    mask = dataset.instances(0).masks[0]
    assert mask is not None and np.array_equal(mask.full(64, 64), reference) and faults(dataset) == []
