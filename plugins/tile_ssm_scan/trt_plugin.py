"""TileSSMScan as a TensorRT plugin: importing this module registers it. One kernel, launched ahead of time: the plan carries it.

Never executed on a GPU: unproven.
"""

# No "from __future__ import annotations": TensorRT reads the annotations, and strings would tell it nothing.
import tensorrt.plugin as trtp

from apex_plugins.kernels.tensorrt_launch import BLOCK, LETTERS, TYPES, Planned, fixed, planned, plugin_of
from apex_plugins.tile_ssm_scan.launch import STATES, blocks, cut, kernel_name, sizes
from apex_plugins.tile_ssm_scan.reference import SPEC

IMPLEMENTATION = "plan"
PLUGIN, KERNELS = plugin_of(SPEC)  # before anything is registered: a plugin without a kernel is worse than none


@trtp.register(PLUGIN)
def describe(
    x: trtp.TensorDesc,
    dt: trtp.TensorDesc,
    A: trtp.TensorDesc,
    Bm: trtp.TensorDesc,
    Cm: trtp.TensorDesc,
    D: trtp.TensorDesc,
    reverse: int,
) -> trtp.TensorDesc:
    """y has the shape and the type of x."""
    return x.like()


@trtp.autotune(PLUGIN)
def combine(
    x: trtp.TensorDesc,
    dt: trtp.TensorDesc,
    A: trtp.TensorDesc,
    Bm: trtp.TensorDesc,
    Cm: trtp.TensorDesc,
    D: trtp.TensorDesc,
    outputs: tuple[trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """All in one type and in plain layout; the state is float32 in any case."""
    return [trtp.AutoTuneCombination(", ".join([TYPES] * 7), "LINEAR")]


@trtp.aot_impl(PLUGIN)
def launch(
    x: trtp.TensorDesc,
    dt: trtp.TensorDesc,
    A: trtp.TensorDesc,
    Bm: trtp.TensorDesc,
    Cm: trtp.TensorDesc,
    D: trtp.TensorDesc,
    reverse: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> Planned:
    """The kernel and its launch for these types. TensorRT aligns tensors beyond what quads need; rows are looked at."""
    batch, tokens = tuple(x.shape_expr)[:2]
    heads, channels, states = fixed(*tuple(x.shape_expr)[2:], Bm.shape_expr[2])
    aligned = channels % STATES == 0 and states % STATES == 0
    return planned(
        KERNELS,
        kernel_name(LETTERS[x.dtype.name]),
        (blocks(batch, heads, channels, states), 1, 1),
        BLOCK,
        (*sizes(tokens, heads, channels, states, aligned), reverse),
        shared_bytes=cut(channels, states).shared_bytes,
    )
