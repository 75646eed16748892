"""Formats of eight bits against the reference of ONNX for what its operators mean, and against ml_dtypes for E4M3FN."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from apex_runtime.precision.number_formats import FORMATS, Name, NumberFormat
from apex_runtime.precision.ranges import Range

TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
formats = st.sampled_from(list(FORMATS.values()))
half_or_full = st.sampled_from([np.float16, np.float32])


def reference(
    op: str, number_format: NumberFormat, axis: int | None = None, codes: type | None = None
) -> Callable[..., np.ndarray]:
    """The operator as ONNX's own reference computes it."""
    kind = TYPES[number_format.name] if codes is None else TensorProto.INT8
    source, target = (TensorProto.FLOAT, kind) if op == "QuantizeLinear" else (kind, TensorProto.FLOAT)
    node = helper.make_node(op, ["x", "scale", "zero_point"], ["y"], **({} if axis is None else {"axis": axis}))
    inputs = [helper.make_tensor_value_info(*pair, None) for pair in (("x", source), ("scale", 1), ("zero_point", kind))]
    graph = helper.make_graph([node], op, inputs, [helper.make_tensor_value_info("y", target, None)])
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))

    def run(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
        return np.asarray(evaluator.run(None, {"x": x, "scale": scale, "zero_point": zero_point})[0])

    return run


@pytest.mark.parametrize("name", ["uint8", "int8", "fp8"])
@pytest.mark.parametrize(("least", "largest"), [(0.0, 6.5), (-3.0, 1.0), (-2.0, 0.0), (0.5, 2.0), (-1e-7, 3e-7), (-1e20, 1e20)])
def test_what_was_seen_is_said_within_half_a_step_and_the_rest_saturates(name: Name, least: float, largest: float) -> None:
    number_format = FORMATS[name]
    (steps,) = number_format.steps([Range(least, largest)])
    held = Range(least, largest).with_zero()
    beyond = [3 * held.magnitude + 1, -3 * held.magnitude - 1]
    x = np.array([*np.linspace(least, largest, 1001), *beyond], np.float32)
    scale, zero = np.float32(steps.scale), np.array(steps.zero_point).astype(number_format.activation_type)
    codes = reference("QuantizeLinear", number_format)(x, scale, zero)
    back = reference("DequantizeLinear", number_format)(codes, scale, zero)
    step = steps.scale * (16 if name == "fp8" else 0.5)  # of E4M3FN: half of the 32 between two codes of its last octave
    assert np.abs(back[:1001].astype(np.float64) - x[:1001]).max() <= step * (1 + 1e-4)
    lowest, highest = {"uint8": (0, 255), "int8": (-128, 127), "fp8": (-448, 448)}[name]
    expected = [(end - steps.zero_point) * steps.scale for end in (highest, lowest)]
    np.testing.assert_allclose(back[1001:], expected, rtol=1e-5, err_msg="neither infinity nor NaN")
    zero_code = reference("QuantizeLinear", number_format)(np.zeros(1, np.float32), scale, zero)
    assert reference("DequantizeLinear", number_format)(zero_code, scale, zero)[0] == 0, "zero is said exactly"


@settings(deadline=None)
@given(
    formats, st.lists(st.tuples(*[st.floats(-1e30, 1e30, allow_subnormal=True)] * 2), min_size=1, max_size=5), st.floats(0, 40)
)
def test_tensors_that_share_a_scale_all_fit_into_it(
    number_format: NumberFormat, ends: list[tuple[float, float]], shrink: float
) -> None:
    ranges = [Range(min(pair) * 10**-shrink, max(pair) * 10**-shrink) for pair in ends]
    steps = number_format.steps(ranges)
    assert len({item.scale for item in steps}) == 1 and 0 < np.float32(steps[0].scale) < np.inf
    for item, held in zip(steps, map(Range.with_zero, ranges), strict=True):
        assert number_format.symmetric <= (item.zero_point == 0) and 0 <= item.zero_point <= 255
        lowest = -item.zero_point if number_format.name == "uint8" else -number_format.largest
        assert held.least / item.scale >= lowest - 0.51, "at most half a code is cut, where the zero point was rounded"
        assert held.largest / item.scale <= number_format.largest - item.zero_point + 0.51


def test_a_tensor_of_zeros_has_a_scale_of_ordinary_size() -> None:
    """A product of two scales is the scale of a bias: with 1e-38 it would be 0."""
    for number_format in FORMATS.values():
        (steps,) = number_format.steps([Range(0.0, 0.0)])
        assert 1e-3 < steps.scale < 1 and steps.zero_point == 0


@st.composite
def weights(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Weights of one to four axes and the axis of their channels; some channels all zero, tiny, or with one giant outlier."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=6))
    axis = draw(st.integers(0, len(shape) - 1))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    array = random.normal(size=shape) * 10.0 ** draw(st.integers(-30, 3))
    rows = np.moveaxis(array, axis, 0)
    for index in range(len(rows)):
        kind = random.integers(6)
        if kind == 0:
            rows[index] = 0
        elif kind == 1:
            rows[index] *= 1e-12
        elif kind == 2:
            rows[index].flat[0] = rows[index].flat[0] * 1e3
    if draw(st.booleans()):
        array = array * 1e-15  # down to subnormal numbers of float32
    return array.astype(np.float32), axis


@settings(deadline=None)
@given(formats, weights(), half_or_full)
def test_codes_are_in_range_and_scales_positive(number_format: NumberFormat, given_: tuple[np.ndarray, int], dtype: type) -> None:
    array, axis = given_
    codes, scale = number_format.round_weights(array, axis, dtype)
    assert codes.shape == array.shape and codes.dtype == number_format.weight_type
    assert scale.shape == (array.shape[axis],) and scale.dtype == dtype
    assert np.isfinite(scale).all() and (scale > 0).all()
    assert np.abs(codes.astype(np.float64)).max() <= number_format.weights
    zero = np.abs(array) == 0
    assert (codes.astype(np.float32)[zero] == 0).all()


def squared_errors(array: np.ndarray, axis: int, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    rows = np.moveaxis(array.astype(np.float64), axis, 0).reshape(array.shape[axis], -1)
    said = np.moveaxis(codes.astype(np.float64), axis, 0).reshape(array.shape[axis], -1) * scale.astype(np.float64)[:, None]
    return ((rows - said) ** 2).sum(axis=1)


@settings(deadline=None)
@given(formats, weights())
def test_the_chosen_scale_is_never_worse_than_the_range(number_format: NumberFormat, given_: tuple[np.ndarray, int]) -> None:
    """The range of each channel, with no search at all, rounded by NumPy and ml_dtypes."""
    array, axis = given_
    codes, scale = number_format.round_weights(array, axis, np.float32)
    rows = np.moveaxis(array.astype(np.float64), axis, 0).reshape(array.shape[axis], -1)
    largest = np.abs(rows).max(axis=1)
    fair = largest >= max(largest.max() * 2.0**-19, 1e-27)  # what is nothing beside the other channels has no scale of its own
    plain = np.where(fair, largest / number_format.weights, 1.0).astype(np.float32).astype(np.float64)
    held = np.clip(rows / plain[:, None], -number_format.weights, number_format.weights)
    said = held.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) if number_format.name == "fp8" else np.rint(held)
    baseline = ((said * plain[:, None] - rows) ** 2).sum(axis=1)
    found = squared_errors(array, axis, codes, scale)
    assert (found <= baseline * (1 + 1e-6) + 1e-300)[fair].all()


def test_an_outlier_is_cut_where_that_is_less_wrong() -> None:
    """Many weights beside one half as large again: the search is no decoration."""
    array = np.random.default_rng(3).uniform(-1, 1, size=(1, 200_000)).astype(np.float32)
    array[0, 0] = 1.5
    for name in ("uint8", "int8"):
        codes, scale = FORMATS[name].round_weights(array, 0, np.float32)
        whole = np.float32(1.5 / FORMATS[name].weights)
        plain = np.clip(np.rint(array / whole), -127, 127)
        assert scale[0] < 0.75 * whole, "the others end at two thirds"
        assert squared_errors(array, 0, codes, scale)[0] < 0.6 * squared_errors(array, 0, plain, whole[None])[0]


@pytest.mark.parametrize("name", ["uint8", "int8", "fp8"])
@pytest.mark.parametrize("axis", [0, 1])
def test_codes_are_those_of_onnx_at_the_same_scale(name: Name, axis: int) -> None:
    number_format = FORMATS[name]
    array = np.random.default_rng(5).normal(size=(6, 8)).astype(np.float32)
    codes, scale = number_format.round_weights(array, axis, np.float32)
    zeros = np.zeros(len(scale), number_format.weight_type)
    theirs = reference("QuantizeLinear", number_format, axis, np.int8 if name == "uint8" else None)(array, scale, zeros)
    limit = number_format.weights
    np.testing.assert_array_equal(codes.astype(np.float32), np.clip(theirs.astype(np.float32), -limit, limit))


@settings(deadline=None)
@given(st.floats(-1e6, 1e6, width=32))
def test_fp8_rounds_like_ml_dtypes_within_its_range_and_saturates_beyond(value: float) -> None:
    """A channel that holds 448 has scale 1 among its candidates; the second number is what is looked at."""
    array = np.array([[448.0, np.clip(value, -448, 448)]], np.float32)
    codes, scale = FORMATS["fp8"].round_weights(array, 0, np.float32)
    held = np.clip(array.astype(np.float64) / np.float64(scale[0]), -448, 448).astype(np.float32)
    expected = held.astype(ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(codes.astype(np.float32), expected.astype(np.float32))
    assert np.isfinite(codes.astype(np.float32)).all()


def test_small_weights_and_tensors_keep_their_digits() -> None:
    """As many as the same numbers a million times larger: no floor stands in the way of float32."""
    array = np.random.default_rng(7).normal(size=(4, 9)).astype(np.float32)
    for number_format in FORMATS.values():
        large, _ = number_format.round_weights(array, 0, np.float32)
        small, _ = number_format.round_weights((array * np.float32(2.0**-60)), 0, np.float32)
        np.testing.assert_array_equal(small.astype(np.float32), large.astype(np.float32))
        (steps,) = number_format.steps([Range(0.0, 1e-9)])
        assert 1e-9 / steps.scale == pytest.approx(number_format.largest)


def test_a_least_scale_is_kept_per_channel() -> None:
    array = np.ones((3, 4), np.float32)
    _, scale = FORMATS["int8"].round_weights(array, 0, np.float32, least=np.array([0.0, 0.5, 1e-9]))
    assert scale[1] == 0.5 and scale[0] == scale[2] < 0.01


def test_two_products_of_unsigned_activations_fit_into_sixteen_bits() -> None:
    """Processors without VNNI add pairs of products in int16, and saturate without a word."""
    worst = 2 * 255 * int(FORMATS["uint8"].weights)
    assert worst <= np.iinfo(np.int16).max < 2 * 255 * 127
    assert worst + 2 * 255 * 2 > np.iinfo(np.int16).max - 2 * 255, "and no bit more than needed is given up"


def test_there_is_one_code_type_for_each_purpose() -> None:
    kinds = {name: (item.activation_type, item.weight_type) for name, item in FORMATS.items()}
    e4m3 = np.dtype(ml_dtypes.float8_e4m3fn)
    assert kinds == {
        "uint8": (np.dtype(np.uint8), np.dtype(np.int8)),
        "int8": (np.dtype(np.int8), np.dtype(np.int8)),
        "fp8": (e4m3, e4m3),
    }
    assert onnx.helper.np_dtype_to_tensor_dtype(e4m3) == TensorProto.FLOAT8E4M3FN
