"""TilePack as a TensorRT plugin: importing this module registers it. One kernel, launched ahead of time: the plan carries it.

Never executed on a GPU: unproven.
"""

# No "from __future__ import annotations": TensorRT reads the annotations, and strings would tell it nothing.
import tensorrt.plugin as trtp

from apex_plugins.kernels.tensorrt_launch import BLOCK, LETTERS, TYPES, Planned, fixed, planned, plugin_of
from apex_plugins.tile_pack.launch import grid, kernel_name, run_length
from apex_plugins.tile_pack.reference import SPEC, output_shape

IMPLEMENTATION = "plan"
PLUGIN, KERNELS = plugin_of(SPEC)  # before anything is registered: a plugin without a kernel is worse than none


@trtp.register(PLUGIN)
def describe(image: trtp.TensorDesc, ids: trtp.TensorDesc, levels: trtp.TensorDesc, tile: int, halo: int) -> trtp.TensorDesc:
    """Shape and type of the tiles."""
    return trtp.from_shape_expr(output_shape(tuple(image.shape_expr), tuple(ids.shape_expr), tile, halo), image.dtype)


@trtp.autotune(PLUGIN)
def combine(
    image: trtp.TensorDesc, ids: trtp.TensorDesc, levels: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
) -> list[trtp.AutoTuneCombination]:
    """Image and tiles in one type, all in plain layout."""
    return [trtp.AutoTuneCombination(f"{TYPES}, INT64, INT64, {TYPES}", "LINEAR")]


@trtp.aot_impl(PLUGIN)
def launch(
    image: trtp.TensorDesc,
    ids: trtp.TensorDesc,
    levels: trtp.TensorDesc,
    tile: int,
    halo: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> Planned:
    """The kernel and its launch for these types. TensorRT aligns tensors beyond what a run of pixels needs."""
    kind = LETTERS[image.dtype.name]
    batch, count = image.shape_expr[0], ids.shape_expr[1]
    channels, height, width = fixed(*tuple(image.shape_expr)[1:])
    run = run_length(kind, kind)
    blocks = grid(batch, count, channels, tile + 2 * halo, run, pixels=False)
    return planned(KERNELS, kernel_name(kind, kind), blocks, BLOCK, (count, channels, height, width, tile, halo, run))
