"""The kernels that move pixels and cells: bytes over the measured copy, and time beside the torch formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from apex_plugins.kernels.torch_face import TYPES
from apex_plugins.tile_pack.launch import Normalisation
from apex_plugins.tile_pack.torch_cuda import tile_pack_kernel
from apex_plugins.tile_pack.torch_op import tile_pack_formula
from apex_plugins.tile_unpack_fusion.torch_cuda import tile_unpack_fusion_kernel
from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion_formula
from apex_runtime.routing.quadtree import sequence_ranks
from apex_train.checkpoint import load_model
from gpu.timed import copy_rate, graph_milliseconds
from gpu.training import CHECKPOINT

BATCH, SIDE, TILE, CHANNELS = 8, 1024, 128, 64
COUNT, CELLS = (SIDE // TILE) ** 2, TILE // 8
SETS = 4  # of inputs, in turns: more than the cache holds
IMAGENET = Normalisation((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))
HALF, EIGHT = torch.float16, torch.float8_e4m3fn
SCALE = 4.0 / 448
Row = dict[str, Any]

PACKED: tuple[tuple[torch.dtype, torch.dtype | None], ...] = (
    (torch.float32, None),
    (HALF, None),
    (torch.bfloat16, None),
    (torch.float32, HALF),
    (torch.float32, EIGHT),
    (HALF, EIGHT),
    (torch.uint8, torch.float32),
    (torch.uint8, HALF),
    (torch.uint8, EIGHT),
)


def packing(ceiling: float) -> list[Row]:
    """Bytes: every pixel that a tile shows read once, every pixel of the tiles written once."""
    sizes = [(halo, tiles) for halo in (0, 16) for tiles in (COUNT, COUNT // 4)]
    return [_pack_row(*kinds, halo, tiles, ceiling) for halo, tiles in sizes for kinds in PACKED]


def _pack_row(image: torch.dtype, out: torch.dtype | None, halo: int, tiles: int, ceiling: float) -> Row:
    pixels = image == torch.uint8
    shape = (BATCH, SIDE, SIDE, 3) if pixels else (BATCH, 3, SIDE, SIDE)
    pack = partial(tile_pack_kernel, tile=TILE, halo=halo, dtype=out, normalisation=IMAGENET if pixels else None)
    sets = [(torch.rand(shape, device="cuda").mul(255).to(image), chosen(tiles)) for _ in range(SETS)]
    calls = [partial(pack, *given) for given in sets]
    moved = int(_bytes(sets[0][0]) * tiles / COUNT) + _bytes(calls[0]())
    row = _rate(f"{TYPES[image]} to {TYPES[out or image]}, halo {halo}, {tiles} tiles", moved, calls, ceiling)
    if out is None:
        row["formula_microseconds"] = _microseconds([partial(tile_pack_formula, *given, TILE, halo) for given in sets])
    return row


def unpacking(ceiling: float) -> list[Row]:
    """In place (base and tiles read, base written where tiles are), and into a map of its own (all of it read and written)."""
    kinds = (torch.float32, HALF, torch.bfloat16)
    return [row for tiles in (COUNT, COUNT // 4) for kind in kinds for row in _unpack_rows(kind, tiles, ceiling)]


def _unpack_rows(kind: torch.dtype, tiles: int, ceiling: float) -> list[Row]:
    sets = [_unpack_inputs(kind, tiles) for _ in range(SETS)]
    base, seen, _, alpha = sets[0]
    name, rest = f"{TYPES[kind]}, {CHANNELS} channels, {tiles} tiles", _bytes(seen, alpha)
    in_place = [partial(tile_unpack_fusion_kernel, *given, TILE, in_place=True) for given in sets]
    own = [partial(tile_unpack_fusion_kernel, *given, TILE) for given in sets]
    rows = [
        _rate(f"{name}, in place", 2 * int(_bytes(base) * tiles / COUNT) + rest, in_place, ceiling),
        _rate(f"{name}, a map of its own", 2 * _bytes(base) + rest, own, ceiling),
    ]
    rows[1]["formula_microseconds"] = _microseconds([partial(tile_unpack_fusion_formula, *given, TILE) for given in sets])
    return rows


def _unpack_inputs(kind: torch.dtype, tiles: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    side = SIDE // 8
    base = torch.randn(BATCH, CHANNELS, side, side, device="cuda", dtype=kind)
    seen = torch.randn(BATCH, tiles, CHANNELS, CELLS, CELLS, device="cuda", dtype=kind)
    return base, seen, chosen(tiles), torch.rand(BATCH, tiles, 1, CELLS, CELLS, device="cuda", dtype=kind)


def eight_bits(_: float) -> list[Row]:
    """Tiles in fp8 against fp16: bytes written, time to pack, and to the end of the foveal stem, which computes in fp16."""
    stem = load_model(CHECKPOINT).cuda().eval().half().foveal.stem
    return [_eight_bits_row(stem, halo, eight) for halo in (0, 16) for eight in (False, True)]


def _eight_bits_row(stem: nn.Module, halo: int, eight: bool) -> Row:
    sets = [(torch.randn(BATCH, 3, SIDE, SIDE, device="cuda", dtype=HALF), chosen(COUNT)) for _ in range(SETS)]
    exact = partial(tile_pack_kernel, tile=TILE, halo=halo)
    pack: Callable[..., Tensor] = partial(exact, dtype=EIGHT, scale=SCALE) if eight else exact

    def as_half(tiles: Tensor) -> Tensor:
        return tiles.to(HALF) * SCALE if eight else tiles

    def to_stem(image: Tensor, ids: Tensor) -> Tensor:
        with torch.no_grad():
            return stem(as_half(pack(image, ids)).flatten(0, 1))

    tiles = pack(*sets[0])
    return {
        "tiles": "fp8" if eight else "fp16",
        "halo": halo,
        "bytes_written": _bytes(tiles),
        "pack_microseconds": _microseconds([partial(pack, *given) for given in sets]),
        "pack_and_stem_microseconds": _microseconds([partial(to_stem, *given) for given in sets]),
        "largest_error_of_a_pixel": float((as_half(tiles) - exact(*sets[0])).abs().max()),
    }


def chosen(tiles: int) -> Tensor:
    """Distinct ids of every image, [BATCH, tiles], in the order that the model gives them: along the Hilbert curve."""
    ranks = torch.from_numpy(sequence_ranks(SIDE // TILE, SIDE // TILE, 1)[0]).cuda()
    ids = torch.stack([torch.randperm(COUNT, device="cuda")[:tiles] for _ in range(BATCH)])
    return ids.gather(1, ranks[ids].argsort(1))


@cache
def _copy_of(moved: int) -> float:
    return copy_rate(moved, SETS)


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _microseconds(calls: Sequence[Callable[[], Any]]) -> float:
    return round(graph_milliseconds(calls) * 1000, 2)


def _rate(name: str, moved: int, calls: Sequence[Callable[[], Any]], ceiling: float) -> Row:
    microseconds = _microseconds(calls)
    rate = moved / (microseconds / 1e6)
    row: Row = {"case": name, "bytes": moved, "microseconds": microseconds, "terabytes_per_second": round(rate / 1e12, 3)}
    shares = {"of_a_large_copy": rate / ceiling, "of_a_copy_of_as_many_bytes": rate / _copy_of(moved)}
    return row | {share: round(value, 3) for share, value in shares.items()}
