"""TileUnpackFusion on a GPU: which kernel, which grid, which arguments."""

from __future__ import annotations

import math
from typing import Any

from apex_plugins.kernels.launch import (
    RUN_BYTES,
    SIZES_OF_TYPES,
    THREADS,
    Grid,
    Launch,
    are_multiples,
    arguments,
    blocks_of_runs,
)

TYPES = ("f32", "f16", "bf16")


def kernel_name(kind: str) -> str:
    """The entry point for maps of a type. Raises ValueError when there is none."""
    if kind not in TYPES:
        raise ValueError(f"tile_unpack_fusion has no kernel for {kind}")
    return f"apex_tile_unpack_fusion_{kind}"


def run_length(cells: int, kind: str) -> int:
    """How many cells of a tile's row a thread blends at once when the addresses allow it: at most 16 bytes, and a divisor."""
    return math.gcd(cells, RUN_BYTES // SIZES_OF_TYPES[kind])


def whole_kernel_name(kind: str) -> str:
    """The entry point that writes all of a map of its own, for maps of a type. Raises ValueError when there is none."""
    return kernel_name(kind).replace("fusion_", "fusion_whole_")


def whole_grid(batch: Any, shape: tuple[int, int, int], cells: int, run: int) -> tuple[Any, int, int]:
    """Blocks for all cells of maps of ``shape`` (C, h, w), tile by tile of the grid, chosen or not."""
    channels, height, width = shape
    return grid(batch, height // cells * (width // cells), channels, cells, run)


def grid(batch: Any, tiles: Any, channels: int, cells: int, run: int) -> tuple[Any, int, int]:
    """Blocks for the cells of the chosen tiles and no other. ``batch`` and ``tiles`` may be symbolic sizes of TensorRT."""
    return batch * tiles * blocks_of_runs(channels * cells * cells // run), 1, 1


def launch(
    base: int,
    seen: int,
    ids: int,
    levels: int,
    alpha: int,
    merged: int,
    *,
    kind: str,
    shape: tuple[int, int, int, int],
    tiles: int,
    cells: int,
) -> Launch:
    """The launch for addresses and sizes: ``shape`` is (B, C, h, w) of the map, ``tiles`` is K, ``cells`` is n.

    Where ``merged`` is ``base``, the chosen tiles are blended in and nothing else is touched; otherwise all of ``merged`` is
    written. Raises ValueError where no kernel fits.
    """
    batch, channels, height, width = shape
    name, run = (kernel_name if merged == base else whole_kernel_name)(kind), run_length(cells, kind)
    if not are_multiples((base, seen, alpha, merged), SIZES_OF_TYPES[kind] * run):
        run = 1
    sizes = (tiles, channels, height, width, cells, run)
    in_place: Grid = grid(batch, tiles, channels, cells, run)
    blocks = in_place if merged == base else whole_grid(batch, (channels, height, width), cells, run)
    return Launch(name, blocks, (THREADS, 1, 1), 0, arguments((base, seen, ids, levels, alpha), sizes, (merged,)))
