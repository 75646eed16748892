"""The kernel of TileSSMScan, run on this processor thread by thread, against the NumPy reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kernel_faces import NUMPY_TYPES, TOLERANCES, host_tile_ssm_scan, poisoned, run_kernel

from apex_plugins.tile_ssm_scan.launch import MAX_STATES, cut, launch_both
from apex_plugins.tile_ssm_scan.reference import tile_ssm_scan
from apex_plugins.tile_ssm_scan.torch_op import tile_ssm_scan_formula

OP = "tile_ssm_scan"


def inputs_of(rng: np.random.Generator, batch: int, tokens: int, heads: int, channels: int, states: int) -> dict[str, np.ndarray]:
    return {
        "x": rng.standard_normal((batch, tokens, heads, channels)),
        "dt": rng.exponential(1.0, (batch, tokens, heads)) * rng.choice([0.01, 1.0, 20.0]),
        "A": rng.standard_normal(heads),
        "Bm": rng.standard_normal((batch, tokens, states)),
        "Cm": rng.standard_normal((batch, tokens, states)),
        "D": rng.standard_normal(heads),
    }


def rounded(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name: value.astype(NUMPY_TYPES[kind]) for name, value in arrays.items()}


def truth(arrays: dict[str, np.ndarray], reverse: int) -> np.ndarray:
    return tile_ssm_scan(*(value.astype(np.float64) for value in arrays.values()), reverse=reverse)


def check(arrays: dict[str, np.ndarray], reverse: int, kind: str, note: Any) -> None:
    narrow = rounded(arrays, kind)
    wanted, got = truth(narrow, reverse), host_tile_ssm_scan(narrow, {"reverse": reverse}).astype(np.float64)
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCES[kind] * scale, err_msg=str(note))


def test_thousand_random_cases(make_case):
    for seed in range(1000):
        arrays, attributes = make_case(OP, seed)
        check(arrays, attributes["reverse"], ("f32", "f16", "bf16")[seed % 3] if seed % 2 else "f32", seed)


# One token, around one and two chunks of 28 tokens, the largest K; slices that are full, cut off, not quads; few and many lanes.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 27, 1, 32, 16),
    (1, 28, 2, 33, 16),
    (1, 29, 2, 64, 13),
    (2, 56, 1, 7, 16),
    (1, 57, 3, 36, 17),
    (1, 70, 1, 4, MAX_STATES),
    (1, 40, 1, 9, 65),
    (1, 1024, 1, 5, 4),
    (1, 1023, 1, 32, 16),
]


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_at_the_edges(shape, kind, reverse):
    check(inputs_of(np.random.default_rng(sum(shape)), *shape), reverse, kind, shape)


def test_every_number_of_states_and_channels_has_room():
    for states in range(1, MAX_STATES + 1):
        for channels in (1, 4, 31, 32, 33, 200):
            cuts = cut(channels, states)
            lanes = -(-states // 4)
            assert cuts.slice % 4 == 0 and cuts.slice > 0 and lanes * cuts.slice <= 128
            assert cuts.chunk % 4 == 0 and cuts.chunk > 0 and cuts.shared_bytes <= 48 * 1024
    with pytest.raises(ValueError, match=r"state of 129, only for 1\.\.128"):
        cut(32, MAX_STATES + 1)


@pytest.mark.parametrize("dt", [0.0, 1e-30, 1e4, 1e30])
def test_steps_that_forget_nothing_or_everything(dt):
    arrays = inputs_of(np.random.default_rng(1), 1, 60, 2, 8, 8)
    arrays["dt"][:] = dt
    arrays["Bm"] /= max(dt, 1.0)  # so that the state stays finite
    check(arrays, 0, "f32", dt)


@pytest.mark.parametrize("kind", TOLERANCES)
def test_both_directions_in_one_launch(kind):
    rng = np.random.default_rng(5)
    ways = [rounded(inputs_of(rng, 2, 45, 3, 40, 12), kind) for _ in range(2)]
    ways[1]["x"] = x = ways[0]["x"]
    outputs = y, y_back = poisoned(x.shape, x.dtype), poisoned(x.shape, x.dtype)
    forward, backward = ([item.ctypes.data for item in list(way.values())[1:]] for way in ways)
    places = x.ctypes.data, forward, backward, *(item.ctypes.data for item in outputs)
    arrays = [*ways[0].values(), *list(ways[1].values())[1:], *outputs]
    run_kernel(OP, launch_both(*places, kind=kind, shape=x.shape, states=12), arrays)
    for found, way, reverse in ((y, ways[0], 0), (y_back, ways[1], 1)):
        np.testing.assert_array_equal(found, host_tile_ssm_scan(way, {"reverse": reverse}))
        wanted = truth(way, reverse)
        assert np.abs(found.astype(np.float64) - wanted).max() < TOLERANCES[kind] * np.abs(wanted).max()


@pytest.mark.parametrize("kind", TOLERANCES)
def test_addresses_that_quads_cannot_use(kind):
    arrays = rounded(inputs_of(np.random.default_rng(6), 1, 30, 2, 32, 16), kind)
    aligned = host_tile_ssm_scan(arrays, {"reverse": 1})
    np.testing.assert_array_equal(host_tile_ssm_scan(arrays, {"reverse": 1}, offset=1), aligned)


def test_long_sequences_stay_closer_to_the_truth_than_the_formula():
    """The scan multiplies decays one by one; the formula takes differences of a long sum of logarithms."""
    arrays = rounded(inputs_of(np.random.default_rng(8), 1, 1024, 2, 16, 16), "f32")
    wanted = truth(arrays, 0)
    by_kernel = host_tile_ssm_scan(arrays, {"reverse": 0})
    by_formula = tile_ssm_scan_formula(*(torch.from_numpy(value) for value in arrays.values()), False).numpy()
    assert np.abs(by_kernel - wanted).max() <= np.abs(by_formula - wanted).max()
