"""What only a GPU can show of training: agreement with the CPU, memory that really runs out, mixed precision, resuming.

    python bench/gpu/training.py --output bench/evidence/gpu-training.json

Every section runs by itself; one that fails is written down as failed, with the error. Data: the fixture of the tests.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_runtime.data.open import open_dataset  # noqa: E402
from apex_train.checkpoint import load_model, read_checkpoint  # noqa: E402
from apex_train.config import load_config  # noqa: E402
from apex_train.data.loader import Batch  # noqa: E402
from apex_train.engine.memory import OutOfMemoryError, Plan  # noqa: E402
from apex_train.engine.probe import most_objects, worst_batch  # noqa: E402
from apex_train.engine.step import Draw, Question  # noqa: E402
from apex_train.engine.trainer import Trainer  # noqa: E402
from apex_train.losses.compute import compute_training_losses  # noqa: E402

FIXTURE = ROOT / "tests" / "fixtures" / "nuclei"
CHECKPOINT = ROOT / "engines" / "nuclei-nano" / "checkpoint.pt"
SMALL = {"train.size": 256, "train.crop": 256, "train.batch": 4, "train.workers": 0, "train.warmup_steps": 1}
EXACT = SMALL | {"train.norm_statistics": "frozen", "train.amp": "off"}
CUDA = torch.device("cuda")


def trainer(folder: Path, options: dict[str, Any], device: str = "cuda") -> Trainer:
    """A run on the fixture."""
    config = load_config(None, options | {"train.device": device})
    return Trainer(config, open_dataset(FIXTURE, "train"), None, folder, Console(file=io.StringIO()))


def worst_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest |difference| over the largest value, over all tensors of floating point."""
    pairs = [(a[key].cpu(), b[key].cpu()) for key in a if a[key].is_floating_point()]
    return max(float((x - y).abs().max() / x.abs().max().clamp(min=1e-12)) for x, y in pairs)


def agreement(_: Path) -> dict[str, Any]:
    """Forward pass, losses and gradients of the shipped weights on both devices, fp32, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = []
    for size, images, tiles in ((64, 3, 1), (192, 2, 5), (256, 4, 16), (512, 2, 64), (1024, 1, 100)):
        found = {}
        for device in ("cpu", "cuda"):
            model = load_model(CHECKPOINT).to(device).train()
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
            batch = worst_batch(images, 20, size).to(torch.device(device))
            bonus = torch.zeros(images, (size // 64) ** 2, device=device)
            outputs = model(batch.images, tiles, bonus, with_peripheral=True)
            loss, terms = compute_training_losses(outputs, batch, load_config(None, {}).loss)
            loss.backward()
            found[device] = (
                outputs.tile_ids.cpu(),
                {key: value.detach().cpu() for key, value in terms.items()},
                {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None},
            )
        (ids, terms, grads), (ids_gpu, terms_gpu, grads_gpu) = found["cpu"], found["cuda"]
        rows.append(
            {
                "size": size,
                "images": images,
                "tiles": tiles,
                "same_tiles": bool(torch.equal(ids, ids_gpu)),
                "terms_worst_relative": max(
                    float((terms[k] - terms_gpu[k]).abs() / terms[k].abs().clamp(min=1e-6)) for k in terms
                ),
                "gradients_worst_relative": worst_difference(grads, grads_gpu),
            }
        )
    return {"rows": rows}


def resuming(folder: Path) -> dict[str, Any]:
    """Four epochs against two and two more, with ``train.deterministic``, per mixed precision; after ``determinism``."""
    found = {}
    for amp in ("off", "bf16", "fp16"):
        options = EXACT | {"train.epochs": 4, "train.amp": amp, "train.deterministic": True}
        whole, parts = folder / f"{amp}-whole", folder / f"{amp}-parts"
        trainer(whole, options).fit()
        trainer(parts, options).fit(stop_after_epoch=2)
        second = trainer(parts, options)
        second.resume(parts / "last.pt")
        second.fit()
        found[amp] = worst_difference(*(read_checkpoint(path / "last.pt")["training"]["raw_model"] for path in (whole, parts)))
    return {"weights_worst_relative": found}


def determinism(folder: Path) -> dict[str, Any]:
    """The same run twice, without and then with ``train.deterministic``, which is a switch of the whole process."""
    found = {}
    for switch in (False, True):
        for amp in ("off", "bf16"):
            states = []
            for name in ("a", "b"):
                options = SMALL | {"train.epochs": 6, "train.amp": amp, "train.deterministic": switch}
                run = trainer(folder / f"{switch}-{amp}-{name}", options)
                run.fit()
                states.append(run.model.state_dict())
            found[f"{amp}, {'deterministic' if switch else 'default'}"] = worst_difference(*states)
    return {"weights_worst_relative": found}


def out_of_memory(folder: Path) -> dict[str, Any]:
    """A real one: the allocator is held to a share of what the step needs; the run goes on, the losses are the same."""
    options = EXACT | {"train.batch": 5, "train.size": 1024, "train.crop": 1024, "train.epochs": 4, "train.micro_batch": 5}
    calm = trainer(folder / "calm", options)
    torch.cuda.reset_peak_memory_stats()
    calm.fit()
    need, whole = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    found: dict[str, Any] = {"peak_bytes_undisturbed": need, "runs": []}
    for share in (0.6, 0.3, 0.18, 0.05):
        run = trainer(folder / f"held-{share}", options)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(need * share / whole)
        try:
            run.fit()
            losses = [(a["total"], b["total"]) for a, b in zip(calm.history, run.history, strict=True)]
            outcome: dict[str, Any] = {
                "steps": run.step,
                "recoveries": run.governor.recoveries,
                "plan": str(run.governor.plan),
                "peak_bytes": run.history[-1]["memory"]["peak"],
                "losses_worst_relative": max(abs(a - b) / a for a, b in losses),
            }
        except OutOfMemoryError as error:
            outcome = {"gave_up": error.message}
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        found["runs"].append({"share_of_need": share} | outcome)
    return found


def probing(folder: Path) -> dict[str, Any]:
    """What the probe chooses for a large batch when all memory is there, and when there is little, and how long it takes."""
    found = []
    for gigabytes in (None, 8, 2, 1):
        run = trainer(folder / str(gigabytes), {"train.batch": 5, "train.size": 1024, "train.crop": 1024, "train.workers": 0})
        torch.cuda.empty_cache()
        if gigabytes:
            torch.cuda.set_per_process_memory_fraction(gigabytes * 2**30 / torch.cuda.get_device_properties(0).total_memory)
        started = time.perf_counter()
        try:
            run._prepare()
            chosen = str(run.governor.plan)
        except OutOfMemoryError as error:
            chosen = error.message
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        found.append({"gigabytes": gigabytes, "chosen": chosen, "seconds": round(time.perf_counter() - started, 2)})
    objects = most_objects(open_dataset(FIXTURE, "train"), load_config(None, {}))
    return {"crop": 1024, "objects": objects, "probes": found}


def precision(folder: Path) -> dict[str, Any]:
    """Steps per second and loss after 40 steps on one batch of 16, crop 256, per mixed precision; the scale fp16 settled on."""
    rows = []
    for amp in ("off", "bf16", "fp16"):
        run = trainer(folder / amp, SMALL | {"train.amp": amp, "train.epochs": 200, "train.batch": 5, "routing.all_tiles": 1})
        batch = next(iter(run.loader))
        many = repeated(batch, 16)
        run.governor.plan = Plan(16)
        for _ in range(5):
            run.train_step(many)
        torch.cuda.synchronize()
        started = time.perf_counter()
        losses = [run.train_step(many)["total"] for _ in range(40)]
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {
            "amp": amp,
            "steps_per_second": round(40 / seconds, 2),
            "first_loss": losses[0],
            "last_loss": losses[-1],
        }
        rows.append(row | {"bad_steps": run.bad_steps, "scale": run.scaler.get_scale() if run.scaler.is_enabled() else None})
    return {"rows": rows}


def repeated(batch: Batch, count: int) -> Batch:
    """A batch of ``count`` images made of those of ``batch``."""
    return Batch(**{name: _fold(value, count) for name, value in vars(batch).items()})


def _fold(value: Any, count: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value.repeat(-(-count // len(value)), *[1] * (value.ndim - 1))[:count]
    return (value * count)[:count]


def recomputation(folder: Path) -> dict[str, Any]:
    """What the last rung costs and saves: peak memory and time of a worst batch of 8, crop 512, with and without it."""
    rows = []
    for recompute in (False, True):
        run = trainer(folder / str(recompute), SMALL | {"train.amp": "off"})
        run.model.train()
        batch, count = worst_batch(8, 60, 512), 64
        zeros = np.zeros((8, count), np.float32)
        draw = Draw(count, zeros, with_peripheral=True, question=Question(np.zeros(8, bool), 0, (0,), zeros))
        plan = Plan(8, recompute)
        run.stepper.gradients(batch, draw, plan, 8, 480)
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            run.stepper.gradients(batch, draw, plan, 8, 480)
        torch.cuda.synchronize()
        rows.append(
            {
                "recompute": recompute,
                "peak_bytes": torch.cuda.max_memory_allocated(),
                "milliseconds": round((time.perf_counter() - started) * 200, 1),
            }
        )
    return {"rows": rows}


def device_facts() -> str:
    """Name, driver and memory of the GPU, as nvidia-smi says them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip()


SECTIONS: tuple[Callable[[Path], dict[str, Any]], ...] = (
    agreement,
    out_of_memory,
    probing,
    precision,
    recomputation,
    determinism,
    resuming,
)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    """Run every section and write what was seen. Exit code 1 when one failed."""
    content: dict[str, Any] = {"device": device_facts(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for section in SECTIONS:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = section(Path(folder))
            except Exception as error:  # the other sections must not be lost with it
                found = {"failed": f"{type(error).__name__}: {error}", "where": traceback.format_exc().splitlines()[-6:]}
        content[section.__name__] = found | {"seconds": round(time.perf_counter() - started, 1)}
        click.echo(f"{section.__name__}: {content[section.__name__]}")
        write_evidence(output, content)
    sys.exit(any("failed" in content[section.__name__] for section in SECTIONS))


if __name__ == "__main__":
    main()
