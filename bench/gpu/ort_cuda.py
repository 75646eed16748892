"""The road of a user with a GPU and ONNX Runtime: doctor, build-engine, parity, bench, infer; the session and the device below.

    python bench/gpu/ort_cuda.py --output bench/evidence/gpu-ort-cuda.json

Commands are run as a user runs them; what they print as JSON is kept. Every section runs by itself; one that fails is written
down as failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_plugins.kernels.build import fatbin  # noqa: E402
from apex_plugins.kernels.cuda import KernelModule  # noqa: E402
from apex_plugins.tile_pack.launch import launch  # noqa: E402
from apex_plugins.tile_pack.reference import tile_pack  # noqa: E402
from apex_runtime.backends.device import open_device  # noqa: E402
from apex_runtime.backends.ort import OrtSession  # noqa: E402
from apex_runtime.backends.ort_cuda import OrtCudaSession  # noqa: E402
from apex_runtime.data.image import decode_image  # noqa: E402
from apex_runtime.postprocess.letterbox import letterbox_image  # noqa: E402
from gpu.training import device_facts  # noqa: E402

MODEL = ROOT / "engines" / "nuclei-nano" / "model.onnx"
CHECKPOINT = MODEL.with_name("checkpoint.pt")
IMAGES = ROOT / "tests" / "fixtures" / "nuclei" / "images"
PROGRAM = [sys.executable, "-c", "from apex_runtime.cli.main import main; main()"]


def command(*words: Any, seconds: int = 120) -> dict[str, Any]:
    """Run ``apex-rt`` and keep its exit status, its JSON, and what it said when that was not 0."""
    started = time.perf_counter()
    line = [*PROGRAM, *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    found: dict[str, Any] = {"rc": done.returncode, "seconds": round(time.perf_counter() - started, 1)}
    try:
        found["json"] = json.loads(done.stdout)
    except ValueError:
        found["stdout"] = done.stdout[-3000:]
    return found if done.returncode == 0 and not done.stderr.strip() else found | {"stderr": done.stderr[-3000:]}


def doctor(_: Path) -> dict[str, Any]:
    """The capability matrix."""
    return command("doctor", "--json")


def bundle(folder: Path) -> dict[str, Any]:
    """Build, and what the bundle says of itself."""
    built = command("build-engine", MODEL, "--backend", "ort-cuda", "-o", folder / "cuda", "--json")
    return {"build": built, "inspect": command("inspect", folder / "cuda", "--json")["rc"]}


def parity(folder: Path) -> dict[str, Any]:
    """Of the checkpoint in torch on the CPU, and of ONNX Runtime on the CPU, against CUDA."""
    found = {}
    for name, reference in (("ort-cpu", MODEL), ("torch", CHECKPOINT)):
        found[name] = command("parity", reference, "--against", folder / "cuda", "--json", "-o", folder / f"{name}.json")
        found[name].pop("stdout", None)
        report = found[name].pop("json", None)
        found[name] |= {"report": _short(report)}
    return found


def _short(report: Any) -> Any:
    """Without the rows of single images."""
    text = json.dumps(report)
    return report if len(text) < 30000 else {key: value for key, value in report.items() if len(json.dumps(value)) < 12000}


def latency(folder: Path) -> dict[str, Any]:
    """Per budget: the graph, with copies, end to end; one image and eight at a time; the CPU of this machine beside it."""
    bench = ("bench", "--json", "--data", IMAGES)
    return {
        "cuda": command(*bench, folder / "cuda", "--device", "cuda", "--batch", "1,8", "--seconds", 8),
        "cpu": command(*bench, MODEL, "--budget", "0.25,1.0", "--threads", 8, "--seconds", 4),
        "deadline": command(*bench, folder / "cuda", "--device", "cuda", "--budget", "4ms", "--repeat", 10),
    }


def inference(folder: Path) -> dict[str, Any]:
    """The fixture by both backends: detections over score 0.25 that have no like on the other side."""
    found: dict[str, Any] = {}
    for name, engine, device in (("cpu", MODEL, "cpu"), ("cuda", folder / "cuda", "cuda")):
        words = ("infer", IMAGES, "--engine", engine, "--device", device, "--budget", "0.25", "--output", folder / name, "--json")
        found[name] = command(*words)
    boxes = {name: _boxes(folder / name / "results.json") for name in ("cpu", "cuda")}
    found["detections"] = {name: len(items) for name, items in boxes.items()}
    found["without_their_like"] = [len(set(boxes[a]) - set(boxes[b])) for a, b in (("cpu", "cuda"), ("cuda", "cpu"))]
    return found


def _boxes(path: Path) -> list[tuple[Any, ...]]:
    rows = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    return [(row["image_id"], row["category_id"], *(round(x) for x in row["bbox"])) for row in rows if row["score"] >= 0.25]


def session(_: Path) -> dict[str, Any]:
    """The session itself: graphs captured and replayed, many request shapes, results against the CPU, eight threads."""
    gpu, cpu = OrtCudaSession(MODEL), OrtSession(MODEL)
    side, count = gpu.info.input.height, gpu.info.tiles.count
    image = letterbox_image(decode_image(sorted(IMAGES.iterdir())[0]), side, gpu.info.input.width)[0]
    rng, rows = np.random.default_rng(0), []
    shapes = [(batch, tiles) for batch in (1, 2, 8) for tiles in (1, 7, count // 4, count)] * 2
    for batch, tiles in [*shapes, *((1, tiles) for tiles in range(2, 24))]:
        images = np.stack([np.roll(image, int(rng.integers(0, side)), axis=0) for _ in range(batch)])
        bonus = rng.choice([0.0, 24.0, -24.0], (batch, count), p=[0.8, 0.1, 0.1]).astype(np.float32)
        got, wanted = gpu.run(images, tiles, bonus), cpu.run(images, tiles, bonus)
        rows.append(_differences(got, wanted) | {"batch": batch, "tiles": tiles})
    return {
        "graph_refusal": gpu.graph_refusal,
        "runs": len(rows),
        "runs_with_the_same_tiles": sum(row["same_tiles"] for row in rows),
        "worst_score": max(row["score"] for row in rows),
        "worst_utility": max(row["utility"] for row in rows),
        "worst_prototype_relative": max(row["prototype"] for row in rows),
        "others": [row for row in rows if not row["same_tiles"]][:5],
        "replays_are_equal": _replays(gpu, image, count),
    }


def _differences(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, Any]:
    largest = float(np.abs(wanted["mask_prototypes"]).max())
    return {
        "same_tiles": bool(np.array_equal(got["tile_ids"], wanted["tile_ids"])),
        "score": float(np.abs(got["scores"] - wanted["scores"]).max()),
        "utility": float(np.abs(got["utilities"] - wanted["utilities"]).max()),
        "prototype": float(np.abs(got["mask_prototypes"] - wanted["mask_prototypes"]).max()) / largest,
    }


def _replays(gpu: OrtCudaSession, image: np.ndarray, count: int) -> bool:
    """One request again and again, others between, gives the same scores to the last bit."""
    bonus, seen = np.zeros((1, count), np.float32), set()
    for turn in range(6):
        gpu.run(image[None, ::-1].copy(), 5 + turn % 2, bonus)
        seen.add(gpu.run(image[None], 16, bonus)["scores"].tobytes())
    return len(seen) == 1


def threads(folder: Path) -> dict[str, Any]:
    """Eight threads share one engine of the Python API; every result equals that of one thread."""
    import apex_runtime

    engine = apex_runtime.load(folder / "cuda", device="cuda")
    paths = sorted(IMAGES.iterdir())
    expected = [result.scores.tobytes() for result in engine.predict(paths, budget=0.25)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for place in np.random.default_rng(seed).permutation(len(paths)):
            if next(iter(engine.predict([paths[place]], budget=0.25))).scores.tobytes() != expected[place]:
                wrong.append(int(place))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"predictions": 8 * len(paths), "different": len(wrong)}


def device(_: Path) -> dict[str, Any]:
    """``CudaDevice``: memory, copies, a kernel captured as a graph and launched from it, against the reference."""
    gpu = open_device(0)
    rng = np.random.default_rng(0)
    image, ids = rng.standard_normal((2, 3, 256, 384)).astype(np.float32), np.array([[5, 0, 3], [1, 2, 4]])
    out = np.full((2, 3, 3, 144, 144), np.nan, np.float32)
    places = [gpu.allocate(array.nbytes) for array in (image, ids, out)]
    module = KernelModule(fatbin("tile_pack"))
    how = {"types": ("f32", "f32"), "shape": image.shape, "tiles": 3, "tile": 128, "halo": 8}
    what = launch(places[0], places[1], 0, places[2], **how)  # type: ignore[arg-type]
    module.launch(what, gpu.stream)
    gpu.wait()
    graph = gpu.capture(lambda: module.launch(what, gpu.stream))
    worst = 0.0
    for turn in range(3):
        image += turn
        gpu.upload(places[0], image)
        gpu.upload(places[1], ids)
        gpu.upload(places[2], np.full_like(out, np.nan))
        gpu.launch(graph)
        gpu.download(places[2], out)
        gpu.wait()
        worst = max(worst, float(np.abs(out - tile_pack(image, ids, ids * 0, tile=128, halo=8)).max()))
    gpu.free_graph(graph)
    for place in places:
        gpu.free(place)
    capability = gpu.compute_capability
    gpu.close()
    return {"compute_capability": capability, "worst_difference": worst, "nan": bool(np.isnan(out).any())}


SECTIONS: tuple[Callable[[Path], dict[str, Any]], ...] = (
    device,
    doctor,
    session,
    bundle,
    latency,
    inference,
    threads,
    parity,
)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    """Run every section and write what was seen. Exit code 1 when one failed."""
    content: dict[str, Any] = {"device": device_facts(), "onnxruntime": onnxruntime.__version__, "failed": {}}
    with tempfile.TemporaryDirectory() as name:
        for section in SECTIONS:
            started = time.perf_counter()
            try:
                content[section.__name__] = section(Path(name))
            except Exception as error:  # the other sections must not be lost with it
                content["failed"][section.__name__] = [
                    f"{type(error).__name__}: {error}",
                    *traceback.format_exc().splitlines()[-8:],
                ]
            seconds = round(time.perf_counter() - started, 1)
            shown = content.get(section.__name__, content["failed"].get(section.__name__))
            click.echo(f"{section.__name__}, {seconds} s: {json.dumps(shown)[:1500]}")
            write_evidence(output, content)
    sys.exit(bool(content["failed"]))


if __name__ == "__main__":
    main()
