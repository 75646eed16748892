"""Ranges are those of the tensors, over all images, with one image in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.errors import UsageError
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.ranges import Range, calibration_feeds, collect_ranges

TENSORS = ["mul_6", "relu_8", "cat_4", "tile_unpack_fusion"]


def values_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in TENSORS)
    session = onnxruntime.InferenceSession(changed.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(TENSORS, feeds))


def test_they_are_the_extremes_of_the_tensors_themselves(shipped: OnnxFile, repo_root: Path) -> None:
    source = repo_root / "tests" / "fixtures" / "nuclei" / "images"
    feeds = list(calibration_feeds(precision_data(source).calibration, shipped.info))[:3]
    found = collect_ranges(shipped.model, TENSORS, feeds)
    whole = [values_of(shipped.model, dict(item)) for item in feeds]
    assert found.images == 3
    for index, name in enumerate(TENSORS):
        least, largest = min(item[index].min() for item in whole), max(item[index].max() for item in whole)
        assert found.ranges[name].least == pytest.approx(least, rel=1e-5)
        assert found.ranges[name].largest == pytest.approx(largest, rel=1e-5)


def test_one_image_at_a_time(shipped: OnnxFile, sample: Path) -> None:
    """The next image is asked for when the one before is done with, and nothing keeps that."""
    import weakref

    alive: list[weakref.ref[np.ndarray]] = []

    def images() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(3):
            (feeds,) = calibration_feeds(precision_data(sample).calibration, shipped.info)
            copy = dict(feeds) | {"images": feeds["images"].copy()}
            assert sum(item() is not None for item in alive) <= 1
            alive.append(weakref.ref(copy["images"]))
            yield copy

    assert collect_ranges(shipped.model, TENSORS, images()).images == 3


def test_all_tiles_with_content_are_looked_at(shipped: OnnxFile, sample: Path) -> None:
    (feeds,) = calibration_feeds(precision_data(sample).calibration, shipped.info)
    assert feeds["images"].shape == (1, 512, 512, 3) and feeds["images"].dtype == np.uint8
    assert int(feeds["tiles"][0]) == int((feeds["tile_bonus"] == 0).sum())


def test_a_nan_is_not_lost() -> None:
    seen = Range(-1.0, 2.0).joined(Range(float("nan"), 3.0)).joined(Range(-5.0, 0.0))
    assert np.isnan(seen.least) and seen.largest == 3.0 and np.isnan(seen.magnitude)


def test_no_images_are_an_error(shipped: OnnxFile) -> None:
    with pytest.raises(UsageError, match="no images"):
        collect_ranges(shipped.model, TENSORS, [])
