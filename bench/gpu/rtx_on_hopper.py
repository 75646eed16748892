"""Does TensorRT for RTX build for, load and run on this GPU? It names no target for Hopper, so the answer is an experiment.

    python bench/gpu/rtx_on_hopper.py engines/nuclei-nano/model.onnx --output bench/evidence/rtx-on-hopper.json

Tried: plans for the running GPU (CURRENT), sm_89 and sm_120; each is loaded, and where it loads, run at three budgets on a
sample image against ONNX Runtime on the CPU, and timed. What is refused is written down in the library's own words.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_runtime.backends import tensorrt_builder as builder  # noqa: E402
from apex_runtime.backends.onnx_contract import read_onnx  # noqa: E402
from apex_runtime.backends.ort import OrtSession  # noqa: E402
from apex_runtime.backends.tensorrt_api import load_flavour, make_logger  # noqa: E402
from apex_runtime.data.image import decode_image  # noqa: E402
from apex_runtime.postprocess.letterbox import letterbox_image  # noqa: E402
from gpu.training import device_facts  # noqa: E402

REPETITIONS = 50


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(model: Path, output: Path) -> None:
    """Try, and write what happened."""
    trt = load_flavour("tensorrt-rtx")
    content: dict[str, Any] = {"device": device_facts(), "tensorrt_rtx": trt.__version__, "targets": {}}
    file = read_onnx(model)
    image = letterbox_image(
        decode_image(sorted((ROOT / "engines" / "samples").glob("*.*g"))[0]), file.info.input.height, file.info.input.width
    )[0][None]
    reference = OrtSession(model, None)
    for name in ("CURRENT", "SM89", "SM120"):
        words: list[str] = []
        try:
            found = _attempt(trt, file, getattr(trt.ComputeCapability, name), image, reference, words)
        except Exception as error:  # each refusal is a result
            found = {"failed": f"{type(error).__name__}: {error}"}
        content["targets"][name] = found | {"log": words[-6:]}
        click.echo(f"{name}: {content['targets'][name]}")
        write_evidence(output, content)


def _attempt(trt: Any, file: Any, target: Any, image: np.ndarray, reference: OrtSession, words: list[str]) -> dict[str, Any]:
    logger = make_logger(trt, words.append)
    started = time.perf_counter()
    plan = builder._build_one(trt, file, 0, target, 1, logger, None)
    found: dict[str, Any] = {"built_seconds": round(time.perf_counter() - started, 2), "bytes": len(plan)}
    runtime = trt.Runtime(logger)
    started = time.perf_counter()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return found | {"loaded": False, "errors": logger.errors[:3]}
    found |= {"loaded": True, "load_seconds": round(time.perf_counter() - started, 2)}
    context = engine.create_execution_context()
    count = file.info.tiles.count
    found["runs"] = [_run(trt, engine, context, image, tiles, count, reference) for tiles in (1, count // 4, count)]
    return found


def _run(trt: Any, engine: Any, context: Any, image: np.ndarray, tiles: int, count: int, reference: OrtSession) -> dict[str, Any]:
    bonus = np.zeros((1, count), np.float32)
    expected = reference.run(image, tiles, bonus)
    inputs = {"images": torch.from_numpy(image).cuda(), "tile_bonus": torch.from_numpy(bonus).cuda()}
    budget = np.array([tiles], np.int64)
    for name, value in inputs.items():
        context.set_input_shape(name, tuple(value.shape))
        context.set_tensor_address(name, value.data_ptr())
    context.set_tensor_address("tiles", budget.ctypes.data)
    outputs = {}
    for name, value in expected.items():
        outputs[name] = torch.empty(value.shape, dtype=torch.from_numpy(value).dtype, device="cuda")
        context.set_tensor_address(name, outputs[name].data_ptr())
    stream = torch.cuda.Stream()
    if not context.execute_async_v3(stream.cuda_stream):
        return {"tiles": tiles, "executed": False}
    stream.synchronize()
    milliseconds = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        milliseconds.append((time.perf_counter() - started) * 1000)
    got = {name: value.cpu().numpy() for name, value in outputs.items()}
    return {
        "tiles": tiles,
        "executed": True,
        "same_tiles": bool(np.array_equal(got["tile_ids"], expected["tile_ids"])),
        "scores_worst": float(np.abs(got["scores"] - expected["scores"]).max()),
        "same_candidates": bool(np.array_equal(got["candidate_ids"], expected["candidate_ids"])),
        "boxes_worst_pixels": float(np.abs(got["boxes"] - expected["boxes"])[0, :50].max()),
        "graph_milliseconds": {"median": float(np.median(milliseconds)), "p95": float(np.percentile(milliseconds, 95))},
    }


if __name__ == "__main__":
    main()
