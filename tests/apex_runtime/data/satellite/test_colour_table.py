from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from apex_runtime.data.satellite.colour_table import (
    Classes,
    ColourTable,
    Entry,
    build_table,
    parse_colour,
    read_classes,
    show_code,
)
from apex_runtime.data.satellite.description import describe
from apex_runtime.data.satellite.mask_classes import infer_table
from apex_runtime.data.satellite.mask_picture import MaskPicture, decode_mask, mask_size
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category

ROOF, ROAD = (60, 16, 152), (110, 193, 228)


def png(depth: int, kind: int, rows: list[bytes], width: int, palette: bytes = b"", alpha: bytes = b"") -> bytes:
    """A PNG written by hand: the decoder under test is not the one that encodes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    extra = (chunk(b"PLTE", palette) if palette else b"") + (chunk(b"tRNS", alpha) if alpha else b"")
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + extra
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def table(
    classes: list[Entry], ignore: list[Entry] | None = None, regions: tuple[str, ...] = (), tolerance: int = 0
) -> ColourTable:
    return build_table(Classes(classes=tuple(classes), ignore=tuple(ignore or [])), regions, tolerance, Path("classes.json"))


def labels_of(colours: ColourTable, picture: MaskPicture) -> np.ndarray:
    labels = np.full(picture.pixels.shape[:2], -1)
    for label, pixels in colours.class_masks(picture):
        labels[pixels > 0] = label
    return labels


def test_rgb_and_palette_png_give_the_same_labels(tmp_path: Path) -> None:
    colours = table([Entry(name="roof", color=ROOF), Entry(name="road", color=ROAD)], [Entry(name="none", color=(155, 155, 155))])
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = [(155, 155, 155), ROOF, ROAD]
    rgb = np.array(palette, np.uint8)[indices]
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[:, :, ::-1])
    (tmp_path / "palette.png").write_bytes(
        png(8, 3, [bytes(row) for row in indices], 3, bytes(np.array(palette, np.uint8).ravel()))
    )
    for name in ("rgb.png", "palette.png"):
        picture = decode_mask(tmp_path / name)
        assert labels_of(colours, picture).tolist() == [[-1, 0, 1], [1, 0, -1]]
        assert colours.unknown(picture) == []
    assert decode_mask(tmp_path / "palette.png").palette == tuple(palette)


def test_alpha_changes_no_colour(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :2, :3] = ROOF[::-1]  # invisible, and still the colour that was written
    cv2.imwrite(str(tmp_path / "a.png"), rgba)
    colours = table([Entry(name="roof", color=ROOF)])
    assert labels_of(colours, decode_mask(tmp_path / "a.png")).tolist() == [[0, 0, -1, -1]] * 4
    palette = bytes([0, 0, 0, *ROOF])
    (tmp_path / "b.png").write_bytes(png(8, 3, [bytes([0, 1])], 2, palette, alpha=bytes([0, 0])))
    assert labels_of(colours, decode_mask(tmp_path / "b.png")).tolist() == [[-1, 0]]


def test_orientation_does_not_turn_a_mask(tmp_path: Path) -> None:
    ok, data = cv2.imencode(".jpg", np.zeros((20, 30), np.uint8))
    assert ok
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    raw = data.tobytes()
    (tmp_path / "a.jpg").write_bytes(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:])
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (30, 20, 3)  # what a viewer shows
    assert decode_mask(tmp_path / "a.jpg").pixels.shape == (20, 30) == mask_size(tmp_path / "a.jpg")


@pytest.mark.parametrize(("depth", "row", "values"), [(1, 0b01000000, [0, 255]), (2, 0b01110000, [1, 3]), (4, 0x5C, [5, 12])])
def test_packed_grey_keeps_its_values(tmp_path: Path, depth: int, row: int, values: list[int]) -> None:
    (tmp_path / "a.png").write_bytes(png(depth, 0, [bytes([row])], 2))
    assert decode_mask(tmp_path / "a.png").pixels.tolist() == [values]


def test_whole_numbers_of_any_type(tmp_path: Path) -> None:
    values = np.array([[0, 3], [700, 65535]], np.float32)
    for name, pixels in {"u16.png": values.astype(np.uint16), "f32.tif": values, "i32.tif": values.astype(np.int32)}.items():
        cv2.imwrite(str(tmp_path / name), pixels)
        assert decode_mask(tmp_path / name).pixels.tolist() == values.astype(int).tolist(), name
    cv2.imwrite(str(tmp_path / "half.tif"), values + 0.5)
    with pytest.raises(ValueError, match="no whole numbers"):
        decode_mask(tmp_path / "half.tif")


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not an image"):
        decode_mask(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(8, 0, [bytes([0, 1])], 2)[:-20])
    with pytest.raises(ValueError, match="truncated"):
        decode_mask(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint16))
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode_mask(tmp_path / "a.png")


def test_colours_in_no_list_are_counted() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0], pixels[1, :3], pixels[2, 0] = ROOF, (1, 2, 3), (9, 9, 9)
    assert table([Entry(name="roof", color=ROOF)]).unknown(MaskPicture(pixels)) == [((1, 2, 3), 3), ((9, 9, 9), 1)]


def test_a_tolerance_takes_the_shades_of_a_jpeg(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    cv2.circle(mask, (32, 32), 20, 255, -1)
    cv2.imwrite(str(tmp_path / "a.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 80])
    entries = [Entry(name="disc", color=(255, 255, 255))]
    picture = decode_mask(tmp_path / "a.jpg")
    assert table(entries).unknown(picture)
    tolerant = table(entries, tolerance=127)
    assert tolerant.unknown(picture) == []
    found = labels_of(tolerant, picture) == 0
    assert (found & (mask > 0)).sum() / (found | (mask > 0)).sum() > 0.98
    with pytest.raises(DataError, match="colour_tolerance 30"):
        table([Entry(name="a", color=(10, 10, 10)), Entry(name="b", color=(60, 60, 60))], tolerance=30)


def test_grey_masks_fit_tables_of_colours_and_of_values() -> None:
    picture = MaskPicture(np.array([[0, 255, 128]], np.uint8))
    white, value = Entry(name="a", color=(255, 255, 255)), Entry(name="a", value=255)
    for entry in (white, value):
        assert labels_of(table([entry]), picture).tolist() == [[-1, 0, -1]]
    assert table([white]).unknown(picture) == [(128, 1)]


def test_values_mean_palette_indices_where_there_is_a_palette() -> None:
    palette = ((0, 0, 0), ROOF, ROAD, ROAD)
    picture = MaskPicture(np.array([palette], np.uint8), palette)
    assert labels_of(table([Entry(name="a", value=2), Entry(name="b", value=1)]), picture).tolist() == [[-1, 1, 0, 0]]
    with pytest.raises(ValueError, match="one colour in the palette"):
        labels_of(table([Entry(name="a", value=2), Entry(name="b", value=3)]), picture)


def test_ignore_is_background_unless_asked_to_be_a_region() -> None:
    picture = MaskPicture(np.array([[0, 1, 7]], np.uint8))
    ignore = [Entry(name="nothing", value=0), Entry(name="cloud", value=7)]
    plain, asked = table([Entry(name="a", value=1)], ignore), table([Entry(name="a", value=1)], ignore, ("cloud",))
    assert plain.region_mask(picture).max() == 0 and plain.unknown(picture) == []
    assert asked.region_mask(picture).tolist() == [[0, 0, 255]] and asked.unknown(picture) == []
    with pytest.raises(DataError, match="ignore_regions names rain"):
        table([Entry(name="a", value=1)], ignore, ("rain",))


def test_classes_of_a_file_are_sorted_by_id_and_further_keys_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    classes = [{"id": 7, "name": "road", "color": [1, 2, 3], "isthing": 0}, {"id": 2, "name": "roof", "color": "#3C1098"}]
    path.write_text(json.dumps({"classes": classes, "ignore": [{"name": "x", "color": "000000"}], "note": "y"}))
    found = build_table(read_classes(path), [], 0, path)
    assert found.categories == (Category(id=2, name="roof"), Category(id=7, name="road"))
    assert found.codes == (ROOF, (1, 2, 3)) and found.background == ((0, 0, 0),)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected an object"),
        ({"class": []}, "no list 'classes'"),
        ({"classes": [{"name": "a", "color": 101010}]}, "in quotes"),
        ({"classes": [{"name": "a", "color": "#12345G"}]}, "in quotes"),
        ({"classes": [{"name": "a", "color": "#123456", "value": 1}]}, "both color and value"),
        ({"classes": [{"name": "a", "value": 1}, {"name": "b", "color": "#123456"}]}, "colors and values in one table"),
        ({"classes": [{"name": "a", "value": 1}, {"name": "a", "value": 2}]}, "names appear twice"),
        ({"classes": [{"name": "a", "value": 1}, {"name": "b", "value": 1}]}, "one color or value"),
        ({"classes": [{"id": 1, "name": "a"}, {"name": "b"}]}, "some classes have an id"),
        ({"classes": ["a"]}, "valid dictionary"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, document: object, message: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_classes(path)


def test_a_table_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('{"classes": ' + "[" * 200_000)
    with pytest.raises(DataError, match=r"nested too deeply"):
        read_classes(tmp_path / "classes.json")


def test_a_class_without_a_colour_decodes_no_mask() -> None:
    with pytest.raises(DataError, match="no color or value of the classes b"):
        table([Entry(name="a", value=1), Entry(name="b")])


def write(folder: Path, **masks: np.ndarray) -> list[Path]:
    for name, pixels in masks.items():
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
    return sorted(folder.glob("*.png"))


@pytest.mark.parametrize("value", [1, 255])
def test_binary_masks_need_no_table(tmp_path: Path, value: int) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[1] = value
    found = infer_table(write(tmp_path, a=mask, b=np.zeros((4, 4), np.uint8), c=np.full((2, 2, 3), value, np.uint8)))
    assert found.categories == (Category(id=1, name="object"),) and found.codes == (value,)


def test_small_values_and_palette_indices_are_classes(tmp_path: Path) -> None:
    paths = write(tmp_path, a=np.array([[0, 1, 3]], np.uint8))
    palette = bytes([0, 0, 0, *ROOF, *ROAD])
    (tmp_path / "p.png").write_bytes(png(8, 3, [bytes([0, 1, 2])], 3, palette))
    found = infer_table([*paths, tmp_path / "p.png"])
    assert [category.id for category in found.categories] == [1, 2, 3] and found.codes == (1, 2, 3)
    assert labels_of(found, decode_mask(tmp_path / "p.png")).tolist() == [[-1, 0, 1]]


def test_masks_that_explain_nothing_are_refused_with_the_table_to_write(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = ROOF[::-1]
    paths = write(tmp_path, a=pixels)
    with pytest.raises(DataError) as caught:
        infer_table(paths)
    assert "#000000 (12 pixels), #3C1098 (4 pixels)" in caught.value.message
    proposal = json.loads(caught.value.remedy.partition(": ")[2])
    (tmp_path / "classes.json").write_text(json.dumps(proposal))
    written = build_table(read_classes(tmp_path / "classes.json"), [], 0, tmp_path)
    assert written.codes == (ROOF,) and written.background == ((0, 0, 0),)
    grey = write(tmp_path, a=np.array([[0, 1, 2, 255]], np.uint8))
    with pytest.raises(DataError, match="255 \\(1 pixels\\)"):
        infer_table(grey)


def test_masks_without_an_object_are_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every pixel of every mask is 0"):
        infer_table(write(tmp_path, a=np.zeros((4, 4), np.uint8)))


def test_masks_saved_as_jpeg_are_told_how_they_can_be_read(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[7:19, 5:26] = 255
    cv2.imwrite(str(tmp_path / "a.jpg"), mask)
    with pytest.raises(DataError, match="saved as JPEG") as caught:
        infer_table([tmp_path / "a.jpg"])
    told = [part for part in caught.value.remedy.split("`") if part.startswith(("classes", "colour_tolerance"))]
    (tmp_path / "satellite.yaml").write_text("\n".join(told))
    options = describe(tmp_path).options
    table = build_table(Classes(classes=options.classes), [], options.colour_tolerance, tmp_path)
    assert np.array_equal(labels_of(table, decode_mask(tmp_path / "a.jpg")) == 0, mask > 0)


def test_colours_are_written_as_they_are_read() -> None:
    assert parse_colour(show_code(ROOF)) == ROOF == parse_colour(list(ROOF)) == parse_colour("3c1098")
