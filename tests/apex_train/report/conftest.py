"""A run folder with the shipped checkpoint as its best.pt, and the images of the fixture's split val as its held-out split."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_train.config import FitConfig, load_config
from apex_train.report.report import write_report

SIZE = 256
DATA = {"train": {"dataset_type": "coco", "split": "train", "images": 5, "fingerprint": "a" * 64}}
HISTORY = [
    {"epoch": 1, "step": 3, "seconds": 1.5, "total": 9.0, "cls": 2.0, "box": 3.0, "alpha": 0.3, "learning_rate": 0.002},
    {"epoch": 2, "step": 6, "seconds": 1.5, "total": 7.0, "cls": 1.5, "box": 2.0, "alpha": 0.4, "learning_rate": 0.001}
    | {"mAP_segm": 0.4375, "mAP_segm_peripheral": 0.3, "bad_steps": 0, "memory": {"allocated": 1 << 30, "peak": 2 << 30}},
    {"epoch": 3, "step": 9, "seconds": 1.5, "total": 6.0, "cls": 1.0, "box": 2.0, "alpha": 0.5, "learning_rate": 0.0005}
    | {"mAP_segm": 0.40625, "mAP_segm_peripheral": 0.31, "bad_steps": 0, "memory": {"allocated": 1 << 30, "peak": 2 << 30}},
]


@contextmanager
def one_thread() -> Iterator[None]:
    """Small images on a busy machine: threads that wait for each other cost more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread in every test, and what a test set is undone."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def held_out(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture with its split val under the name test."""
    folder = tmp_path_factory.mktemp("held-out") / "nuclei"
    shutil.copytree(nuclei_fixture, folder)
    (folder / "annotations" / "val.json").rename(folder / "annotations" / "test.json")
    return folder


@pytest.fixture(scope="session")
def config() -> FitConfig:
    return load_config(None, {"train.size": SIZE, "train.epochs": 3})


@pytest.fixture(scope="session")
def run_folder(repo_root: Path) -> Callable[[Path], Path]:
    """``run_folder(path)`` makes a run folder as it is before its report."""

    def make(folder: Path) -> Path:
        folder.mkdir()
        shutil.copy(repo_root / "engines" / "nuclei-nano" / "checkpoint.pt", folder / "best.pt")
        (folder / "config.yaml").write_text(f"train: {{size: {SIZE}, epochs: 3, dataset_type: coco}}\n")
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in HISTORY))
        return folder

    return make


@pytest.fixture(scope="session")
def report(config: FitConfig) -> Callable[[Path, InstanceDataset | None], Path]:
    """``report(run, test)`` writes the report of a run folder, with few resamples: no test depends on smooth intervals."""

    def write(folder: Path, test: InstanceDataset | None) -> Path:
        console = Console(file=io.StringIO())
        with pytest.MonkeyPatch.context() as patch, one_thread():
            patch.setattr("apex_train.report.measure.RESAMPLES", 50)
            return write_report(folder, config, HISTORY, "mAP_segm", DATA, test, torch.device("cpu"), console)

    return write


@pytest.fixture(scope="session")
def measured(held_out: Path, run_folder: Callable, report: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its report. Not to be changed."""
    folder = run_folder(tmp_path_factory.mktemp("measured") / "run")
    assert report(folder, open_dataset(held_out, "test")) == folder / "report.md"
    return folder
