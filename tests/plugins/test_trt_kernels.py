"""What kernels must do because TensorRT makes one launch of an op whatever its shapes: on this processor, against the references.

TileUnpackFusion has a kernel for a map of its own. TilePack may be launched for no tiles.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from kernel_faces import NUMPY_TYPES, TOLERANCES, host_tile_unpack_fusion, library

from apex_plugins.tile_pack.launch import kernel_name as pack_kernel_name
from apex_plugins.tile_unpack_fusion.reference import tile_unpack_fusion


def merged_by(kind: str, base: np.ndarray, tiles: np.ndarray, ids: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What the kernel writes into a map full of NaN."""
    inputs = {"base": base, "tiles": tiles, "ids": ids, "levels": np.zeros_like(ids), "alpha": alpha}
    narrow = {name: value.astype(NUMPY_TYPES[kind]) if value.dtype.kind == "f" else value for name, value in inputs.items()}
    return host_tile_unpack_fusion(narrow, {"tile": 8 * tiles.shape[3]}, in_place=False)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_the_whole_map_is_that_of_the_reference(kind: str) -> None:
    dtype, tolerance = NUMPY_TYPES[kind], TOLERANCES[kind]
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
        found = merged_by(kind, base, tiles, ids, alpha)
        np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=tolerance, atol=tolerance * 4)
        untouched = wanted == rounded[0]
        assert (found.astype(np.float64)[untouched] == wanted[untouched]).all(), "a copied cell is the same to the last bit"


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_a_block_that_has_no_tile_to_pack_reads_and_writes_nothing(kind: str) -> None:
    """A level of K = 0 tiles: TensorRT gets a grid of one block, and the addresses may be of nothing."""
    pack = getattr(library("tile_pack"), pack_kernel_name(kind, kind))
    nowhere = [ctypes.c_void_p(0)] * 3
    pack(*nowhere, *(ctypes.c_int(size) for size in (0, 3, 64, 64, 32, 8, 4)), ctypes.c_void_p(0), ctypes.c_int(1))
