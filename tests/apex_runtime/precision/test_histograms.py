"""Percentiles are NumPy's, entropy cuts a long tail and nothing else, and a histogram does not grow with images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.histograms import BINS, PERCENTILE, HistogramMethod, Histograms
from apex_runtime.precision.ranges import Calibration, Method, Range, calibration_feeds, collect_ranges

METHODS: tuple[HistogramMethod, ...] = ("percentile", "entropy")


def graph() -> onnx.ModelProto:
    """y = x, of any shape: the test chooses what the tensor holds."""
    nodes = [helper.make_node("Identity", ["x"], ["y"], name="y"), helper.make_node("Neg", ["x"], ["z"], name="z")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y", "z")]
    made = helper.make_graph(nodes, "identity", ends[:1], ends[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def calibrate(method: Method, *images: np.ndarray) -> Calibration:
    feeds = ({"x": image.astype(np.float32)} for image in images)
    return collect_ranges(graph(), ["y"], feeds, ["z", "y"], method)


def bin_width(method: HistogramMethod, *images: np.ndarray) -> float:
    """The most that a bin can be wide: twice the whole range, for the width doubles."""
    return 4 * max(float(np.abs(image).max()) for image in images) / BINS[method]


@pytest.mark.parametrize("shape", ["normal", "relu", "skewed", "negative"])
def test_percentiles_are_those_of_numpy(shape: str) -> None:
    rng = np.random.default_rng(3)
    images = [rng.normal(size=(2, 100, 900)).astype(np.float32) * scale for scale in (0.3, 2.0, 1.0)]
    bent = {
        "normal": lambda x: x,
        "relu": lambda x: np.maximum(x, 0),
        "skewed": lambda x: np.exp(x) - 1,
        "negative": lambda x: -np.abs(x) - 0.1,
    }
    images = [bent[shape](image) for image in images]
    found = calibrate("percentile", *images)
    everything = np.concatenate([image.ravel() for image in images])
    beyond = (100 - PERCENTILE) / 2
    # The ends of so few hundred-thousandths are single values: one more or less on either side is what a bin may move.
    lowest, low, high, highest = np.quantile(
        everything, np.array([0.5 * beyond, 2 * beyond, 100 - 2 * beyond, 100 - 0.5 * beyond]) / 100
    )
    width = bin_width("percentile", *images)
    seen = found.quantised["y"]
    assert min(lowest, 0) - width <= seen.least <= min(low, 0) + width
    assert max(high, 0) - width <= seen.largest <= max(highest, 0) + width
    assert found.ranges["y"] == Range(float(everything.min()), float(everything.max()))
    assert seen != found.ranges["y"]
    mirrored = found.quantised["z"]
    assert mirrored.least == pytest.approx(-seen.largest, abs=2 * width)
    assert mirrored.largest == pytest.approx(-seen.least, abs=2 * width)


def squared_error(values: np.ndarray, largest: float) -> float:
    step = largest / 255
    return float(((np.clip(np.round(values / step), 0, 255) * step - values) ** 2).mean())


def test_entropy_cuts_a_tail_and_keeps_what_is_even() -> None:
    rng = np.random.default_rng(5)
    tail = np.maximum(rng.laplace(size=(4, 200, 500)), 0)
    even = rng.uniform(0, tail.max(), size=tail.shape)
    cut, kept = (calibrate("entropy", *images).quantised["y"] for images in (tail, even))
    assert cut.least == 0 and 0.3 * tail.max() < cut.largest < 0.9 * tail.max()
    assert squared_error(tail, cut.largest) < squared_error(tail, float(tail.max()))
    assert kept.largest > 0.98 * even.max()


def test_zeros_do_not_decide_what_entropy_cuts() -> None:
    rng = np.random.default_rng(7)
    values = np.abs(rng.laplace(size=(3, 90_000)))
    sparse = np.concatenate([values, np.zeros((3, 270_000))], axis=1)
    assert calibrate("entropy", *sparse).quantised == calibrate("entropy", *values).quantised


@settings(max_examples=25, deadline=None)
@given(
    method=st.sampled_from(("minmax", *METHODS)),
    images=st.lists(
        st.lists(st.floats(-(2.0**96), 2.0**96, width=32), min_size=1, max_size=40).map(
            lambda items: np.array(items, np.float32)
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_range_contains_zero_and_lies_within_what_was_seen(method: Method, images: Sequence[np.ndarray]) -> None:
    found = calibrate(method, *images)
    everything = np.concatenate(images)
    for name, sign in (("y", 1), ("z", -1)):
        whole = Range(float((sign * everything).min()), float((sign * everything).max()))
        seen = found.quantised[name]
        assert min(whole.least, 0) <= seen.least <= 0 <= seen.largest <= max(whole.largest, 0)
        # Nothing is erased, but for numbers that no bin can hold.
        assert seen.magnitude > 0 or whole.magnitude < 1e-30


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_no_range_and_one_of_few_values_has_all(method: HistogramMethod) -> None:
    assert calibrate(method, np.zeros(9), np.zeros(5)).quantised["y"] == Range(0, 0)
    rare = np.zeros(500_000)
    rare[7] = 3.0
    assert calibrate(method, np.zeros(9), rare).quantised["y"] == Range(0, 3)


@pytest.mark.parametrize("method", METHODS)
def test_a_histogram_does_not_grow(method: HistogramMethod) -> None:
    """A dark image first, then ever brighter ones: with bins of the first one's width, the last would have 10^15 of them."""
    histograms = Histograms(method)
    rng = np.random.default_rng(1)
    images = [rng.normal(size=999).astype(np.float32) * np.float32(10.0**power) for power in (-9, -8, -3, 0, 3, 2, 1)]
    for image in images:
        histograms.add("y", image)
        (entry,) = histograms._collector.histogram_dict.values()
        assert len(entry[0]) == BINS[method] and len(entry[1]) == BINS[method] + 1
    assert entry[0].sum() == sum(image.size for image in images)
    assert entry[0].sum() - entry[0][BINS[method] // 4 : -BINS[method] // 4].sum() > 0, "more than half of the bins are idle"
    seen = histograms.ranges()["y"]
    assert -4000 < seen.least < -1000 and 1000 < seen.largest < 4000


def test_widened_bins_hold_what_they_held() -> None:
    """Values before a brighter image are where they were, within a bin of what their own histogram would be."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=5000).astype(np.float32), np.array([-37.5, 20], np.float32)
    histograms = Histograms("percentile")
    for image in (first, second):
        histograms.add("y", image)
    counts, edges, *_ = histograms._collector.histogram_dict["y"]
    inside = [np.searchsorted(np.sort(np.concatenate([first, second])), edge, side="right") for edge in edges[1:]]
    assert np.abs(np.cumsum(counts) - inside).max() <= 2  # rounding of edges


@pytest.mark.parametrize("method", ["minmax", *METHODS])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e30])
@pytest.mark.parametrize("place", [0, 1, 5000, -1])
def test_what_is_not_finite_is_an_error_that_names_tensor_and_image(method: Method, value: float, place: int) -> None:
    good = np.random.default_rng(0).normal(size=10_001)
    bad = good.copy()
    bad[place] = value
    with pytest.raises(ModelError, match=r"Tensor z is .* on image 2 of") as caught:
        calibrate(method, good, bad)
    assert caught.value.code == "calibration_not_finite" and caught.value.remedy


def test_a_nan_is_seen_wherever_it_is_in_tensors_that_need_no_range() -> None:
    """ReduceMin of ONNX Runtime alone would lose most of them."""
    for place in range(0, 1000, 37):
        image = np.ones(1000, np.float32)
        image[place] = np.nan
        found = collect_ranges(graph(), ["y"], [{"x": np.ones(5, np.float32)}, {"x": image}])
        assert np.isnan(found.ranges["y"].magnitude), place


@pytest.mark.parametrize("method", METHODS)
def test_no_images_are_an_error(method: Method) -> None:
    with pytest.raises(UsageError, match="no images"):
        calibrate(method)


def test_one_pass_gives_both_and_prints_nothing(
    shipped: OnnxFile, sample: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each image runs through the graph once, whatever the method; the whole tensors of one image are gone before the next."""
    import gc
    import weakref

    runs: list[int] = []
    kept: list[weakref.ref[np.ndarray]] = []
    session = onnxruntime.InferenceSession

    class Counted:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._session = session(*arguments, **options)

        def run(self, names: Any, feeds: Any) -> Any:
            gc.collect()
            assert not any(item() is not None for item in kept)
            runs.append(1)
            values = self._session.run(names, feeds)
            kept.extend(weakref.ref(value) for value in values if isinstance(value, np.ndarray) and value.size > 1)
            return values

    def feeds() -> Iterator[Any]:
        for _ in range(2):
            yield from calibration_feeds(precision_data(sample).calibration, shipped.info)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    found = collect_ranges(shipped.model, ["mul_6", "relu_8"], feeds(), ["relu_8", "relu_16"], "percentile")
    assert len(runs) == 2 and len(kept) == 4
    assert set(found.ranges) == {"mul_6", "relu_8", "relu_16"} and set(found.quantised) == {"relu_8", "relu_16"}
    assert found.images == 2 and found.method == "percentile"
    assert capfd.readouterr() == ("", "")


def test_entropy_of_the_default_engine_keeps_most_of_a_relu(shipped: OnnxFile, sample: Path) -> None:
    found = collect_ranges(
        shipped.model,
        [],
        calibration_feeds(precision_data(sample).calibration, shipped.info),
        ["relu", "relu_16", "add_77"],
        "entropy",
    )
    for name, seen in found.quantised.items():
        assert 0.45 * found.ranges[name].magnitude < seen.magnitude <= found.ranges[name].magnitude, name
