"""From tensors to an image and a budget: what is taken, and what every wrong one is told."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.errors import ConfigError
from apex_runtime.routing.budget import parse_budget
from apex_runtime.serving.refusals import Outcome, Refusal
from apex_runtime.serving.request import RequestTensor, read_request, read_timeout
from apex_runtime.serving.settings import ServingSettings, parse_settings

SETTINGS = ServingSettings(budget="0.5", max_image_bytes=2000, max_pixels=500)
PIXELS = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
PNG = bytes(cv2.imencode(".png", PIXELS[:, :, ::-1])[1])


def image(data: Any = PNG, shape: tuple[int, ...] = (1, 1), datatype: str = "BYTES") -> RequestTensor:
    return RequestTensor("image", datatype, shape, [data])


def pixels(data: Any, shape: tuple[int, ...], datatype: str = "UINT8") -> RequestTensor:
    return RequestTensor("pixels", datatype, shape, data)


def budget(value: Any, datatype: str, shape: tuple[int, ...] = (1, 1)) -> RequestTensor:
    return RequestTensor("budget", datatype, shape, value)


def refused(*tensors: RequestTensor, settings: ServingSettings = SETTINGS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_request(tensors, settings).pixels(settings.max_pixels)
    return caught.value


def test_an_encoded_image_with_the_budget_of_the_export() -> None:
    asked = read_request([image()], SETTINGS)
    np.testing.assert_array_equal(asked.pixels(500), PIXELS)
    assert asked.budget == parse_budget("0.5")


@pytest.mark.parametrize("shape", [(10, 12, 3), (1, 10, 12, 3)])
@pytest.mark.parametrize("data", [PIXELS, PIXELS.reshape(-1).tolist(), PIXELS.tolist(), [PIXELS.tolist()]])
def test_pixels_as_an_array_flat_or_nested(data: Any, shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(read_request([pixels(data, shape)], SETTINGS).pixels(500), PIXELS)


@pytest.mark.parametrize(
    ("value", "datatype", "meaning"),
    [
        ([16], "INT64", 16),
        ([[16]], "INT32", 16),
        (np.array([[1]]), "INT64", 1),
        ([1.0], "FP32", 1.0),
        ([0.25], "FP64", 0.25),
        ([b"25%"], "BYTES", "25%"),
        (["16"], "BYTES", 16),
        (np.array([[b"2.5gflops"]], object), "BYTES", "2.5gflops"),
    ],
)
def test_a_budget_means_what_it_means_elsewhere(value: Any, datatype: str, meaning: Any) -> None:
    found = read_request([image(), budget(value, datatype)], SETTINGS).budget
    assert (found.kind, found.value) == (parse_budget(meaning).kind, parse_budget(meaning).value)


@given(st.integers(1, 1000))
def test_a_share_in_four_bytes_is_the_share_that_was_meant(thousandths: int) -> None:
    share = thousandths / 1000
    found = read_request([image(), budget([float(np.float32(share))], "FP32")], SETTINGS).budget
    assert found.value == share


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([float("nan")], "FP32"),
        ([float("inf")], "FP64"),
        ([-0.5], "FP32"),
        ([1.5], "FP32"),
        ([0], "INT64"),
        ([-3], "INT64"),
        ([2.5], "INT64"),
        ([True], "BOOL"),
        ([b"much"], "BYTES"),
        (["\u0663"], "BYTES"),
        ([b"\xff"], "BYTES"),
        ([10**400], "INT64"),
        ([1e300], "FP32"),
        ([[]], "FP32"),
        ([None], "FP32"),
        ([0.1, 0.2], "FP32"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(value: Any, datatype: str) -> None:
    refusal = refused(image(), budget(value, datatype))
    assert refusal.outcome is Outcome.INVALID and "budget" in refusal.message


@pytest.mark.parametrize(
    ("tensors", "cause"),
    [
        ((), "no image"),
        ((image(), pixels(PIXELS, (10, 12, 3))), "both"),
        ((image(), image()), "twice"),
        ((image(), RequestTensor("bonus", "FP32", (1,), [1.0])), "'bonus' is unknown"),
        ((image(b""),), "empty"),
        ((image(b"hello"),), "not an image"),
        ((image(PNG[:60]),), "truncated|damaged"),
        ((image(PNG, datatype="UINT8"),), "expected BYTES"),
        ((image(12),), "expected BYTES"),
        ((image(PNG, shape=(2, 1)),), "expected one element"),
        ((RequestTensor("image", "BYTES", (1, 1), [PNG, PNG]),), "expected one element"),
        ((pixels(PIXELS, (10, 12, 3), "FP32"),), "expected UINT8"),
        ((pixels(PIXELS, (10, 12)),), "expected UINT8"),
        ((pixels(PIXELS, (2, 10, 12, 3)),), "expected UINT8"),
        ((pixels(PIXELS, (10, 36, 1)),), "expected UINT8"),
        ((pixels(PIXELS, (10, -12, 3)),), "expected UINT8"),
        ((pixels(PIXELS, (0, 12, 3)),), "expected UINT8"),
        ((pixels(PIXELS[:9], (10, 12, 3)),), "324 values"),
        ((pixels([256] * 360, (10, 12, 3)),), "from 0 to 255"),
        ((pixels([-1] * 360, (10, 12, 3)),), "from 0 to 255"),
        ((pixels([0.5] * 360, (10, 12, 3)),), "from 0 to 255"),
        ((pixels([[1, 2], [3]], (10, 12, 3)),), "not an array"),
        ((pixels(["a"] * 360, (10, 12, 3)),), "from 0 to 255"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(tensors: tuple[RequestTensor, ...], cause: str) -> None:
    refusal = refused(*tensors)
    assert refusal.outcome is Outcome.INVALID
    assert re.search(cause, refusal.message), refusal.message


def test_what_is_too_large_is_refused_before_it_is_decoded() -> None:
    bomb = bytes(cv2.imencode(".png", np.zeros((30, 30), np.uint8))[1])
    assert len(bomb) < SETTINGS.max_image_bytes
    for tensors in ((image(bomb),), (image(b"x" * 2001),), (pixels([], (100, 100, 3)),)):
        refusal = refused(*tensors)
        assert refusal.outcome is Outcome.TOO_LARGE and "the limit is" in refusal.message


@pytest.mark.parametrize(("value", "seconds"), [(None, 3.0), (0, 3.0), (500_000, 0.5), (1.5e6, 1.5)])
def test_a_timeout_is_in_microseconds(value: Any, seconds: float) -> None:
    assert read_timeout(value, 3000) == seconds


@pytest.mark.parametrize("value", [-1, True, "soon", float("nan"), float("inf"), [5]])
def test_a_timeout_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(Refusal, match="timeout"):
        read_timeout(value, 3000)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"budget": "lots"}, "budget"),
        ({"queue": -1}, "queue"),
        ({"timeout_ms": float("nan")}, "timeout_ms"),
        ({"quue": 3}, "quue"),
    ],
)
def test_settings_are_checked(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"here: {field}"):
        parse_settings(raw, "here")
