"""What kernels must do because TensorRT makes one launch of an op whatever its shapes: on this processor, against the references.

TileUnpackFusion has one for a map of its own; that of the torch binding works on a copy. TilePack may be launched for no tiles.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from apex_plugins.kernels.host import host_library
from apex_plugins.kernels.reasons import KernelError
from apex_plugins.tile_pack.launch import kernel_name as pack_kernel_name
from apex_plugins.tile_unpack_fusion.launch import run_length, whole_grid, whole_kernel_name
from apex_plugins.tile_unpack_fusion.reference import tile_unpack_fusion


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    try:
        return host_library("tile_unpack_fusion")
    except KernelError as error:
        pytest.skip(f"{error.reason}: {error.message}")


def merged_by(
    library: ctypes.CDLL, dtype: type, base: np.ndarray, tiles: np.ndarray, ids: np.ndarray, alpha: np.ndarray
) -> np.ndarray:
    """The kernel's lines on this processor, into a map full of NaN."""
    kind, (batch, channels, height, width), (count, cells) = (
        {4: "f32", 2: "f16"}[np.dtype(dtype).itemsize],
        base.shape,
        tiles.shape[1:4:2],
    )
    run = run_length(cells, kind)
    out = np.full(base.shape, np.nan, dtype)
    inputs = [base.astype(dtype), tiles.astype(dtype), ids, np.zeros_like(ids), alpha.astype(dtype)]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in inputs]
    sizes = [ctypes.c_int(size) for size in (count, channels, height, width, cells, run)]
    blocks = ctypes.c_int(whole_grid(batch, (channels, height, width), cells, run)[0])
    getattr(library, whole_kernel_name(kind))(*pointers, *sizes, ctypes.c_void_p(out.ctypes.data), blocks)
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-3)])
def test_the_whole_map_is_that_of_the_reference(library: ctypes.CDLL, dtype: type, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        batch, rows, cols = (int(rng.integers(1, top)) for top in (4, 5, 6))
        cells, channels = int(rng.choice([1, 3, 4, 6, 8])), int(rng.choice([1, 5, 32]))
        count = int(rng.choice([0, 1, rows * cols]))
        base = rng.standard_normal((batch, channels, rows * cells, cols * cells))
        tiles, alpha = rng.standard_normal((batch, count, channels, cells, cells)), rng.random((batch, count, 1, cells, cells))
        ids = np.stack([rng.permutation(rows * cols)[:count] for _ in range(batch)]).astype(np.int64)
        rounded = [array.astype(dtype).astype(np.float64) for array in (base, tiles, alpha)]
        wanted = tile_unpack_fusion(rounded[0], rounded[1], ids, np.zeros_like(ids), rounded[2], tile=8 * cells)
        found = merged_by(library, dtype, base, tiles, ids, alpha)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
        untouched = wanted == rounded[0]
        assert (found[untouched] == wanted[untouched]).all(), "a copied cell is the same to the last bit"


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_a_block_that_has_no_tile_to_pack_reads_and_writes_nothing(kind: str) -> None:
    """A level of K = 0 tiles: TensorRT gets a grid of one block, and the addresses may be of nothing."""
    try:
        pack = getattr(host_library("tile_pack"), pack_kernel_name(kind, kind))
    except KernelError as error:
        pytest.skip(f"{error.reason}: {error.message}")
    nowhere = [ctypes.c_void_p(0)] * 3
    pack(*nowhere, *(ctypes.c_int(size) for size in (0, 3, 64, 64, 32, 8, 4)), ctypes.c_void_p(0), ctypes.c_int(1))
