"""The kernels of the ops on this GPU: bytes moved over the measured copy, time against the torch formulas, and the model with
and without them.

    python bench/gpu/kernels.py --output bench/evidence/gpu-kernels.json

Whether they are right is the tests' business, on the same machine (bench/gpu/checks.py). Every section runs by itself; one that
fails is written down as failed. The kernels are compiled first, which is not timed here.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_plugins.decode_nms.torch_op import decode_nms, decode_nms_formula  # noqa: E402
from apex_plugins.kernels.build import ops  # noqa: E402
from apex_plugins.kernels.cuda import KernelModule  # noqa: E402
from apex_plugins.kernels.torch_face import TYPES, use_kernels, why_not  # noqa: E402
from apex_plugins.tile_ssm_scan.torch_cuda import tile_ssm_scan_both_kernel, tile_ssm_scan_kernel  # noqa: E402
from apex_plugins.tile_ssm_scan.torch_op import tile_ssm_scan_formula  # noqa: E402
from apex_train.checkpoint import load_model  # noqa: E402
from apex_train.engine.memory import Plan  # noqa: E402
from gpu.moving import HALF, Row, eight_bits, packing, unpacking  # noqa: E402
from gpu.timed import copy_rate, eager_milliseconds, graph_milliseconds  # noqa: E402
from gpu.training import CHECKPOINT, EXACT, device_facts, repeated, trainer  # noqa: E402

# batch, tokens, heads, channels, states: that of the figure that is asked, those of the nano model, and the longest
SCANS = ((8, 256, 8, 32, 16), (1, 64, 4, 16, 16), (8, 64, 4, 16, 16), (8, 1024, 8, 32, 16))
# batch, classes, side of the image
DETECTIONS = ((8, 80, 1024), (1, 80, 1024), (1, 1, 512))
SETTINGS = (300, 333, 0.05, 0.6)
# batch, side of the images, tiles
FORWARDS = ((1, 512, 16), (8, 512, 16), (8, 512, 64), (8, 1024, 64), (8, 1024, 256))


def scanning(_: float) -> list[Row]:
    """One direction by the kernel and by the masked matrices of the formula, as replayed graphs; both directions at once."""
    return [_scan_row(*shape) for shape in SCANS]


def _scan_row(batch: int, tokens: int, heads: int, channels: int, states: int) -> Row:
    x = torch.randn(batch, tokens, heads, channels, device="cuda")
    ways = [_parameters(batch, tokens, heads, states) for _ in range(2)]
    faces: tuple[Callable[..., Tensor], ...] = (tile_ssm_scan_kernel, tile_ssm_scan_formula)
    kernel, formula = (partial(face, x, *ways[0], False) for face in faces)
    both = partial(tile_ssm_scan_both_kernel, x, *ways[0], *ways[1])
    times = {
        "kernel_microseconds": graph_milliseconds([kernel], 16) * 1000,
        "both_directions_microseconds": graph_milliseconds([both], 16) * 1000,
        "formula_microseconds": graph_milliseconds([formula]) * 1000,
        "eager_kernel_microseconds": eager_milliseconds(kernel) * 1000,
        "eager_formula_microseconds": eager_milliseconds(formula) * 1000,
    }
    shape = {"batch": batch, "tokens": tokens, "heads": heads, "channels": channels, "states": states}
    worst = float((kernel() - formula()).abs().max() / formula().abs().max())
    faster = times["formula_microseconds"] / times["kernel_microseconds"]
    rounded = {name: round(value, 2) for name, value in times.items()}
    return shape | rounded | {"times_faster": round(faster, 2), "worst_relative_difference": worst}


def _parameters(batch: int, tokens: int, heads: int, states: int) -> tuple[Tensor, ...]:
    b, c = (torch.randn(batch, tokens, states, device="cuda") for _ in range(2))
    a, d = (torch.randn(heads, device="cuda") for _ in range(2))
    return torch.rand(batch, tokens, heads, device="cuda"), a, b, c, d


def detecting(_: float) -> list[Row]:
    """The op as torch calls it, by the kernels and by the formula; the detections compared bit by bit."""
    return [_detection_row(*case, kind) for kind in (torch.float32, HALF) for case in DETECTIONS]


def _detection_row(batch: int, classes: int, side: int, kind: torch.dtype) -> Row:
    inputs = heads_of(batch, classes, side, kind)
    kernel, formula = (partial(face, *inputs, *SETTINGS) for face in (decode_nms, decode_nms_formula))
    got, wanted = kernel(), formula()
    times = eager_milliseconds(kernel) * 1000, eager_milliseconds(formula) * 1000
    return {
        "scores": [*inputs[0].shape],
        "type": TYPES[kind],
        "detections": int((wanted[3] >= 0).sum()),
        "same_detections": all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)),
        "kernel_microseconds": round(graph_milliseconds([kernel]) * 1000, 1),
        "eager_kernel_microseconds": round(times[0], 1),
        "eager_formula_microseconds": round(times[1], 1),
        "times_faster": round(times[1] / times[0], 1),
    }


def heads_of(batch: int, classes: int, side: int, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random scores (most near 0), distances, centres and strides of an image: several candidates overlap at every place."""
    centres, strides = [], []
    for stride in (8, 16, 32):
        along = (torch.arange(side // stride, device="cuda") + 0.5) * stride
        centres.append(torch.stack(torch.meshgrid(along, along, indexing="xy"), -1).reshape(-1, 2))
        strides.append(torch.full((len(centres[-1]),), float(stride), device="cuda"))
    of_anchor = torch.cat(strides)
    zero = torch.zeros((), device="cuda")
    scores = torch.distributions.Beta(zero + 0.3, zero + 4.0).sample((batch, len(of_anchor), classes)).to(kind)
    reach = torch.rand(batch, len(of_anchor), 4, device="cuda") * 48 / of_anchor[:, None]
    return scores, reach, torch.cat(centres), of_anchor


def model(_: float) -> list[Row]:
    """Forward passes of the shipped weights, eager, with the kernels and with the formulas; outputs compared."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = load_model(CHECKPOINT).cuda().eval()
    return [_forward_row(network, *case, kind) for case in FORWARDS for kind in (torch.float32, HALF)]


def _forward_row(network: Any, batch: int, side: int, tiles: int, kind: torch.dtype) -> Row:
    images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device="cuda")
    bonus = torch.zeros(batch, (side // network.config.tile) ** 2, device="cuda")

    def forward() -> Any:
        with torch.no_grad(), torch.autocast("cuda", HALF, enabled=kind == HALF):
            return network(images, tiles, bonus)

    kernel = eager_milliseconds(forward)
    with patch.object(KernelModule, "launch", autospec=True, side_effect=KernelModule.launch) as launch:
        got = forward()
    with use_kernels(False):
        formula, wanted = eager_milliseconds(forward), forward()
    pairs = [(getattr(got.heads, name), getattr(wanted.heads, name)) for name in ("one", "ltrb", "prototypes")]
    return {
        "batch": batch,
        "side": side,
        "tiles": tiles,
        "type": TYPES[kind],
        "kernels": sorted({call.args[1].kernel for call in launch.call_args_list}),
        "kernels_milliseconds": round(kernel, 3),
        "formulas_milliseconds": round(formula, 3),
        "same_tiles": bool(torch.equal(got.tile_ids, wanted.tile_ids)),
        "worst_relative_difference": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs),
    }


def training(_: float) -> list[Row]:
    """A step of training, eager, with the kernels in its forward pass and without; the losses of the same steps compared."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for amp in ("off", "bf16"):
            times, losses = [], []
            for name, keep in (("kernels", nullcontext), ("formulas", partial(use_kernels, False))):
                run = trainer(Path(folder) / f"{amp}-{name}", EXACT | {"train.amp": amp, "train.epochs": 200})
                many = repeated(next(iter(run.loader)), 16)
                run.governor.plan = Plan(16)
                with keep():
                    losses.append([run.train_step(many)["total"] for _ in range(8)])
                    times.append(eager_milliseconds(partial(run.train_step, many)))
            worst = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
            rows.append(
                {
                    "amp": amp,
                    "images": 16,
                    "crop": 256,
                    "kernels_milliseconds": round(times[0], 2),
                    "formulas_milliseconds": round(times[1], 2),
                    "worst_relative_difference_of_eight_losses": worst,
                }
            )
    return rows


SECTIONS: tuple[Callable[[float], list[Row]], ...] = (packing, unpacking, scanning, detecting, eight_bits, model, training)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    """Compile, measure the copy, then every section; write after each. Exit code 1 when one failed."""
    started = time.perf_counter()
    content: dict[str, Any] = {"device": device_facts(), "cuda": torch.version.cuda}
    content["not_available"] = {op: str(reason) for op in ops() if (reason := why_not(op)) is not None}
    content["ready_after_seconds"] = round(time.perf_counter() - started, 2)
    ceiling = copy_rate(2**33, 1)
    content |= {"copy_terabytes_per_second": round(ceiling / 1e12, 3), "seconds": {}, "failed": {}}
    click.echo(str(content))
    for section in SECTIONS:
        started = time.perf_counter()
        try:
            content[section.__name__] = rows = section(ceiling)
        except Exception as error:  # the other sections must not be lost with it
            where = traceback.format_exc().splitlines()[-8:]
            rows = []
            content["failed"][section.__name__] = [f"{type(error).__name__}: {error}", *where]
            click.echo(f"{section.__name__} failed: {error}\n" + "\n".join(where))
        content["seconds"][section.__name__] = round(time.perf_counter() - started, 1)
        for row in rows:
            click.echo(f"{section.__name__}: {row}")
        torch.cuda.empty_cache()
        write_evidence(output, content)
    sys.exit(bool(content["failed"] or content["not_available"]))


if __name__ == "__main__":
    main()
