"""What does a tile cost? Graph latency of one exported file over K, beside a dense foveal pass of the same weights and other
detectors.

All subjects run in turn within every round, so that a change in the machine's speed hits all of them alike; quote the ratios.

    python bench/latency.py engines/nuclei-nano/checkpoint.pt --size 1024 --threads 2 --output bench/evidence/latency-1024.json
    python bench/latency.py ... --yardstick yolo11n-seg.onnx     (any ONNX file with one float image input, exported elsewhere)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime as ort
from dense import densify
from evidence import write_evidence

from apex_runtime.backends.ort import OrtSession
from apex_runtime.benchmark.turns import Subject, measure, ratio
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.split import plan_tiles
from apex_train.checkpoint import file_sha256, load_model
from apex_train.export.exporter import export_onnx
from apex_train.export.trace import trace_detector
from apex_train.model.info import model_info
from apex_train.predictor import TorchSession

SHARES = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=1024, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=25, show_default=True)
@click.option("--warmup", default=3, show_default=True)
@click.option("--yardstick", "yardsticks", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path))
def main(
    checkpoint: Path, size: int, threads: int, rounds: int, warmup: int, yardsticks: tuple[Path, ...], output: Path | None
) -> None:
    """Measure and print a table; ``--output`` also writes the raw samples."""
    with tempfile.TemporaryDirectory() as folder:
        subjects, tiles, agreement = _subjects(checkpoint, size, threads, Path(folder), yardsticks)
        samples = measure(subjects, rounds, warmup)
    medians = {name: float(np.median(values)) for name, values in samples.items()}
    everything = f"K={tiles}"
    rows = [
        {
            "subject": name,
            "median_ms": medians[name],
            "p95_ms": float(np.percentile(samples[name], 95)),
            "over_all_tiles": ratio(samples[name], samples[everything]),
        }
        for name in samples
    ]
    for row in rows:
        click.echo(
            f"{row['subject']:<20}{row['median_ms']:9.1f} ms  p95 {row['p95_ms']:7.1f}  x{row['over_all_tiles']:.3f} of all tiles"
        )
    click.echo(
        f"all tiles over dense: x{ratio(samples[everything], samples['dense']):.3f}; dense - all tiles, same image: {agreement}"
    )
    if output is not None:
        contract = {
            "timed": "graph only, batch 1, host arrays in and out, second of two calls per turn",
            "backend": "onnxruntime CPU",
            "precision": "fp32",
            "size": size,
            "threads": threads,
            "rounds": rounds,
            "warmup": warmup,
            "checkpoint_sha256": file_sha256(checkpoint),
        }
        write_evidence(
            output,
            {
                "contract": contract,
                "rows": rows,
                "dense_agreement": agreement,
                "all_tiles_over_dense": ratio(samples[everything], samples["dense"]),
                "samples_ms": samples,
            },
        )


def _subjects(
    checkpoint: Path, size: int, threads: int, folder: Path, yardsticks: tuple[Path, ...]
) -> tuple[dict[str, Subject], int, dict[str, float]]:
    model = load_model(checkpoint)
    routed = folder / "routed.onnx"
    export_onnx(model, (size, size), routed)
    info = model_info(model, size, size)
    dense_file = folder / "dense.onnx"
    dense = densify(model)
    onnx.save(trace_detector(dense, info), dense_file)
    session, dense_session = OrtSession(routed, threads=threads), OrtSession(dense_file, threads=threads)
    count = info.tiles.count
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    bonus = np.zeros((1, count), np.float32)
    content = np.ones(count, bool)
    budgets = sorted({max(1, round(share * count)) for share in SHARES} | {1})
    split = {k: plan_tiles(parse_budget(k), content, info) for k in budgets}
    subjects: dict[str, Subject] = {f"K={k}": (lambda k=k: session.run(image, split[k], bonus)) for k in budgets}
    subjects["dense"] = lambda: dense_session.run(image, split[count], bonus)
    for path in yardsticks:
        subjects[path.stem] = _yardstick(path, size, threads)
    a, b = (TorchSession(item, size, size).run(image, split[count], bonus) for item in (model, dense))
    return subjects, count, {"scores_max_abs": float(np.abs(a["scores"] - b["scores"]).max())}


def _yardstick(path: Path, size: int, threads: int) -> Subject:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    image = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    return lambda: session.run(None, {entry.name: image})


if __name__ == "__main__":
    main()
