"""A search may take twice the memory of one run of the model: the peaks of two processes that differ in nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
from graph_faults import SHIPPED, with_fault

PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
RUN = """
import sys, numpy as np, onnx
from apex_runtime.backends.ort import OrtSession
session = OrtSession(sys.argv[1], 1)
side, tiles = session.info.input.height, session.info.tiles.count
pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
session.run(pixels, tiles // 2, np.zeros((1, tiles), np.float32))
"""
BISECT = """
import sys
from apex_runtime.cli.main import main
model, candidate, folder, image = sys.argv[1:]
try:
    main(["parity", model, "--against", candidate, "--bisect", folder, "--images", image, "--threads", "1", "--json"])
except SystemExit as stop:
    assert stop.code == 1
"""


def test_a_search_takes_at_most_twice_the_memory_of_one_run(shipped_path: Path, sample: Path, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate.onnx"
    onnx.save(with_fault(onnx.load(shipped_path), SHIPPED["a Relu with three readers"]), candidate)
    one = peak_kib(RUN, shipped_path)
    search = peak_kib(BISECT, shipped_path, candidate, tmp_path / "found", sample)
    assert (tmp_path / "found" / "minimal.onnx").is_file()
    assert search <= 2 * one


def peak_kib(program: str, *arguments: Path) -> int:
    command = [sys.executable, "-c", program + PEAK, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return int(ran.stdout.strip().splitlines()[-1])
