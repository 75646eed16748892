"""Where does the time of a training step go on a GPU: processor time by operator, kernels by time, and the parts of a step.

python bench/gpu/profile_step.py --output bench/evidence/gpu-step-profile.json
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_train.data.loader import Batch  # noqa: E402
from apex_train.engine.memory import Plan  # noqa: E402
from apex_train.engine.step import draw_step  # noqa: E402
from apex_train.engine.trainer import Trainer  # noqa: E402
from gpu.training import SMALL, device_facts, repeated, trainer  # noqa: E402

STEPS = 10


@click.command()
@click.option("--amp", default="bf16", show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(amp: str, batch: int, output: Path) -> None:
    """Profile ``train_step`` on a batch of the fixture, crop 256."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"train.amp": amp, "train.epochs": 200, "train.batch": 5, "routing.all_tiles": 1, "train.micro_batch": batch}
        run = trainer(Path(folder), SMALL | options)
        many = repeated(next(iter(run.loader)), batch)
        run.governor.plan = Plan(batch)
        for _ in range(6):
            run.train_step(many)
        content: dict[str, Any] = {
            "device": device_facts(),
            "amp": amp,
            "batch": batch,
            "milliseconds": parts(run, many),
            "operators": operators(run, many),
        }
    for row in content["operators"]["by_processor_time"][:12] + content["operators"]["by_kernel_time"][:12]:
        click.echo(str(row))
    click.echo(str(content["milliseconds"]))
    write_evidence(output, content)


def parts(run: Trainer, batch: Batch) -> dict[str, float]:
    """Milliseconds of a whole step and of its parts, each waited for."""
    images, objects = len(batch), batch.objects
    draw = draw_step(run.config, run.step, run.total_steps, run.tile_count, images, slice(None))
    moved = batch.to(run.placement.device)
    bonus = torch.zeros(images, run.tile_count, device=run.placement.device)

    def forward() -> Any:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=run.stepper.amp != "off"):
            return run.model(moved.images, draw.tiles, bonus, with_peripheral=draw.with_peripheral)

    return {
        "step": _milliseconds(lambda: run.train_step(batch)),
        "gradients": _milliseconds(lambda: run.stepper.gradients(batch, draw, run.governor.plan, images, objects)),
        "forward": _milliseconds(forward),
        "copy": _milliseconds(lambda: batch.to(run.placement.device)),
        "optimizer": _milliseconds(run.optimizer.step),
        "average": _milliseconds(lambda: run.average.update(run.model)),
    }


def _milliseconds(run: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(STEPS):
        run()
    torch.cuda.synchronize()
    return round((time.perf_counter() - started) * 1000 / STEPS, 2)


def operators(run: Trainer, batch: Batch) -> dict[str, Any]:
    """The heaviest operators of four steps, per step: calls, processor and kernel milliseconds of their own."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(4):
            run.train_step(batch)
        torch.cuda.synchronize()
    rows = [
        {
            "name": item.key[:80],
            "calls": item.count / 4,
            "processor_ms": round(item.self_cpu_time_total / 4000, 3),
            "kernel_ms": round(item.self_device_time_total / 4000, 3),
        }
        for item in seen.key_averages()
    ]
    top = {
        "by_processor_time": sorted(rows, key=lambda row: -row["processor_ms"])[:30],
        "by_kernel_time": sorted(rows, key=lambda row: -row["kernel_ms"])[:20],
    }
    return top | {"kernel_ms": round(sum(row["kernel_ms"] for row in rows), 2)}


if __name__ == "__main__":
    main()
