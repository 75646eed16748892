import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from apex_runtime.data.coco import CocoDataset
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, UsageError

BITS = np.zeros((20, 30), np.uint8)
BITS[5:9, 10:14] = 1
COMPRESSED = coco_mask.encode(np.asfortranarray(BITS))["counts"].decode()
FIRST_RUN = 10 * 20 + 5
SQUARE = [10, 5, 14, 5, 14, 9, 10, 9]

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "sub/a.png", "width": 30, "height": 20},
        {"id": 3, "file_name": "b.png", "width": 30, "height": 20},
    ],
    "categories": [{"id": 90, "name": "z"}, {"id": 5, "name": "a"}, {"id": 17, "name": "m"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 90, "bbox": [10, 5, 4, 4], "segmentation": [SQUARE], "area": 16.5, "iscrowd": 0},
        {
            "id": 1,
            "image_id": 7,
            "category_id": 5,
            "bbox": [10, 5, 4, 4],
            "segmentation": {"size": [20, 30], "counts": COMPRESSED},
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 17,
            "bbox": [10, 5, 4, 4],
            "iscrowd": 1,
            "segmentation": {"size": [20, 30], "counts": [FIRST_RUN, 4, 16, 4, 16, 4, 16, 4, 600 - FIRST_RUN - 64]},
        },
        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [-5, 15, 10, 99], "segmentation": []},
        {"id": 4, "image_id": 7, "category_id": 5, "bbox": [2, 2, 0, 9], "segmentation": []},
        {"id": 5, "image_id": 7, "category_id": 5, "bbox": [31, 2, 5, 9]},
        {
            "id": 6,
            "image_id": 7,
            "category_id": 5,
            "bbox": [0, 0, 14, 9],
            "segmentation": [[1, 1, 2, 2], SQUARE, [0, 0, 3, 0, 3, 2, 0, 2]],
        },
    ],
}


def lines_of(document: dict[str, list[Any]]) -> str:
    """JSON with one entry of a list per line: entry n of the first list stands on line n + 3 (from 0)."""
    lists = (f'"{key}": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]" for key, entries in document.items())
    return "{\n" + ",\n".join(lists) + "\n}\n"


def save(folder: Path, document: Any, images: bool = True) -> Path:
    path = folder / "annotations" / "train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    if images:
        (folder / "images" / "sub").mkdir(parents=True, exist_ok=True)
        for name in ("sub/a.png", "b.png"):
            cv2.imwrite(str(folder / "images" / name), np.full((20, 30, 3), (1, 2, 3), np.uint8))
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    save(tmp_path, DOCUMENT)
    return open_dataset(tmp_path, "train")


def test_records_and_categories(dataset: CocoDataset) -> None:
    assert [category.id for category in dataset.categories] == [5, 17, 90]
    assert [(record.image_id, record.file_name, record.width, record.height) for record in dataset.records] == [
        (7, "sub/a.png", 30, 20),
        (3, "b.png", 30, 20),
    ]
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset.read_image(0)[0, 0], [3, 2, 1])


def test_boxes_labels_and_masks_of_every_form(dataset: CocoDataset) -> None:
    found = dataset.instances(0)
    assert len(found) == 5
    np.testing.assert_array_equal(found.boxes[:4], [[10, 5, 14, 9]] * 3 + [[0, 15, 5, 20]])
    assert found.boxes.dtype == np.float32 and found.labels.dtype == np.int64 and found.areas.dtype == np.float32
    assert found.labels.tolist() == [2, 0, 1, 0, 0]
    assert found.crowd.tolist() == [False, False, True, False, False]
    assert found.areas.tolist() == [16.5, 16, 16, 990, 22]
    for mask in found.masks[:3]:
        assert mask is not None and (mask.x, mask.y, *mask.bits.shape) == (10, 5, 4, 4)
        np.testing.assert_array_equal(mask.full(20, 30), BITS)
    assert found.masks[3] is None
    several = found.masks[4]
    assert several is not None and several.area == 22 and (several.x, several.y) == (0, 0)


def test_an_image_without_objects(dataset: CocoDataset) -> None:
    found = dataset.instances(1)
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.masks == []
    assert found.crowd.dtype == bool and found.areas.shape == (0,)


def test_images_may_lie_in_a_folder_named_like_the_split(tmp_path: Path) -> None:
    save(tmp_path, DOCUMENT)
    (tmp_path / "images" / "train").mkdir()
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "train" / "b.png")
    assert open_dataset(tmp_path, "train").records[1].path == tmp_path / "images" / "train" / "b.png"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with the value at ``list.index.key`` replaced, or removed when it is ``...``."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def found_in(dataset: InstanceDataset) -> list[tuple[Fault, str]]:
    """Every finding of the parse and of every image."""
    found = [*dataset.findings, *(each for index in range(len(dataset)) for each in dataset.decode(index)[1])]
    return [(each.fault, each.message) for each in found]


USUAL = {  # what the document itself has: faults that cost one annotation, or nothing
    (Fault.BOX_CLIPPED, "annotation 3 (sub/a.png): bbox [-5, 15, 10, 99] goes 94 px beyond the 30x20 image"),
    (Fault.INVALID_BOX, "annotation 4 (sub/a.png): bbox [2, 2, 0, 9] is not finite or has no positive size"),
    (Fault.BOX_OUTSIDE, "annotation 5 (sub/a.png): bbox [31, 2, 5, 9] lies outside of the 30x20 image"),
    (Fault.SMALL_PIECES, "annotation 6 (sub/a.png): 1 of 3 polygons: the first has 2 distinct points, left out"),
}


def test_faults_that_cost_one_annotation_are_findings_with_their_lines(tmp_path: Path) -> None:
    path = save(tmp_path, lines_of(DOCUMENT))
    dataset = open_dataset(tmp_path, "train")
    assert set(found_in(dataset)) == USUAL and len(found_in(dataset)) == len(USUAL)
    lines = path.read_text().splitlines()
    findings = [*dataset.findings, *dataset.decode(0)[1]]
    assert [json.loads(lines[each.where.line - 1].rstrip(","))["id"] for each in findings if each.where.line] == [3, 4, 5, 6]
    assert [
        json.loads(lines[record.declared.line - 1].rstrip(","))["id"] for record in dataset.records if record.declared.line
    ] == [7, 3]
    assert all(each.where.path == path for each in findings)


def test_the_truth_for_an_evaluator_is_what_the_file_says_of_what_is_kept(dataset: CocoDataset) -> None:
    truth = dataset.ground_truth()
    given = {entry["id"]: entry for entry in DOCUMENT["annotations"]}
    assert truth["images"] == DOCUMENT["images"]
    assert truth["categories"] == sorted(DOCUMENT["categories"], key=lambda entry: entry["id"])
    assert [entry["id"] for entry in truth["annotations"]] == [0, 1, 2, 3, 6]
    for entry in truth["annotations"][:4]:
        assert given[entry["id"]].items() <= entry.items()
    assert truth["annotations"][4]["segmentation"] == given[6]["segmentation"][1:]
    assert [entry["area"] for entry in truth["annotations"]] == [16.5, 16, 16, 990, 22]


NAN = float("nan")
FAULTS: list[tuple[dict[str, Any], Fault, str, bool]] = [  # document, fault, what the message says, whether training stops
    (changed("categories.0.id", 5), Fault.DUPLICATE_ID, "category id 5 appears twice: z, a", True),
    (changed("categories.0.name", ...), Fault.MALFORMED, "a category needs an integer id and a name", True),
    (changed("images.1", "b.png"), Fault.MALFORMED, "an image needs an integer id, not b.png", True),
    (changed("images.1.id", 7), Fault.DUPLICATE_ID, "image 7 (b.png): the image id appears twice", True),
    (changed("images.1.file_name", "./sub//a.png"), Fault.DUPLICATE_ID, "image 3 (./sub//a.png): the file_name appears", True),
    (changed("images.1.width", 0), Fault.MALFORMED, "image 3 (b.png): it needs a positive width and height, not 0 and 20", True),
    (changed("images.1.width", 29.5), Fault.MALFORMED, "positive width and height, not 29.5", True),
    (changed("images.1.height", 10**9), Fault.MALFORMED, "the limit is 300 million", True),
    (changed("images.1.file_name", "../../etc/passwd"), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", "sub/../b.png"), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", "/etc/passwd"), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", "C:/b.png"), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", "..\\a.png"), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", "\ud800.png"), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", ""), Fault.MALFORMED, "that stays in the image folder", True),
    (changed("images.1.file_name", "absent.png"), Fault.MISSING_IMAGE, "image 3 (absent.png): not found in", True),
    (changed("annotations.0", [1]), Fault.MALFORMED, "annotation: it needs an integer id, not [1]", True),
    (changed("annotations.0.id", True), Fault.MALFORMED, "it needs an integer id, not True", True),
    (changed("annotations.0.category_id", 6), Fault.UNKNOWN_CLASS, "annotation 0 (sub/a.png): unknown category 6", True),
    (changed("annotations.0.category_id", [90]), Fault.UNKNOWN_CLASS, "unknown category [90]", True),
    (changed("annotations.0.image_id", 99), Fault.MALFORMED, "annotation 0: unknown image_id 99", True),
    (changed("annotations.0.image_id", {}), Fault.MALFORMED, "annotation 0: unknown image_id {}", True),
    (changed("annotations.1.id", 0), Fault.DUPLICATE_ID, "annotation 0 (sub/a.png): the annotation id appears twice", True),
    (changed("annotations.0.iscrowd", "no"), Fault.MALFORMED, "iscrowd is no, not 0 or 1", True),
    (changed("annotations.3.bbox", ...), Fault.MALFORMED, "bbox is None, not [x, y, width, height]", True),
    (changed("annotations.0.bbox", [1, 2, 3]), Fault.MALFORMED, "bbox is [1, 2, 3], not [x, y, width, height]", True),
    (changed("annotations.0.bbox", [1, 2, 3, "4"]), Fault.MALFORMED, "not [x, y, width, height]", True),
    (changed("annotations.0.bbox", [1, 2, 3, NAN]), Fault.INVALID_BOX, "bbox [1, 2, 3, nan] is not finite", False),
    (changed("annotations.0.bbox", [1, 2, 3, -4]), Fault.INVALID_BOX, "has no positive size", False),
    (changed("annotations.0.bbox", [-float("inf"), 2, 3, 4]), Fault.INVALID_BOX, "bbox [-inf, 2, 3, 4]", False),
    (changed("annotations.0.bbox", [1, 2, 3, 10**400]), Fault.INVALID_BOX, "is not finite", False),
    (changed("annotations.0.bbox", [-9, 2, 9, 4]), Fault.BOX_OUTSIDE, "lies outside of the 30x20 image", False),
    (changed("annotations.0.segmentation", [[1, 2, 3]]), Fault.MALFORMED, "a polygon has 3 numbers", True),
    (changed("annotations.0.segmentation", SQUARE), Fault.MALFORMED, "neither polygons (lists of numbers) nor an RLE", True),
    (changed("annotations.0.segmentation", [["a"] * 6]), Fault.MALFORMED, "neither polygons (lists of numbers) nor an RLE", True),
    (changed("annotations.0.segmentation", "abc"), Fault.MALFORMED, "neither polygons nor an RLE", True),
    (changed("annotations.0.segmentation", [[10, 5, 14, 9]]), Fault.DEGENERATE_POLYGON, "has 2 distinct points", False),
    (changed("annotations.0.segmentation", [[1, 1] * 4]), Fault.DEGENERATE_POLYGON, "has 1 distinct points", False),
    (changed("annotations.0.segmentation", [[1, 1, 2, 2, 9, 9, 4, 4]]), Fault.DEGENERATE_POLYGON, "lie on one line", False),
    (changed("annotations.0.segmentation", [[1, 1, 5, NAN, 9, 2]]), Fault.DEGENERATE_POLYGON, "not finite", False),
    (changed("annotations.0.segmentation", [[1, 1, 5, 10**400, 9, 2]]), Fault.DEGENERATE_POLYGON, "not finite", False),
    (changed("annotations.0.segmentation", [[40, 5, 50, 5, 50, 9]]), Fault.EMPTY_MASK, "fills no pixel of the image", False),
    (changed("annotations.0.segmentation", [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]]), Fault.EMPTY_MASK, "fills no pixel", False),
    (
        changed("annotations.1.segmentation.size", [30, 20]),
        Fault.MALFORMED,
        "the RLE has the size [30, 20], the image is 30x20",
        True,
    ),
    (changed("annotations.1.segmentation.counts", None), Fault.MALFORMED, "the RLE has no counts", True),
    (changed("annotations.1.segmentation.counts", [600, 5]), Fault.MALFORMED, "run lengths cover 605 pixels", True),
    (changed("annotations.1.segmentation.counts", [10**30]), Fault.MALFORMED, "broken RLE", True),
    (changed("annotations.1.segmentation.counts", [-5, 605]), Fault.MALFORMED, "negative run length", True),
    (changed("annotations.1.segmentation.counts", "0p"), Fault.MALFORMED, "broken RLE: not a compressed", True),
    (changed("annotations.1.segmentation.counts", [600]), Fault.EMPTY_MASK, "the RLE has no pixel", False),
]


@pytest.mark.parametrize(("document", "fault", "message", "stops"), FAULTS)
def test_every_fault_is_found_named_and_left_out(
    document: dict[str, Any], fault: Fault, message: str, stops: bool, tmp_path: Path
) -> None:
    """Read leniently, the faulty entry alone is missing; strictly, the fault stops the opening or the reading, or costs it."""
    save(tmp_path, document)
    lenient = open_dataset(tmp_path, "train", strict=False)
    assert [text for kind, text in found_in(lenient) if kind is fault and message in text]
    assert fault.is_error and fault.stops_training is stops
    kept = sum(len(lenient.decode(index)[0]) for index in range(len(lenient)))
    assert kept == len(lenient.ground_truth()["annotations"])
    if stops:
        with pytest.raises(DataError, match="preflight"):
            open_dataset(tmp_path, "train").instances(0)
    else:
        assert kept == 4 and len(open_dataset(tmp_path, "train").instances(0)) == 4


def test_one_fault_makes_no_others(tmp_path: Path) -> None:
    """Annotations of an image that is faulty or missing are not reported for it."""
    save(tmp_path, changed("images.0.width", -1))
    dataset = open_dataset(tmp_path, "train", strict=False)
    assert [kind for kind, _ in found_in(dataset)] == [Fault.MALFORMED] and len(dataset) == 1


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "not valid JSON at line 1, column 2"),
        ("[]", "expected an object"),
        ({"images": [], "annotations": []}, "no list categories"),
        (changed("images", []), "list of images is empty"),
        (changed("categories", []), "list of categories is empty"),
        (changed("categories", [{"id": 1}]), "a category needs an integer id and a name"),
        ({**DOCUMENT, "images": [3]}, "an image needs an integer id, not 3"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_opened_is_refused(document: Any, reason: str, strict: bool, tmp_path: Path) -> None:
    path = save(tmp_path, document)
    with pytest.raises(DataError, match=reason) as caught:
        open_dataset(tmp_path, "train", strict=strict)
    assert str(path) in str(caught.value) and caught.value.remedy


def test_many_offenders_are_counted_and_the_first_named(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["images"] += [{"id": 100 + i, "file_name": f"no{i}.png", "width": 9, "height": 9} for i in range(7)]
    path = save(tmp_path, lines_of(document))
    with pytest.raises(DataError, match=r"image 100 \(no0.png\): not found in .*no1.png.*no2.png.* \(and 4 more\)") as caught:
        open_dataset(tmp_path, "train")
    assert f"{path}:5: image 100" in str(caught.value)


@pytest.mark.parametrize("box", [[0, 0, 30.9, 20.5], [-0.9, -1, 5, 5], [29, 19, 2, 2]])
def test_a_box_rounded_to_the_next_pixel_is_no_warning(box: list[float], tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.0.bbox", box))
    assert set(found_in(open_dataset(tmp_path, "train"))) == USUAL


@pytest.mark.parametrize("segmentation", [[], [[]], None, ...])
def test_an_object_with_a_box_only(segmentation: Any, tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.0.segmentation", segmentation))
    dataset = open_dataset(tmp_path, "train")
    assert dataset.instances(0).masks[0] is None and set(found_in(dataset)) == USUAL
    assert dataset.ground_truth()["annotations"][0]["segmentation"] == []


@pytest.mark.parametrize("entry", [0, 1, 2])
def test_a_box_that_is_absent_is_that_of_the_mask(entry: int, tmp_path: Path) -> None:
    save(tmp_path, changed(f"annotations.{entry}.bbox", ...))
    dataset = open_dataset(tmp_path, "train")
    np.testing.assert_array_equal(dataset.instances(0).boxes[entry], [10, 5, 14, 9])
    assert dataset.ground_truth()["annotations"][entry]["bbox"] == [10, 5, 4, 4] and set(found_in(dataset)) == USUAL


@pytest.mark.parametrize("area", ["big", None, -3, 0, NAN])
def test_an_area_that_is_none_is_that_of_the_mask(area: Any, tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.0.area", area))
    assert open_dataset(tmp_path, "train").instances(0).areas[0] == 16


def test_crossing_outlines_have_an_area(tmp_path: Path) -> None:
    """The signed area of a bow tie is 0; pycocotools fills it all the same."""
    bow = [2, 2, 12, 12, 12, 2, 2, 12]
    save(tmp_path, changed("annotations.0.segmentation", [bow]))
    mask = open_dataset(tmp_path, "train").instances(0).masks[0]
    assert mask is not None and mask.area == coco_mask.area(coco_mask.frPyObjects([bow], 20, 30)[0]) > 0


def test_outlines_far_beyond_the_image_fill_its_part(tmp_path: Path) -> None:
    """Coordinates that pycocotools could not walk along: half of the image, to a pixel, and no memory."""
    far = 1e12
    save(tmp_path, changed("annotations.0.segmentation", [[15, -far, far, -far, far, far, 15, far]]))
    mask = open_dataset(tmp_path, "train").instances(0).masks[0]
    assert mask is not None and (mask.x, mask.y, mask.bits.shape) == (15, 0, (20, 15)) and mask.area == 300


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data folder not found"):
        open_dataset(tmp_path / "absent", "train")
    save(tmp_path, DOCUMENT, images=False)
    with pytest.raises(DataError, match=r"none of its 2 images is there, the first is image 7 .* looked in .*images,"):
        open_dataset(tmp_path, "train")
    with pytest.raises(UsageError, match="Splits found: train"):
        open_dataset(tmp_path, "test")


def test_an_image_of_another_size_is_refused(dataset: CocoDataset) -> None:
    cv2.imwrite(str(dataset.records[0].path), np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(DataError, match=r"the image is 20x30, .* says 30x20"):
        dataset.read_image(0)


def assert_equals_pycocotools(dataset: CocoDataset, images: int) -> None:
    reference = COCO(str(dataset.source))
    for index, record in enumerate(dataset.records[:images]):
        found = dataset.instances(index)
        entries = [e for e in reference.imgToAnns[record.image_id] if e["bbox"][2] > 0 and e["bbox"][3] > 0]
        assert len(found) == len(entries)
        for entry, mask in zip(entries, found.masks, strict=True):
            assert mask is not None
            np.testing.assert_array_equal(mask.full(record.height, record.width), reference.annToMask(entry))


@pytest.mark.parametrize(("split", "images", "objects"), [("train", 5, 86), ("val", 3, 61)])
def test_the_committed_images(nuclei_fixture: Path, split: str, images: int, objects: int) -> None:
    dataset = open_dataset(nuclei_fixture, split)
    assert len(dataset) == images
    assert sum(len(dataset.instances(index)) for index in range(images)) == objects
    assert all(dataset.read_image(index).std() > 0 for index in range(images))
    assert_equals_pycocotools(dataset, images)


@pytest.mark.parametrize("name", ["nuclei-dsb2018", "coco-mini", "satellite-banepa", "satellite-dubai"])
def test_masks_of_the_large_sets_equal_pycocotools(shared_data: Path, name: str) -> None:
    dataset = open_dataset(shared_data / name, "val", "coco")
    assert_equals_pycocotools(dataset, 15)
    assert dataset.read_image(0).shape[2] == 3
