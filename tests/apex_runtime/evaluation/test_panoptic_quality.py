"""PQ must be what panopticapi says: its published rules segment by segment and pixel by pixel, and its figures on real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apex_runtime.data.coco.panoptic import PanopticDataset, Segment
from apex_runtime.errors import DataError
from apex_runtime.evaluation.panoptic_files import PanopticPredictions, quality_of_predictions
from apex_runtime.evaluation.panoptic_quality import PanopticImage, Tally, count_image

CASES = ["sample", "val27", "val27_perfect"]


@pytest.mark.parametrize("case", CASES)
def test_the_figures_of_panopticapi(case: str, shared_data: Path) -> None:
    folder = shared_data / "pq-reference"
    expected = json.loads((folder / "expected.json").read_text())["cases"]
    assert sorted(expected) == sorted(CASES)
    quality = evaluated(folder / case)
    for group in ("All", "Things", "Stuff"):
        assert quality[group.lower()] == pytest.approx(expected[case][group], abs=1e-12)
    found = {str(row["category_id"]): {key: row[key] for key in ("pq", "sq", "rq")} for row in quality["per_class"] if row["pq"]}
    assert found.keys() == expected[case]["per_class"].keys()
    for category, figures in found.items():
        assert figures == pytest.approx(expected[case]["per_class"][category], abs=1e-12)


def evaluated(folder: Path) -> dict[str, Any]:
    truth = PanopticDataset(folder / "gt.json", None, None)
    file = folder / "pred.json"
    return quality_of_predictions(truth, PanopticPredictions(file, json.loads(file.read_text())))


def by_the_rules(truth: PanopticImage, found: PanopticImage) -> dict[int, list[float]]:
    """[matched, false, missed, overlap] per class, from sets of pixels."""
    pixels = {"void": set(np.flatnonzero(truth.ids_hw == 0))}
    true = {s: set(np.flatnonzero(truth.ids_hw == s.segment_id)) for s in truth.segments}
    guessed = {s: set(np.flatnonzero(found.ids_hw == s.segment_id)) for s in found.segments}
    counts: dict[int, list[float]] = {}
    met, claimed_by = set(), set()  # apart: a segment of the truth and one of the prediction may be equal as values
    for target, inside in true.items():
        for guess, claimed in guessed.items():
            same = target.category_id == guess.category_id and not target.is_crowd
            union = (claimed - pixels["void"]) | inside
            if same and len(inside & claimed) / len(union) > 0.5:
                counts.setdefault(target.category_id, [0, 0, 0, 0])[0] += 1
                counts[target.category_id][3] += len(inside & claimed) / len(union)
                met.add(target)
                claimed_by.add(guess)
    for target in set(true) - met:
        if not target.is_crowd:
            counts.setdefault(target.category_id, [0, 0, 0, 0])[2] += 1
    for guess in set(guessed) - claimed_by:
        crowd = [inside for target, inside in true.items() if target.is_crowd and target.category_id == guess.category_id]
        spared = pixels["void"] | (crowd[-1] if crowd else set())
        if len(guessed[guess] & spared) / len(guessed[guess]) <= 0.5:
            counts.setdefault(guess.category_id, [0, 0, 0, 0])[1] += 1
    return counts


def patches(rng: np.random.Generator, ids: np.ndarray, first: int, crowds: bool) -> PanopticImage:
    """A picture of rectangles over one another, some void, and its segments of two classes."""
    count = int(rng.integers(0, 7))
    for segment in range(count):
        y, x = rng.integers(0, 10, 2).tolist()
        h, w = rng.integers(1, 8, 2).tolist()
        ids[y : y + h, x : x + w] = int(rng.choice([0, first + segment]))
    present = [first + segment for segment in range(count) if (ids == first + segment).any()]
    segments = [Segment(i, int(rng.choice([4, 9])), crowds and bool(rng.random() < 0.3), 0.0) for i in present]
    return PanopticImage(ids, tuple(segments[:: -1 if rng.random() < 0.5 else 1]))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(581526)  # equal segments on both sides
def test_every_image_by_the_rules(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = patches(rng, np.zeros((12, 11), np.int32), 70_000, crowds=True)
    ids = np.where(rng.random((12, 11)) < 0.9, truth.ids_hw, 0)
    copies = {s.segment_id: s._replace(segment_id=s.segment_id + 5, is_crowd=False) for s in truth.segments}
    fresh = patches(rng, np.zeros((12, 11), np.int32), 1, crowds=False)
    ids = np.where(fresh.ids_hw > 0, fresh.ids_hw, np.where(ids > 0, ids + 5, 0)).astype(np.int32)
    segments = [*fresh.segments, *copies.values()]
    found = PanopticImage(ids, tuple(s for s in segments if (ids == s.segment_id).any()))
    tallies: dict[int, Tally] = {4: Tally(), 9: Tally()}
    count_image(truth, found, {4, 9}, tallies)
    expected = by_the_rules(truth, found)
    for category, tally in tallies.items():
        counts = [tally.matched, tally.false, tally.missed, tally.overlap]
        assert counts == pytest.approx(expected.get(category, [0, 0, 0, 0]), abs=1e-12)


def picture(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images: a thing, a stuff region and void in each; the prediction has other ids and the same regions."""
    ids = np.zeros((6, 8), np.int32)
    ids[:3, :4], ids[3:] = 1, 2
    categories = [
        {"id": 5, "name": "cat", "isthing": 1},
        {"id": 7, "name": "sky", "isthing": 0},
        {"id": 8, "name": "dog", "isthing": 1},
    ]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 8, "height": 6} for n in (11, 12)]
    for name, (thing, stuff) in {"gt": (300, 70_000), "pred": (1, 2)}.items():
        for image in images:
            picture(tmp_path / name / f"{image['id']}.png", np.array([0, thing, stuff])[ids])
        infos = [{"id": thing, "category_id": 5, "area": 12}, {"id": stuff, "category_id": 7, "area": 24}]
        annotations = [{"image_id": n, "file_name": f"{n}.png", "segments_info": infos} for n in (11, 12)]
        document = {"annotations": annotations} | ({"images": images, "categories": categories} if name == "gt" else {})
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path


def test_the_same_regions_are_perfect_and_classes_without_segments_have_no_figure(folder: Path) -> None:
    quality = evaluated(folder)
    assert quality["all"] == {"pq": 1, "sq": 1, "rq": 1, "n": 2} and quality["things"]["n"] == quality["stuff"]["n"] == 1
    dog = quality["per_class"][2]
    assert (dog["name"], dog["pq"], dog["matched"], dog["false"], dog["missed"]) == ("dog", None, 0, 0, 0)


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    document = json.loads(file.read_text())
    edit(document["annotations"][1])
    file.write_text(json.dumps(document))


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "unknown category": (lambda e: e["segments_info"][0].update(category_id=6), "image 12: .*unknown categories 6"),
    "not in the json": (
        lambda e: e["segments_info"].pop(),
        "PNG of the prediction has pixels .* not in its JSON: 2",
    ),
    "no pixel": (
        lambda e: e["segments_info"].append({"id": 3, "category_id": 5}),
        "predicted segments 3 have no pixel",
    ),
    "twice": (lambda e: e["segments_info"].append({"id": 1, "category_id": 5}), "a segment id appears twice"),
    "image twice": (lambda e: e.update(image_id=11), "image 11 is predicted twice"),
    "other image": (lambda e: e.update(image_id=99), "images 99 are not in gt.json"),
    "no image id": (lambda e: e.pop("image_id"), "annotation 2: image_id is None"),
    "escape": (lambda e: e.update(file_name="../gt/12.png"), "is no PNG in the folder"),
    "absent": (lambda e: e.update(file_name="13.png"), "13.png not found"),
    "no list": (lambda e: e.update(segments_info=None), "no list segments_info"),
    "zero": (lambda e: e["segments_info"][0].update(id=0), "segment id 0 is not an integer from 1"),
    "no class": (lambda e: e["segments_info"][0].pop("category_id"), "category_id None"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_predictions_are_named(folder: Path, case: str) -> None:
    edit, words = BAD[case]
    change(folder / "pred.json", edit)
    with pytest.raises(DataError, match=words):
        evaluated(folder)


def test_malformed_files_are_named(folder: Path) -> None:
    picture(folder / "pred" / "12.png", np.ones((5, 8), np.int32))
    with pytest.raises(DataError, match=r"image 12: .*12\.png is 8x5, its image 8x6"):
        evaluated(folder)
    (folder / "pred" / "12.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image 12: .*12.png"):
        evaluated(folder)
    document = json.loads((folder / "pred.json").read_text())
    (folder / "pred.json").write_text(json.dumps({"annotations": document["annotations"][:1]}))
    with pytest.raises(DataError, match=r"image 12: pred\.json has no prediction for it"):
        evaluated(folder)
    for wrong in ({}, [], {"annotations": 3}):
        with pytest.raises(DataError, match="no list of annotations"):
            PanopticPredictions(folder / "pred.json", wrong)
    with pytest.raises(DataError, match="no folder with the PNGs"):
        PanopticPredictions(folder / "pred.json", document, folder / "elsewhere")


def test_a_truth_that_contradicts_itself_is_refused(folder: Path) -> None:
    change(folder / "gt.json", lambda e: e["segments_info"][0].update(area=5))
    with pytest.raises(DataError, match="image 12: segment 300 of the truth has more pixels than the area 5"):
        evaluated(folder)
    change(folder / "gt.json", lambda e: e["segments_info"].pop(0))
    with pytest.raises(DataError, match="PNG of the truth has pixels of segments that are not in its JSON: 300"):
        evaluated(folder)
