"""TileSSMScan on a GPU: which kernel, which grid, which arguments; one direction, or both in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apex_plugins.kernels.launch import SIZES_OF_TYPES, THREADS, Launch, are_multiples, arguments, ceil_div

TYPES = ("f32", "f16", "bf16")
STATES, SCANNERS = 4, THREADS // 2  # those of kernel.h and kernel.cu
MAX_STATES = 128  # S: a channel gets at most 32 lanes of STATES each
MAX_CHUNK, BATCH = 32, 4  # tokens that are staged at once, and what that must be a multiple of
SHARED_BYTES = 48 * 1024  # what a kernel gets on every GPU without asking


@dataclass(frozen=True)
class Cut:
    """How a head is cut: ``slice`` channels in a block, ``chunk`` tokens at a time, in so many bytes of shared memory."""

    slice: int
    chunk: int
    shared_bytes: int


def cut(channels: int, states: int) -> Cut:
    """For P channels per head and a state of S numbers each. Raises ValueError where S is too large."""
    if not 1 <= states <= MAX_STATES:
        raise ValueError(f"tile_ssm_scan has no kernel for a state of {states}, only for 1..{MAX_STATES}")
    lanes = ceil_div(states, STATES)
    quads = min(SCANNERS // lanes // STATES, ceil_div(channels, STATES))
    # B, C and x of a token, the parts of y that its lanes find, and its step; twice, for the chunk in hand and the next.
    token_bytes = 2 * (16 * (2 * lanes + quads + lanes * quads) + 8)
    chunk = min(MAX_CHUNK, SHARED_BYTES // token_bytes // BATCH * BATCH)
    return Cut(quads * STATES, chunk, chunk * token_bytes)


def kernel_name(kind: str, both: bool = False) -> str:
    """The entry point for a type. Raises ValueError when there is none."""
    if kind not in TYPES:
        raise ValueError(f"tile_ssm_scan has no kernel for {kind}")
    return f"apex_tile_ssm_scan_{'both_' if both else ''}{kind}"


def blocks(batch: Any, heads: int, channels: int, states: int) -> Any:
    """How many blocks one direction takes; ``batch`` may be a symbolic size of TensorRT."""
    return batch * heads * ceil_div(channels, cut(channels, states).slice)


def sizes(tokens: Any, heads: int, channels: int, states: int, aligned: bool) -> tuple[Any, ...]:
    """The integers that both kernels take first; ``aligned``: the rows of all tensors may be moved in quads."""
    cuts = cut(channels, states)
    return tokens, heads, channels, states, cuts.slice, cuts.chunk, int(aligned)


def launch(inputs: Sequence[int], y: int, *, kind: str, shape: tuple[int, int, int, int], states: int, reverse: bool) -> Launch:
    """One direction, for the addresses of x, dt, A, Bm, Cm, D and y; ``shape`` is (B, K, H, P). ValueError: no kernel fits."""
    return _launch(kernel_name(kind), inputs, (y,), kind, shape, states, (int(reverse),))


def launch_both(
    x: int,
    forward: Sequence[int],
    backward: Sequence[int],
    y: int,
    y_back: int,
    *,
    kind: str,
    shape: tuple[int, int, int, int],
    states: int,
) -> Launch:
    """Both directions over one x: ``forward`` and ``backward`` are the addresses of dt, A, Bm, Cm, D for each."""
    return _launch(kernel_name(kind, both=True), (x, *forward, *backward), (y, y_back), kind, shape, states, ())


def _launch(
    name: str,
    inputs: Sequence[int],
    outputs: Sequence[int],
    kind: str,
    shape: tuple[int, int, int, int],
    states: int,
    more: tuple[int, ...],
) -> Launch:
    batch, tokens, heads, channels = shape
    in_quads = are_multiples([*inputs, *outputs], STATES * SIZES_OF_TYPES[kind])
    aligned = in_quads and are_multiples([channels, states], STATES)
    grid = (blocks(batch, heads, channels, states) * len(outputs), 1, 1)
    numbers = (*sizes(tokens, heads, channels, states, aligned), *more)
    shared = cut(channels, states).shared_bytes
    return Launch(name, grid, (THREADS, 1, 1), shared, arguments(inputs, numbers, outputs))
