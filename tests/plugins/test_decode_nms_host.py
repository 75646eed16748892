"""The kernels of DecodeNMS, run on this processor thread by thread: equal to the NumPy reference in float32 to the last bit.

Where hundreds of rows enter the suppression the reference takes minutes; there the torch formula, which equals it, stands for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kernel_faces import NUMPY_TYPES, host_decode_nms

from apex_plugins.decode_nms import torch_op
from apex_plugins.decode_nms.launch import Settings
from apex_plugins.decode_nms.reference import MAX_PRE_NMS, decode_nms

OP = "decode_nms"
NAMES = ("boxes", "scores", "labels", "candidate ids")
Arrays = dict[str, np.ndarray]


def check(arrays: Arrays, attributes: dict[str, Any], kind: str, alone: bool, note: Any) -> tuple[np.ndarray, ...]:
    rounded = {name: value.astype(np.float32) for name, value in arrays.items()}
    rounded["scores"] = arrays["scores"].astype(NUMPY_TYPES[kind])
    if arrays["strides"].size < 1000:
        wanted = decode_nms(*rounded.values(), **attributes)
    else:
        tensors = (torch.from_numpy(value) for value in rounded.values())
        wanted = tuple(item.numpy() for item in torch_op.decode_nms_formula(*tensors, **attributes))
    got = host_decode_nms(rounded, attributes, alone)
    for name, expected, found in zip(NAMES, wanted, got, strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=f"{name} of {note} {attributes} {kind}")
    return got


def continuous_case(rng: np.random.Generator, batch: int, side: int, classes: int) -> Arrays:
    """Objects with several candidates each: boxes that overlap by any amount, at coordinates of any value."""
    strides = np.concatenate([np.full((side // s) ** 2, s) for s in (8, 16, 32)]).astype(np.float64)
    centres = np.concatenate([grid(side, s) for s in (8, 16, 32)])
    reach = rng.gamma(2.0, 1.5, (batch, len(strides), 4)) * 8 / strides[:, None]
    scores = rng.beta(0.4, 2.0, (batch, len(strides), classes))
    return {"scores": scores, "ltrb": reach, "centres": centres, "strides": strides}


def grid(side: int, stride: int) -> np.ndarray:
    along = (np.arange(side // stride) + 0.5) * stride
    return np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)


SETTINGS = {"max_detections": 300, "pre_nms": MAX_PRE_NMS, "score": 0.001, "iou": 0.6}


@pytest.mark.parametrize("part", range(10))
def test_thousand_random_cases(part, make_case):
    """Coarse scores and corners: ties of every kind, and boxes without area."""
    kept = 0
    for seed in range(100 * part, 100 * part + 100):
        arrays, attributes = make_case(OP, seed)
        if seed % 3:  # the images of a batch have blocks of their own; time is spent on cases rather
            arrays = {name: value[:1] if value.ndim == 3 else value for name, value in arrays.items()}
        kept += (check(arrays, attributes, ("f32", "f16")[seed % 2], seed % 4 < 2, seed)[3] >= 0).sum()
    assert kept > 500


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "two launches"])
@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 8, 20, 80])
def test_images_full_of_candidates(classes, kind, alone):
    """More than pre_nms candidates on each level, up to 999 in the suppression, some of them removed."""
    arrays = continuous_case(np.random.default_rng(classes), 2, 640, classes)
    ids = check(arrays, SETTINGS, kind, alone, classes)[3]
    assert (ids >= 0).sum() > 100


def test_every_row_survives_and_every_row_falls():
    arrays = continuous_case(np.random.default_rng(1), 1, 640, 1)
    apart = {**arrays, "ltrb": np.full_like(arrays["ltrb"], 0.1)}
    (ids,) = check(apart, SETTINGS | {"max_detections": 1200}, "f32", False, "apart")[3]
    assert (ids >= 0).sum() == 999
    one = {**arrays, "ltrb": np.ones_like(arrays["ltrb"]), "centres": np.full_like(arrays["centres"], 320.0)}
    (ids,) = check(one, SETTINGS, "f32", False, "one place")[3]
    assert (ids >= 0).sum() == 3  # one per level: the sizes differ too much


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "two launches"])
@pytest.mark.parametrize("order", ["rising", "falling", "equal", "nothing"])
def test_orders_that_are_hard_on_a_running_best(order, alone):
    """A level of 6 400 anchors whose scores rise makes the kernel start over with every thousand."""
    arrays = continuous_case(np.random.default_rng(2), 1, 640, 1)
    count = arrays["scores"].size
    rising = np.arange(1, count + 1) / (count + 1)
    values = {"rising": rising, "falling": rising[::-1], "equal": np.full(count, 0.5), "nothing": np.full(count, 0.0005)}
    arrays["scores"] = values[order].reshape(arrays["scores"].shape)
    (ids,) = check(arrays, SETTINGS, "f32", alone, order)[3]
    assert (ids >= 0).sum() == 0 if order == "nothing" else ids[0] == {"rising": count - 1, "falling": 0, "equal": 0}[order]


def chain(count: int, step: float) -> Arrays:
    """Boxes in a row, each overlapping the next: whether one falls depends on all before it."""
    strides = np.full(count, 8.0)
    centres = np.stack([np.arange(count) * step + 50, np.full(count, 50.0)], 1)
    return {
        "scores": np.linspace(0.9, 0.1, count).reshape(1, count, 1),
        "ltrb": np.ones((1, count, 4)),
        "centres": centres,
        "strides": strides,
    }


@pytest.mark.parametrize("count", [31, 32, 33, 64, 65, 333])
def test_a_chain_in_which_every_second_box_falls(count):
    (ids,) = check(chain(count, 3.0), SETTINGS | {"max_detections": 400}, "f32", True, count)[3]
    assert ids[ids >= 0].tolist() == list(range(0, count, 2))  # IoU 13 / 19 with the next, 10 / 22 with the one after


@pytest.mark.parametrize("pre_nms", [1, 2, 31, 332, 333])
@pytest.mark.parametrize("max_detections", [1, 32, 1000])
def test_limits(pre_nms, max_detections):
    arrays = continuous_case(np.random.default_rng(3), 1, 320, 2)
    check(arrays, SETTINGS | {"pre_nms": pre_nms, "max_detections": max_detections}, "f32", False, "limits")


@pytest.mark.parametrize("levels", [(8,), (16,), (32,), (8, 32), (16, 32)])
def test_levels_that_are_not_there(levels):
    arrays = continuous_case(np.random.default_rng(4), 1, 320, 2)
    there = np.isin(arrays["strides"], levels)
    arrays = {name: value[:, there] if value.ndim == 3 else value[there] for name, value in arrays.items()}
    check(arrays, SETTINGS, "f32", True, levels)


def test_one_anchor():
    check(chain(1, 1.0), SETTINGS, "f32", True, "one")


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_addresses_that_wide_reads_cannot_use(kind):
    arrays = {name: value.astype(np.float32) for name, value in continuous_case(np.random.default_rng(9), 1, 128, 8).items()}
    arrays["scores"] = arrays["scores"].astype(NUMPY_TYPES[kind])
    aligned = host_decode_nms(arrays, SETTINGS, alone=True)
    for wanted, found in zip(aligned, host_decode_nms(arrays, SETTINGS, alone=True, offset=1), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("change", [{"pre_nms": 0}, {"pre_nms": 334}, {"max_detections": 0}, {"score": -0.1}])
def test_settings_that_the_kernel_cannot_do(change):
    with pytest.raises(ValueError, match="decode_nms"):
        Settings(**(SETTINGS | change))
