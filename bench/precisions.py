"""What each precision costs and buys: AP, tiles, time and size of the default engine in fp16, INT8 and FP8 beside fp32.

    python bench/precisions.py engines/nuclei-nano/model.onnx --data ../shared/data/nuclei-dsb2018 --rounds 0 \
        --output bench/evidence/precisions.json
    python bench/precisions.py engines/nuclei-nano/model.onnx --data ../shared/data/nuclei-dsb2018 \
        --case "int8, ONNX Runtime's flavour" --output bench/evidence/int8-speed.json

Ranges come from 64 images of train, the figures from test. TensorRT's flavours run on ONNX Runtime's CPU kernels, which tells
their accuracy and not their speed. The CPU's INT8 flavour is timed against fp32, in turn within every round: the whole graph, and
each backbone cut out of both graphs, from the first tensor that is rounded to the end of its last residual sum. A backbone of
the INT8 graph takes and gives float32, so that the time to round and to restore counts.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from evidence import write_evidence
from onnx.utils import Extractor

from apex_runtime.backends.onnx_contract import OnnxFile, read_onnx
from apex_runtime.backends.ort import open_session, session_options
from apex_runtime.benchmark.turns import measure, ratio
from apex_runtime.bundle.against_fp32 import compare_files
from apex_runtime.bundle.precision_pass import Rewriting
from apex_runtime.precision.convert import Conversion
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.plan import plan_for
from apex_runtime.precision.ranges import Feeds, calibration_feeds
from apex_runtime.precision.request import PrecisionRequest

CASES = {
    "fp16": ("fp16", None, "ort-cpu"),
    "int8, ONNX Runtime's flavour": ("int8", None, "ort-cpu"),
    "int8, TensorRT's flavour": ("int8", None, "tensorrt-rtx"),
    "fp8": ("fp8", None, "tensorrt-rtx"),
    "balanced": ("fp32", "balanced", "tensorrt-rtx"),
    "edge": ("fp32", "edge", "tensorrt-rtx"),
}
TIMED = "int8, ONNX Runtime's flavour"
# The tensor that enters a backbone and the one behind its last residual sum, in the default engine.
CUTS = {"peripheral": ("relu", "relu_8"), "foveal": ("relu_16", "relu_26")}
THREADS = 2


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="A set with the splits train and test.")
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), help="Only these; repeatable.")
@click.option("--rounds", default=40, show_default=True, help="Of the times of INT8; 0 for none, on a machine that is not idle.")
@click.option("--output", type=click.Path(path_type=Path))
def main(model: Path, data: Path, names: tuple[str, ...], rounds: int, output: Path | None) -> None:
    """Measure and print; ``--output`` also writes the raw samples."""
    exported = read_onnx(model)
    rows: dict[str, Any] = {}
    speed: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names or CASES:
            built, rows[name] = _row(exported, *CASES[name], data, Path(folder))
            click.echo(f"{name}: {_told(rows[name])}")
            if name == TIMED and rounds:
                speed = _speed(exported, built, data, rounds)
                for part, found in speed["parts"].items():
                    click.echo(f"  {part}: {found['fp32_ms']:.2f} -> {found['int8_ms']:.2f} ms, {found['speed_up']:.2f}x")
    if output is not None:
        contract = {"images_of_calibration": 64, "split": "test", "threads": THREADS, "rounds": rounds, "data": data.name}
        write_evidence(output, {"contract": contract, "rows": rows, "speed": speed})


def _row(
    exported: OnnxFile, precision: str, profile: str | None, backend: str, data: Path, folder: Path
) -> tuple[Path, dict[str, Any]]:
    """The file of a precision, and what was measured of it."""
    cache = folder / f"{precision}-{profile}-{backend}.json"
    request = PrecisionRequest(precision, profile, data=data, calibration_cache=cache)  # type: ignore[arg-type]
    rewriting = Rewriting.of(exported, request, backend, lambda _text: None)
    began = time.perf_counter()
    made = rewriting.run(lambda *_step: True, lambda _text: None)
    seconds = time.perf_counter() - began
    assert made.converted is not None
    path = cache.with_suffix(".onnx")
    path.write_bytes(made.file.data)
    reported = rewriting.reported()
    assert reported is not None
    measured = compare_files(exported.path, path, reported, False, lambda _done, _total: True)
    facts = {
        "calibration_and_pass_seconds": round(seconds, 1),
        "calibration_images": made.converted.calibration.images,
        "peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "functions": len(made.file.model.functions),
        "measured": measured.model_dump(mode="json"),
    }
    return path, facts


def _told(row: Mapping[str, Any]) -> str:
    budgets = (
        f"{item['budget']}: mask AP {100 * item['mask_ap']['built']:.2f} (drop {item['mask_ap']['drop_points']:.2f}), "
        f"tiles {item['tile_overlap']['mean']:.4f}"
        for item in row["measured"]["budgets"]
    )
    return f"{'; '.join(budgets)}; {row['calibration_and_pass_seconds']} s"


def _speed(exported: OnnxFile, built: Path, data: Path, rounds: int) -> dict[str, Any]:
    """The whole graph at two budgets and each backbone at all tiles, fp32 and INT8 in turn; milliseconds."""
    feeds = next(iter(calibration_feeds(precision_data(data).calibration[:1], exported.info)))
    models = {"fp32": exported.model, "int8": onnx.load(built)}
    subjects = {name: {"all tiles": _whole(model, feeds)} for name, model in models.items()}
    quarter = {**feeds, "tiles": feeds["tiles"] // 4}
    for name, model in models.items():
        subjects[name]["a quarter of the tiles"] = _whole(model, quarter)
    entering = _tensors(exported.model, [first for first, _ in CUTS.values()], feeds)
    for region, (first, last) in CUTS.items():
        for name, model in models.items():
            cut = _session(Extractor(model).extract_model([first], [last]))
            subjects[name][region] = partial(cut.run, None, {first: entering[first]})
    parts = {}
    for part in subjects["fp32"]:
        samples = measure({name: subjects[name][part] for name in models}, rounds, 5)
        parts[part] = {f"{name}_ms": float(np.median(values)) for name, values in samples.items()} | {
            "speed_up": ratio(samples["fp32"], samples["int8"]),
            "quartiles": np.quantile(np.divide(samples["fp32"], samples["int8"]), (0.25, 0.75)).tolist(),
            "samples": samples,
        }
    plan = plan_for("int8", "ort-cpu")
    assert plan is not None
    placement = Conversion(exported.model, plan).placement
    return {"tiles": int(feeds["tiles"][0]), "rounded_products": len(placement.products), "parts": parts}


def _whole(model: onnx.ModelProto, feeds: Feeds) -> Any:
    return partial(_session(model).run, None, dict(feeds))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return open_session(Path("model.onnx"), model.SerializeToString(), session_options(THREADS), ["CPUExecutionProvider"])


def _tensors(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> dict[str, np.ndarray]:
    """Tensors of the graph on one image."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return dict(zip(names, _session(changed).run(names, dict(feeds)), strict=True))


if __name__ == "__main__":
    main()
