"""Two ways to make an engine slower: a session that computes on after every call, a graph with more convolutions.

    python bench/slower.py 0.15 bench check engines/nuclei-nano/model.onnx --baseline baseline.json

runs any command of ``apex-rt`` that opens its engine for a gate, with the session of the first kind.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from apex_runtime.backends.session import Session, Tiles
from apex_runtime.cli.main import main
from apex_runtime.model_info import ModelInfo
from apex_runtime.regression import workload

OUTPUT = "mask_prototypes"  # [B,32,H,W]


@dataclass(frozen=True)
class SlowerSession:
    """Computes for ``share`` of the processor time of each call after it. Implements ``Session``."""

    session: Session
    share: float

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self.session.info

    @property
    def name(self) -> str:
        """What executes."""
        return self.session.name

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """As ``Session.run``, and then some."""
        started = time.thread_time()
        outputs = self.session.run(images, tiles, tile_bonus)
        until = time.thread_time() + self.share * (time.thread_time() - started)
        while time.thread_time() < until:
            pass
        return outputs


def with_more_convolutions(model: onnx.ModelProto, channels: int) -> onnx.ModelProto:
    """The model with a convolution of so many channels over its prototypes, of which nothing is added to them."""
    slower = onnx.ModelProto()
    slower.CopyFrom(model)
    inside = f"{OUTPUT}_before"
    for node in slower.graph.node:
        node.output[:] = [inside if name == OUTPUT else name for name in node.output]
        node.input[:] = [inside if name == OUTPUT else name for name in node.input]
    weight = np.random.default_rng(0).standard_normal((channels, 32, 3, 3), np.float32)
    stored = {"more_weight": weight, "more_axis": np.array([1], np.int64), "more_zero": np.zeros((), np.float32)}
    slower.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    slower.graph.node.extend(
        [
            helper.make_node("Conv", [inside, "more_weight"], ["more_maps"], pads=[1, 1, 1, 1], name="more_conv"),
            helper.make_node("ReduceMean", ["more_maps", "more_axis"], ["more_mean"], name="more_mean"),
            helper.make_node("Mul", ["more_mean", "more_zero"], ["more_nothing"], name="more_mul"),
            helper.make_node("Add", [inside, "more_nothing"], [OUTPUT], name="more_add"),
        ]
    )
    return slower


def _slowed(share: float) -> None:
    """Every engine that a gate opens from now on in this process is slower."""
    opening = workload.open_engine

    def open_slower(*arguments: Any) -> Any:
        opened = opening(*arguments)
        return replace(opened, session=SlowerSession(opened.session, share))

    workload.open_engine = open_slower


if __name__ == "__main__":
    _slowed(float(sys.argv[1]))
    main(sys.argv[2:], prog_name="apex-rt")
