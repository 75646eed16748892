"""TilePack on a GPU: which kernel, which grid, which arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apex_plugins.kernels.launch import SIZES_OF_TYPES, THREADS, Grid, Launch, are_multiples, arguments, blocks_of_runs

SMALLEST_SCALE = 2.0**-64  # far from where its inverse would not be a normal number
PIXELS = "u8"  # the type of images that are [B,H,W,3] and are normalised on the way
VARIANTS = (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f16"), ("f32", "e4m3"), ("f16", "e4m3"))
PIXEL_VARIANTS = tuple((PIXELS, tiles) for tiles in ("f32", "f16", "bf16", "e4m3"))


@dataclass(frozen=True)
class Normalisation:
    """A pixel becomes (value - mean) * factor of its channel."""

    mean: tuple[float, float, float]
    factor: tuple[float, float, float]


def kernel_name(image: str, tiles: str) -> str:
    """The entry point for these types. Raises ValueError when there is none."""
    if (image, tiles) not in VARIANTS + PIXEL_VARIANTS:
        raise ValueError(f"tile_pack has no kernel from {image} to {tiles}")
    return f"apex_tile_pack_{image}" if image == tiles else f"apex_tile_pack_{image}_{tiles}"


def run_length(image: str, tiles: str) -> int:
    """How many pixels a thread moves at once when the addresses allow it; otherwise one."""
    return 4 if image != PIXELS and SIZES_OF_TYPES[tiles] == 4 else 8


def grid(batch: Any, tiles: Any, channels: int, side: int, run: int, pixels: bool) -> tuple[Any, int, int]:
    """``channels`` planes of ``side`` x ``side`` for each tile, or whole tiles where the image is of ``pixels``.

    ``batch`` and ``tiles`` may be symbolic sizes of TensorRT.
    """
    return batch * tiles * (1 if pixels else channels) * blocks_of_runs(side * side // run), 1, 1


def launch(
    image: int,
    ids: int,
    levels: int,
    out: int,
    *,
    types: tuple[str, str],
    shape: tuple[int, int, int, int],
    tiles: int,
    tile: int,
    halo: int,
    normalisation: Normalisation | None = None,
    scale: float = 1.0,
) -> Launch:
    """The launch for addresses and sizes: ``shape`` is (B, C, H, W) whatever the layout of the image, ``tiles`` is K.

    ``types`` are those of image and tiles. ``normalisation`` comes with pixels and only with them; ``scale`` is what an
    8-bit output is to be multiplied by to be read. Raises ValueError where no kernel fits, and for a scale that is none.
    """
    if not SMALLEST_SCALE <= scale <= 1 / SMALLEST_SCALE:
        raise ValueError(f"tile_pack: a scale must be in {SMALLEST_SCALE:g}..{1 / SMALLEST_SCALE:g}, got {scale}")
    name, run, side = kernel_name(*types), run_length(*types), tile + 2 * halo
    batch, channels, height, width = shape
    pixels = types[0] == PIXELS
    if pixels != (normalisation is not None) or (pixels and channels != 3):
        raise ValueError("tile_pack normalises images of uint8 with 3 channels, and those only")
    if not (are_multiples([image], _bytes(types[0], run)) and are_multiples([out], _bytes(types[1], run))):
        run = 1
    floats = [] if normalisation is None else [*normalisation.mean, *normalisation.factor]
    floats += [scale] if types[1] == "e4m3" else []
    sizes = (tiles, *(() if pixels else (channels,)), height, width, tile, halo, run)
    blocks: Grid = grid(batch, tiles, channels, side, run, pixels)
    return Launch(name, blocks, (THREADS, 1, 1), 0, arguments((image, ids, levels), sizes, (out,), floats))


def _bytes(kind: str, run: int) -> int:
    return min(16, SIZES_OF_TYPES[kind] * run)
