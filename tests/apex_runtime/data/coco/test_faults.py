"""Every fault of a COCO file: found, named with its line, and left out or refused."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_document import DOCUMENT, SQUARE, USUAL, changed, found_in, lines_of, save
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError


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


NAN = float("nan")
FAULTS: list[tuple[dict[str, Any], Fault, str, bool]] = [  # document, fault, what the message says, whether training stops
    (changed("categories.0.id", 5), Fault.DUPLICATE_ID, "category id 5 appears twice: z, a", True),
    (changed("categories.0.name", ...), Fault.MALFORMED, "a category needs an integer id and a name", True),
    (changed("images.1", "b.png"), Fault.MALFORMED, "an image needs an integer id, not b.png", True),
    (changed("images.1.id", 7), Fault.DUPLICATE_ID, "image 7 (b.png): the image id appears twice", True),
    (changed("images.1.file_name", "./sub//a.png"), Fault.DUPLICATE_ID, "image 3 (./sub//a.png): the file_name appears", True),
    (changed("images.0.file_name", "./b.png"), Fault.DUPLICATE_ID, "image 3 (b.png): the file_name appears", True),
    (changed("images.1.width", 0), Fault.MALFORMED, "image 3 (b.png): it needs a positive width and height, not 0 and 20", True),
    (changed("images.1.width", "30"), Fault.MALFORMED, "positive width and height, not '30' and 20", True),
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
    (changed("annotations.0.iscrowd", "no"), Fault.MALFORMED, "iscrowd is 'no', not 0 or 1", True),
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


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    NAN,
    float("inf"),
    -(10**400),
    "",
    "a",
    "0" * 5000,
    [],
    [[]],
    {},
    [None],
    [[None] * 6],
]
ODD += [
    [[1, 2, 3, 4, 5, 6]],
    [[1e9, -1e9] * 3],
    {"size": [20, 30], "counts": "abc"},
    {"size": [20, 30], "counts": []},
    [["1"] * 6],
]


def places(value: Any, way: tuple[str, ...] = ()) -> list[str]:
    """The way to every value inside a document, as ``changed`` takes it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [".".join(way), *(place for key, item in inner for place in places(item, (*way, str(key))))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    save(root, DOCUMENT)
    return root


@given(st.sampled_from(places(DOCUMENT)[1:]), st.sampled_from([..., *ODD]))
def test_whatever_stands_in_a_file_is_read_or_refused(folder: Path, way: str, odd: Any) -> None:
    """Objects that come out are finite and lie in their images; nothing but DataError comes up."""
    save(folder, changed(way, odd), images=False)
    try:
        dataset = open_dataset(folder, "train", strict=False)
    except DataError:
        return
    for index, record in enumerate(dataset.records):
        found, _ = dataset.decode(index)
        assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= [record.width, record.height]).all()
        assert np.isfinite(found.areas).all() and (found.areas > 0).all()
        for mask in found.masks:
            assert mask is None or mask.full(record.height, record.width).sum() == mask.area > 0
