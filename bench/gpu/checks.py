"""Are the kernels right on this GPU? The tests of the host faces, run on the GPU, alone and under NVIDIA's compute-sanitizer.

    python bench/gpu/checks.py --output bench/evidence/gpu-checks.json

Every array of a test lies in device memory of its own size, outputs are poisoned, shapes are random, odd and extreme. All runs
are made side by side; each counts its tests and, under the sanitizer, its errors.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from evidence import write_evidence  # noqa: E402

from apex_plugins.kernels.build import build, ops  # noqa: E402
from gpu.training import device_facts  # noqa: E402

HOST, SCAN, NMS, TRT = (f"tests/plugins/test_{name}.py" for name in ("host_faces", "scan_host", "decode_nms_host", "trt_kernels"))
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
PLAIN: dict[str, list[str]] = {
    "random, odd and extreme inputs": ["-n", "6", HOST, SCAN, NMS, TRT],
    "as torch calls them": ["-n", "0", "-k", "cuda", "tests/plugins/test_faces.py"],
}
FEW = ["-k", "not thousand"]  # some tools slow a run a hundredfold
RACES = (
    "chain or addresses or anchor",
    "limits and 1000",
    "levels",
    "full and alone and f16 and 80",
    "full and two and f32 and 80",
)
SANITIZED: list[tuple[str, list[str]]] = [
    *(("memcheck", [path]) for path in (HOST, SCAN, NMS, TRT)),
    *(("racecheck", [path, *FEW]) for path in (SCAN, TRT)),  # those with shared memory
    *(("racecheck", [NMS, "-k", names]) for names in RACES),
    *(("synccheck", [path, *FEW]) for path in (SCAN, NMS)),
    *(("initcheck", [path, *FEW]) for path in (HOST, SCAN, NMS, TRT)),
]


@click.command()
@click.option("--seconds", default=150, show_default=True, help="For each run.")
@click.option("--only", default="", help="Runs with this in their name.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(seconds: int, only: str, output: Path) -> None:
    """Compile, run everything, write. Exit code 1 when a run failed, found an error, or ran no test."""
    content: dict[str, Any] = {"device": device_facts(), "compiled_seconds": {op: round(build(op).seconds, 1) for op in ops()}}
    runs = {name: [*PYTEST, *words] for name, words in PLAIN.items()}
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is not None:
        for tool, words in SANITIZED:
            path = Path(words[0]).stem.removeprefix("test_")
            head = [sanitizer, "--tool", tool, "--error-exitcode", "99", "--print-limit", "5"]
            few = "" if words[1:] in ([], FEW) else f": {words[-1]}"
            runs[f"{tool}, {path}{few}"] = [*head, *PYTEST, "-n", "0", *words]
    runs = {name: words for name, words in runs.items() if only in name}
    with ThreadPoolExecutor(len(runs)) as pool:
        found = dict(zip(runs, pool.map(lambda command: run(command, seconds), runs.values()), strict=True))
    for name, row in found.items():
        click.echo(f"{name}: {row}")
    write_evidence(output, content | {"sanitizer": sanitizer is not None, "runs": found})
    sys.exit(
        not all(row["rc"] == 0 and row["passed"] > 0 and (name in PLAIN or row["errors"] == 0) for name, row in found.items())
    )


def run(command: list[str], seconds: int) -> dict[str, Any]:
    """Exit status, tests passed, failed, skipped, errors of the sanitizer, and the end of what was said when all is not well."""
    started = time.perf_counter()
    environment = os.environ | {"APEX_TEST_KERNELS": "gpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        said, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        said, status = (error.stdout or b"").decode(errors="replace"), 124
    counts = {word: int((re.findall(rf"(\d+) {word}", said) or ["0"])[-1]) for word in ("passed", "failed", "skipped")}
    # Of racecheck: "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"; of the others: "ERROR SUMMARY: 0 errors".
    errors = re.findall(r"SUMMARY: (\d+) (?:errors?|hazards?)", said)
    row = {
        "rc": status,
        **counts,
        "errors": int(errors[-1]) if errors else None,
        "seconds": round(time.perf_counter() - started, 1),
    }
    return row if status == 0 else row | {"said": said.splitlines()[-40:]}


if __name__ == "__main__":
    main()
