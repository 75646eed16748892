"""How often each image of an epoch comes, counted; and files that say something else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError
from apex_train.config import load_config
from apex_train.data.loader import BatchSampler, TrainingSet
from apex_train.data.sample_weights import drawn, read_sample_weights, write_sample_weights


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(lambda each: sum(each) > 1e-3), st.integers(0, 1000))
def test_each_image_comes_as_often_as_it_weighs(weights: list[float], seed: int) -> None:
    weight_N = np.array(weights)
    looks = drawn(weight_N, np.random.default_rng(seed))
    assert len(looks) == len(set(looks.tolist())) == len(weights)  # no look comes twice
    counted = np.bincount(looks % len(weights), minlength=len(weights))
    assert (np.abs(counted - len(weights) * weight_N / weight_N.sum()) < 1 + 1e-6).all()
    assert (counted[weight_N == 0] == 0).all()
    for image, count in enumerate(counted):
        assert sorted(looks[looks % len(weights) == image] // len(weights)) == list(range(count))


def test_equal_weights_are_an_epoch_as_ever_and_others_differ() -> None:
    even = BatchSampler(10, 5, seed=3, weights=np.full(10, 2.0))
    assert sorted(index for batch in even for _, index in batch) == list(range(10))
    heavy = BatchSampler(10, 5, seed=3, weights=np.array([6.0] + [0.5] * 9))
    first = [index for batch in heavy for _, index in batch]
    assert sum(index % 10 == 0 for index in first) in (5, 6)
    heavy.epoch = 1
    assert first != [index for batch in heavy for _, index in batch]


def test_another_look_is_another_sample_of_the_same_image(nuclei_fixture: Path) -> None:
    dataset = open_dataset(nuclei_fixture, "train", "coco")
    samples = TrainingSet(dataset, load_config(None, {"train.size": 128, "train.crop": 64, "train.workers": 0}))
    one, other = samples[(0, 2)], samples[(0, 2 + len(dataset))]
    assert one.image_id == other.image_id == dataset.records[2].image_id
    assert (one.image != other.image).any()


def test_a_file_is_read_back_and_names_of_other_sets_are_refused(nuclei_fixture: Path, tmp_path: Path) -> None:
    dataset, file = open_dataset(nuclei_fixture, "train", "coco"), tmp_path / "weights.json"
    names = [record.file_name for record in dataset.records]
    write_sample_weights(file, {names[1]: 3.5, names[3]: 0.0}, {})
    assert read_sample_weights(file, dataset).tolist() == [1, 3.5, 1, 0, 1]
    good = json.loads(file.read_text())
    broken = [
        ({**good, "weights": {"elsewhere.png": 1}}, "elsewhere.png"),
        ({**good, "weights": {names[0]: -1}}, "-1"),
        ({**good, "weights": {names[0]: True}}, "True"),
        ({**good, "weights": dict.fromkeys(names, 1e308)}, "not a number from 0 to 1e"),
        ({**good, "weights": {names[0]: 10**400}}, "is 1000"),
        ({**good, "weights": {names[0]: float("nan")}}, "is nan"),
        ({**good, "weights": dict.fromkeys(names, 0)}, "every image has the weight 0"),
        ({**good, "weights": [1]}, "no weights by file name"),
        ({**good, "kind": "other"}, "not a file of sample-weights"),
    ]
    for content, words in broken:
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=words):
            read_sample_weights(file, dataset)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_sample_weights(file, dataset)
