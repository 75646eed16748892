"""Noise is planted at its rates, as the record says, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from plant_noise import RECORD, Noise, draw_kinds, main, plant

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import UsageError
from apex_train.labels.planted import Record
from apex_train.pseudo.quality import mask_iou

NOISE = Noise({"missing": 0.1, "shifted": 0.2, "spurious": 0.1, "wrong-class": 0.0})


def entries(data: Path, split: str = "train") -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry for entry in open_dataset(data, split).ground_truth()["annotations"]}


@pytest.fixture(scope="module")
def noisy(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("noisy")
    return folder, plant(nuclei_fixture, "train", NOISE, 0, folder)


def test_rates_are_kept_and_no_object_is_wrong_twice() -> None:
    rates = {"missing": 0.07, "shifted": 0.07, "wrong-class": 0.06}
    for objects in (1, 13, 100, 997):
        for seed in range(5):
            kinds = draw_kinds(objects, rates, np.random.default_rng(seed))  # type: ignore[arg-type]
            assert len(kinds) == objects
            for kind, rate in rates.items():
                assert np.floor(rate * objects) <= kinds.count(kind) <= np.ceil(rate * objects)  # type: ignore[arg-type]
            assert kinds.count(None) >= np.floor(0.8 * objects)
    every = draw_kinds(50, {"missing": 0.5, "shifted": 0.5}, np.random.default_rng(0))
    assert None not in every


def test_the_record_says_what_was_changed(nuclei_fixture: Path, noisy: tuple[Path, Record]) -> None:
    folder, record = noisy
    clean, now = entries(nuclei_fixture), entries(folder)
    kinds = {kind: [each for each in record.planted if each.kind == kind] for kind in NOISE.rates}
    assert record.objects == len(clean)
    for kind, rate in NOISE.rates.items():
        assert np.floor(rate * len(clean)) <= len(kinds[kind]) <= np.ceil(rate * len(clean))
    assert {each.id for each in kinds["missing"]} == set(clean) - set(now)
    assert {each.id for each in kinds["spurious"]} == set(now) - set(clean)
    changed = {key for key in set(now) & set(clean) if now[key] != clean[key]}
    assert changed == {each.id for each in kinds["shifted"]} and len(changed) > 5
    for each in (*kinds["missing"], *kinds["shifted"]):
        assert each.before is not None and list(each.before.bbox) == pytest.approx(clean[each.id]["bbox"])
        assert each.image_id == clean[each.id]["image_id"]


def test_shifted_masks_and_boxes_move_together_within_the_image(nuclei_fixture: Path, noisy: tuple[Path, Record]) -> None:
    folder, record = noisy
    shifted = {each.id for each in record.planted if each.kind == "shifted"}
    before, after = (open_dataset(data, "train") for data in (nuclei_fixture, folder))
    ids = [[entry["id"] for entry in data.ground_truth()["annotations"]] for data in (before, after)]
    masks = [
        {identity: (mask, data.records[place]) for identity, (place, mask) in zip(its, all_masks(data), strict=True)}
        for data, its in zip((before, after), ids, strict=True)
    ]
    overlaps = []
    for identity in shifted:
        (old, image), (new, _) = masks[0][identity], masks[1][identity]
        assert new.area > 0.3 * old.area and new.x >= 0 and new.x + new.bits.shape[1] <= image.width
        overlaps.append(float(mask_iou([old], [new], image.height, image.width)[0, 0]))
        assert entries(folder)[identity]["bbox"][2:] == list(new.bits.shape[::-1])
    assert 0.05 < np.median(overlaps) < 0.6 and max(overlaps) < 0.8


def all_masks(data: Any) -> list[Any]:
    return [(place, mask) for place in range(len(data)) for mask in data.instances(place).masks]


def test_other_splits_and_pixels_are_untouched(nuclei_fixture: Path, noisy: tuple[Path, Record]) -> None:
    folder, record = noisy
    assert entries(folder, "val") == entries(nuclei_fixture, "val")
    for split in ("train", "val"):
        sets = [open_dataset(data, split) for data in (nuclei_fixture, folder)]
        pairs = list(zip(sets[0].records, sets[1].records, strict=True))
        assert all(one.path.resolve() == other.path.resolve() and one.image_id == other.image_id for one, other in pairs)
    assert record.source == open_dataset(nuclei_fixture, "train").fingerprint()


def test_the_same_seed_gives_the_same_files(nuclei_fixture: Path, noisy: tuple[Path, Record], tmp_path: Path) -> None:
    for seed, same in ((0, True), (1, False)):
        plant(nuclei_fixture, "train", NOISE, seed, tmp_path / str(seed))
        for name in ("annotations/train.json", RECORD):
            assert ((noisy[0] / name).read_bytes() == (tmp_path / str(seed) / name).read_bytes()) == same


def test_what_cannot_be_planted_is_refused_and_a_wrong_class_needs_two(nuclei_fixture: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has one class, nucleus"):
        plant(nuclei_fixture, "train", Noise({"wrong-class": 0.1}), 0, tmp_path / "no")
    done = CliRunner().invoke(main, [str(nuclei_fixture), "--wrong-class", "0.1", "-o", str(tmp_path / "no")])
    assert done.exit_code == 1 and "--spurious" in done.output
    with pytest.raises(UsageError, match="together above 1"):
        plant(nuclei_fixture, "train", Noise({"missing": 0.6, "shifted": 0.6}), 0, tmp_path / "no")
    two = shutil.copytree(nuclei_fixture, tmp_path / "two")
    for over in (two, tmp_path, two / "annotations"):
        with pytest.raises(UsageError, match="would be written over"):
            plant(two, "train", NOISE, 0, over)
    for file in (two / "annotations").glob("*.json"):
        document = json.loads(file.read_text())
        document["categories"].append({"id": 9, "name": "debris"})
        file.write_text(json.dumps(document))
    record = plant(two, "train", Noise({"wrong-class": 0.25}), 0, tmp_path / "wrong")
    before, after = entries(two), entries(tmp_path / "wrong")
    wrong = {each.id for each in record.planted}
    assert len(wrong) == round(0.25 * len(before)) and {key for key in before if before[key] != after[key]} == wrong
    assert all(after[key] == before[key] | {"category_id": 9} for key in wrong)
