"""Faults in the graph, in the runtime and in the files, one by one, through the command: the exit code, and where it was seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from fault_levels import levels_of
from file_faults import FILES
from graph_faults import TINY, with_fault
from runtime_faults import RUNTIME, run_by
from tiny_model import write_tiny_model

from apex_runtime.bundle.build import build_bundle
from apex_runtime.parity.subjects import identify

# The tiny model takes the mean of the colours, and gives every detection the same coefficients.
INVISIBLE_IN_TINY = ("BGR for RGB", "coefficients in the order of another list")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, and two images of blobs beside it, which are read by name."""
    folder = tmp_path_factory.mktemp("home")
    write_tiny_model(folder / "model.onnx")
    (folder / "images").mkdir()
    random = np.random.default_rng(7)
    for name in ("one", "two"):
        pixels = random.integers(0, 60, (128, 128, 3), dtype=np.uint8)
        for x, y, radius in random.integers((10, 10, 5), (118, 118, 18), (5, 3)).tolist():
            cv2.circle(pixels, (x, y), radius, tuple(random.integers(140, 256, 3).tolist()), -1)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return home / "model.onnx"


@pytest.fixture
def compare(apex_rt, home: Path, tmp_path: Path):
    """``compare(reference, candidate, ...)``: how the command ended, and the levels that its report names."""

    def run(reference: Path, candidate: Path, batch: int = 1, images: Path = home / "images", budget: str = "0.5"):
        report = tmp_path / "report.json"
        words = ("--budget", budget, "--images", images, "--batch", batch, "-o", report)
        ran = apex_rt("parity", reference, "--against", candidate, *words)
        reasons = json.loads(report.read_text())["comparisons"][0]["reasons"] if report.exists() else []
        return ran, levels_of(reasons)

    return run


@pytest.fixture
def candidate(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(model, tmp_path / "candidate.onnx"))


@pytest.mark.parametrize("name", TINY)
def test_a_fault_of_the_graph(name: str, compare, model: Path, home: Path, tmp_path: Path) -> None:
    onnx.save(with_fault(onnx.load(model), TINY[name]), tmp_path / "spoilt.onnx")
    ran, levels = compare(model, tmp_path / "spoilt.onnx", images=home / "images" / "one.png")
    assert ran.code == 1 and levels


@pytest.mark.parametrize("name", [name for name in RUNTIME if name not in INVISIBLE_IN_TINY])
def test_a_fault_of_the_runtime(name: str, compare, model: Path, candidate: Path) -> None:
    fault = RUNTIME[name]
    with run_by(fault, candidate):
        ran, levels = compare(model, candidate, fault.batch)
    assert ran.code == 1 and fault.level in levels, ran.out


@pytest.mark.parametrize("batch", [1, 4])
def test_without_a_fault_it_passes(compare, model: Path, candidate: Path, batch: int) -> None:
    ran, levels = compare(model, candidate, batch)
    assert ran.code == 0 and not levels


@pytest.mark.parametrize("name", [name for name, fault in RUNTIME.items() if fault.batch > 1])
def test_what_only_a_batch_shows_needs_a_batch(name: str, compare, model: Path, candidate: Path) -> None:
    with run_by(RUNTIME[name], candidate):
        ran, _levels = compare(model, candidate, 1)
    assert ran.code == 0


@pytest.mark.parametrize("name", INVISIBLE_IN_TINY)
def test_a_fault_that_only_the_default_engine_shows(name: str, compare, repo_root: Path, tmp_path: Path) -> None:
    shipped = repo_root / "engines" / "nuclei-nano" / "model.onnx"
    shutil.copy(shipped, tmp_path / "candidate.onnx")
    coloured = repo_root / "engines" / "samples" / "24a20f2a529cede5.jpg"
    pixels = cv2.imread(str(coloured)).astype(int)
    assert np.ptp(pixels, axis=2).mean() > 10, "of a grey image BGR is RGB"
    with run_by(RUNTIME[name], tmp_path / "candidate.onnx"):
        ran, levels = compare(shipped, tmp_path / "candidate.onnx", images=coloured, budget="1")
    assert ran.code == 1 and {"tensor", "task"} <= set(levels)


@pytest.fixture(scope="module")
def other(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same passport, so little off that in eight bits it would pass."""
    path = tmp_path_factory.mktemp("other") / "model.onnx"
    onnx.save(with_fault(onnx.load(model), TINY["the kernel of a mean"]), path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_fault_of_the_files(name: str, compare, model: Path, other: Path, tmp_path: Path) -> None:
    fault = FILES[name]
    ran, _levels = compare(model, fault.plant(model, other, tmp_path))
    assert ran.code == fault.code and fault.words in ran.out + ran.err


def test_a_stale_reference_is_refused_as_well(compare, model: Path, other: Path, tmp_path: Path) -> None:
    bundle = FILES["a stale manifest"].plant(model, other, tmp_path)
    ran, _levels = compare(bundle, model)
    assert ran.code == 1 and "was changed after the bundle was built" in ran.err


def test_a_manifest_does_not_choose_the_tolerance(model: Path, tmp_path: Path) -> None:
    build_bundle(model, "ort-cpu", tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"precision": "int8"}))
    assert identify(tmp_path / "bundle").precision == "fp32"
