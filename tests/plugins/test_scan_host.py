"""The kernel of TileSSMScan, run on this processor thread by thread, against the NumPy reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from host_kernels import TYPES, exact, poisoned, run_on_host, tensors_of

from apex_plugins.tile_ssm_scan.launch import MAX_STATES, cut, launch, launch_both
from apex_plugins.tile_ssm_scan.reference import tile_ssm_scan
from apex_plugins.tile_ssm_scan.torch_op import tile_ssm_scan_formula

OP = "tile_ssm_scan"
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1.6e-2}  # of the largest result


def scan(tensors: dict[str, torch.Tensor], kind: str, reverse: bool) -> torch.Tensor:
    x, _, _, bm, _, _ = tensors.values()
    y = poisoned(x.shape, x.dtype)
    inputs = [tensor.data_ptr() for tensor in tensors.values()]
    run_on_host(OP, launch(inputs, y.data_ptr(), kind=kind, shape=tuple(x.shape), states=bm.shape[2], reverse=reverse))
    return y


def inputs_of(rng: np.random.Generator, batch: int, tokens: int, heads: int, channels: int, states: int) -> dict[str, np.ndarray]:
    return {
        "x": rng.standard_normal((batch, tokens, heads, channels)),
        "dt": rng.exponential(1.0, (batch, tokens, heads)) * rng.choice([0.01, 1.0, 20.0]),
        "A": rng.standard_normal(heads),
        "Bm": rng.standard_normal((batch, tokens, states)),
        "Cm": rng.standard_normal((batch, tokens, states)),
        "D": rng.standard_normal(heads),
    }


def check(arrays: dict[str, np.ndarray], reverse: int, kind: str, note: Any) -> None:
    tensors = tensors_of(arrays, kind)
    wanted = tile_ssm_scan(*exact(tensors), reverse=reverse)
    got = scan(tensors, kind, bool(reverse)).double().numpy()
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[kind] * scale, err_msg=str(note))


def test_thousand_random_cases(make_case):
    for seed in range(1000):
        arrays, attributes = make_case(OP, seed)
        check(arrays, attributes["reverse"], ("f32", "f16", "bf16")[seed % 3] if seed % 2 else "f32", seed)


# One token, around one and two chunks of 28 tokens, the largest K; slices that are full, cut off, not quads; every number of lanes.
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
@pytest.mark.parametrize("kind", TYPES)
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


def test_both_directions_in_one_launch():
    rng = np.random.default_rng(5)
    ways = [tensors_of(inputs_of(rng, 2, 45, 3, 40, 12), "f32") for _ in range(2)]
    ways[1]["x"] = x = ways[0]["x"]
    y, y_back = poisoned(x.shape, x.dtype), poisoned(x.shape, x.dtype)
    forward, backward = ([tensor.data_ptr() for tensor in list(way.values())[1:]] for way in ways)
    outputs = y.data_ptr(), y_back.data_ptr()
    run_on_host(OP, launch_both(x.data_ptr(), forward, backward, *outputs, kind="f32", shape=tuple(x.shape), states=12))
    assert torch.equal(y, scan(ways[0], "f32", False)) and torch.equal(y_back, scan(ways[1], "f32", True))
    assert not torch.equal(y, y_back)


def test_addresses_that_are_not_multiples_of_16():
    tensors = tensors_of(inputs_of(np.random.default_rng(6), 1, 30, 2, 32, 16), "f32")
    moved = {}
    for name, tensor in tensors.items():
        room = torch.empty(tensor.numel() + 1)
        moved[name] = room[1:].view(tensor.shape).copy_(tensor)
    assert moved["x"].data_ptr() % 16 == 4
    assert torch.equal(scan(moved, "f32", True), scan(tensors, "f32", True))


def test_long_sequences_stay_closer_to_the_truth_than_the_formula():
    """The scan multiplies decays one by one; the formula takes differences of a long sum of logarithms."""
    tensors = tensors_of(inputs_of(np.random.default_rng(8), 1, 1024, 2, 16, 16), "f32")
    wanted = tile_ssm_scan(*exact(tensors), reverse=0)
    by_kernel = scan(tensors, "f32", False).double().numpy()
    by_formula = tile_ssm_scan_formula(*tensors.values(), False).double().numpy()
    assert np.abs(by_kernel - wanted).max() <= np.abs(by_formula - wanted).max()
