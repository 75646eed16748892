"""TileUnpackFusion as a TensorRT plugin: importing this module registers it. One kernel, ahead of time: the plan carries it.

The kernel writes all of a map of its own, see ``whole.h``: an output in the place of an input is a preview feature that the
builder would have to be told about.

Never executed on a GPU: unproven.
"""

# No "from __future__ import annotations": TensorRT reads the annotations, and strings would tell it nothing.
import tensorrt.plugin as trtp

from apex_plugins.kernels.tensorrt_launch import BLOCK, LETTERS, TYPES, Planned, fixed, planned, plugin_of
from apex_plugins.spec import TILE_CELL
from apex_plugins.tile_unpack_fusion.launch import run_length, whole_grid, whole_kernel_name
from apex_plugins.tile_unpack_fusion.reference import SPEC

IMPLEMENTATION = "plan"
PLUGIN, KERNELS = plugin_of(SPEC)  # before anything is registered: a plugin without a kernel is worse than none


@trtp.register(PLUGIN)
def describe(
    base: trtp.TensorDesc,
    tiles: trtp.TensorDesc,
    ids: trtp.TensorDesc,
    levels: trtp.TensorDesc,
    alpha: trtp.TensorDesc,
    tile: int,
) -> trtp.TensorDesc:
    """The merged map has the shape and the type of the base."""
    return base.like()


@trtp.autotune(PLUGIN)
def combine(
    base: trtp.TensorDesc,
    tiles: trtp.TensorDesc,
    ids: trtp.TensorDesc,
    levels: trtp.TensorDesc,
    alpha: trtp.TensorDesc,
    outputs: tuple[trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """Maps, tiles and alpha in one type, all in plain layout."""
    return [trtp.AutoTuneCombination(f"{TYPES}, {TYPES}, INT64, INT64, {TYPES}, {TYPES}", "LINEAR")]


@trtp.aot_impl(PLUGIN)
def launch(
    base: trtp.TensorDesc,
    tiles: trtp.TensorDesc,
    ids: trtp.TensorDesc,
    levels: trtp.TensorDesc,
    alpha: trtp.TensorDesc,
    tile: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> Planned:
    """The kernel and its launch for these types. TensorRT aligns tensors beyond what a run of cells needs."""
    kind, cells = LETTERS[base.dtype.name], tile // TILE_CELL
    batch, count = base.shape_expr[0], ids.shape_expr[1]
    channels, height, width = fixed(*tuple(base.shape_expr)[1:])
    run = run_length(cells, kind)
    blocks = whole_grid(batch, (channels, height, width), cells, run)
    return planned(KERNELS, whole_kernel_name(kind), blocks, BLOCK, (count, channels, height, width, cells, run))
