"""The anchor never changes: not from process to process, and not by accident."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime

from apex_runtime.regression.anchor import SIDE, anchor_model, anchor_sha256, open_anchor

# Every stored baseline holds quotients with this graph. Who changes it makes all of them worthless, and must mean to.
SHA256 = "157ccdfae32ea271a56861e54c467ed9c7e35495ddd74a5c8e9a73bbd4bfe07e"


def test_another_process_makes_the_same_bytes() -> None:
    code = "from apex_runtime.regression.anchor import anchor_sha256; print(anchor_sha256())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == anchor_sha256() == SHA256


def test_it_is_a_valid_graph_whose_every_part_is_computed() -> None:
    """A node that no output needs would be thrown away, and numbers that are none or all zero take other paths in a processor."""
    model = onnx.load_from_string(anchor_model())
    onnx.checker.check_model(model, full_check=True)
    read = {name for node in model.graph.node for name in node.input} | {item.name for item in model.graph.output}
    assert all(set(node.output) & read for node in model.graph.node)
    session = onnxruntime.InferenceSession(anchor_model(), providers=["CPUExecutionProvider"])
    feed = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE), np.float32)
    outputs = session.run(None, {"x": feed})
    assert len(outputs) == 4
    for output in outputs:
        assert np.isfinite(output).all() and 1e-3 < output.std() < 1e3


def test_it_runs_with_the_threads_that_are_asked_for() -> None:
    results = [open_anchor(threads)() for threads in (1, 2)]
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)
