"""The heavy layers of the foveal stream as matrix products in FP8 (E4M3) against FP16: how far off, how fast.

    python bench/gpu/fp8.py --output bench/evidence/gpu-fp8.json

Each convolution is one product: patches [M,K] of real activations times weights [K,N]. Beside it stands the convolution itself in
FP16, which makes no patches: what FP8 has to beat. Needs sm_89 or newer.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_runtime.data.image import decode_image  # noqa: E402
from apex_runtime.postprocess.letterbox import letterbox_image  # noqa: E402
from apex_train.checkpoint import load_model  # noqa: E402
from gpu.timed import graph_milliseconds  # noqa: E402
from gpu.training import CHECKPOINT, FIXTURE, device_facts  # noqa: E402

HALF, EIGHT, LARGEST = torch.float16, torch.float8_e4m3fn, 448.0
SIDE = 512
# Products of a size at which the unit and not the memory decides, for comparison: M, K, N.
SQUARE = (8192, 8192, 8192)


def activations(model: nn.Module) -> dict[str, tuple[nn.Conv2d, Tensor]]:
    """The input of every convolution of the foveal stream for eight real images, all tiles, by the layer's name; FP16."""
    found: dict[str, tuple[nn.Conv2d, Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(layer: nn.Conv2d, inputs: tuple[Tensor]) -> None:
            found[name] = (layer, inputs[0].to(HALF).contiguous(memory_format=torch.channels_last))

        return hook

    stream = model.foveal
    hooks = [item.register_forward_pre_hook(keep(name)) for name, item in stream.named_modules() if isinstance(item, nn.Conv2d)]
    paths = sorted((FIXTURE / "images").iterdir())
    images = np.stack([letterbox_image(decode_image(path), SIDE, SIDE)[0] for path in paths])
    count = (SIDE // int(model.config.tile)) ** 2
    with torch.no_grad():
        model(torch.from_numpy(images).cuda(), count, torch.zeros(len(images), count, device="cuda"))
    for hook in hooks:
        hook.remove()
    return found


def eight(matrix: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """E4M3 and what it is to be multiplied by: one number, or one for each row (``dim`` 1) or column (0); saturates."""
    largest = matrix.float().abs().amax() if dim is None else matrix.float().abs().amax(dim, keepdim=True)
    scale = largest.clamp(min=1e-12) / LARGEST
    return (matrix.float() / scale).clamp(-LARGEST, LARGEST).to(EIGHT), scale


def layer_row(name: str, layer: nn.Conv2d, x: Tensor) -> dict[str, Any]:
    """One layer: errors relative to the product in float32, times of the products and of the convolution."""
    weight = layer.weight.detach().to(HALF)
    k = weight[0].numel()
    patches = F.unfold(x[: max(1, len(x) // 4)], layer.kernel_size, padding=layer.padding, stride=layer.stride)
    a = patches.transpose(1, 2).reshape(-1, k).contiguous()
    b = weight.reshape(len(weight), -1).t()
    row: dict[str, Any] = {"layer": name, "M": a.shape[0], "K": k, "N": b.shape[1]}
    if k % 16 or b.shape[1] % 16:
        return row | {"left_out": "K or N is not a multiple of 16"}
    part = x[: max(1, len(x) // 4)].contiguous(memory_format=torch.channels_last)
    kernel = weight.contiguous(memory_format=torch.channels_last)
    convolve = partial(F.conv2d, part, kernel, None, layer.stride, layer.padding)
    return row | products(a, b) | {"fp16_convolution_microseconds": _microseconds(convolve)}


def products(a: Tensor, b: Tensor) -> dict[str, Any]:
    """a [M,K] times b [K,N], FP16: in FP16, in FP8 with one scale each, and with one for each row and column."""
    wanted = a.float() @ b.float()
    found: dict[str, Any] = {"fp16_error": _error(a @ b, wanted), "fp16_microseconds": _microseconds(partial(torch.mm, a, b))}
    for name, dims in (("one_scale", (None, None)), ("scales_of_rows", (1, 0))):
        (a8, scale_a), (b8, scale_b) = eight(a, dims[0]), eight(b, dims[1])
        b8 = b8.t().contiguous().t()  # the unit takes it by columns
        multiply = partial(torch._scaled_mm, a8, b8, scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16)
        found[f"fp8_{name}_error"] = _error(multiply(), wanted)
        found[f"fp8_{name}_microseconds"] = _microseconds(multiply)
    found["times_faster_than_fp16_product"] = round(found["fp16_microseconds"] / found["fp8_one_scale_microseconds"], 2)
    return found


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted).norm() / wanted.norm())


def _microseconds(call: Any) -> float:
    return round(graph_milliseconds([call]) * 1000, 2)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    """Measure every layer, and one large square product."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = load_model(CHECKPOINT).cuda().eval()
    content: dict[str, Any] = {"device": device_facts(), "layers": []}
    with torch.no_grad():
        for name, (layer, x) in activations(model).items():
            content["layers"].append(layer_row(name, layer, x))
            click.echo(str(content["layers"][-1]))
            torch.cuda.empty_cache()
        m, k, n = SQUARE
        content["square"] = {"M": m, "K": k, "N": n} | products(
            torch.randn(m, k, device="cuda", dtype=HALF), torch.randn(k, n, device="cuda", dtype=HALF) / k**0.5
        )
    click.echo(str(content["square"]))
    write_evidence(output, content)


if __name__ == "__main__":
    main()
