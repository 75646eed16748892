"""The shipped descriptions are read, and are of graphs whose outputs have the names and shapes of the real exports."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fixed_outputs import write_graph

from apex_runtime.yardsticks.description import read_description
from apex_runtime.yardsticks.yardstick import Yardstick

# Shapes as in the exports that bench/evidence/yardsticks.json is about, with one class.
EXPORTS = {
    "ultralytics-seg": ((256, 320), {"output0": (1, 37, 1680), "output1": (1, 32, 64, 80)}),
    "rf-detr-seg": ((312, 312), {"dets": (1, 100, 4), "labels": (1, 100, 2), "masks": (1, 100, 78, 78)}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_description_fits_its_export(name: str, tmp_path: Path, repo_root: Path) -> None:
    size, shapes = EXPORTS[name]
    path = Path(shutil.copy(repo_root / "bench" / "yardsticks" / f"{name}.yaml", tmp_path))
    rng = np.random.default_rng(0)
    outputs = {output: rng.uniform(0.1, 0.9, shape).astype(np.float32) for output, shape in shapes.items()}
    if name == "ultralytics-seg":
        outputs["output0"][:, :4] *= 200  # pixels
    write_graph(tmp_path / read_description(path).model, outputs, size)
    yardstick = Yardstick(path, threads=1)
    assert yardstick.facts.kinds == ("bbox", "segm") and yardstick.facts.size == size
    (found,) = yardstick.predict([np.zeros((100, 120, 3), np.uint8)])
    assert len(found) > 0 and len(found) == len(found.masks)
    assert found.masks[0].full(100, 120).shape == (100, 120)


def test_every_shipped_description_is_tested(repo_root: Path) -> None:
    assert {path.stem for path in (repo_root / "bench" / "yardsticks").glob("*.yaml")} == set(EXPORTS)
