"""An engine and its work, images of three shapes, and a run of the plain pipeline to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pictures import discs, save

from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.data.sources import SourceItem
from apex_runtime.offline.block_run import Work
from apex_runtime.offline.parcel import Passport, pack
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import OutputFolder
from apex_runtime.pipeline.runner import Run
from apex_runtime.pipeline.stages import RunOptions
from apex_runtime.routing.budget import parse_budget
from apex_runtime.windows.plan import parse_windowing

SETTINGS: dict[str, Any] = {"budget": "0.5"}


@pytest.fixture(scope="session")
def opened(tiny_onnx: Path) -> Opened:
    return open_engine(tiny_onnx, 1, many=True)


@pytest.fixture(scope="session")
def passport(tiny_onnx: Path) -> Passport:
    return pack(tiny_onnx)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eleven images, one of them cut into windows, two of them none, two that share a stem."""
    for index in range(8):
        height, width = ((128, 128), (128, 64), (32, 128))[index % 3]
        save(tmp_path / "in" / f"{index}.png", discs(height, width, (16, 16, 10), (40, 20, 8)))
    save(tmp_path / "in" / "7.jpg", discs(128, 128, (64, 64, 20)))
    save(tmp_path / "in" / "deep" / "large.png", discs(150, 260, (60, 60, 30), (200, 100, 30)))
    (tmp_path / "in" / "2.png").write_bytes(b"")
    (tmp_path / "in" / "text.png").write_text("not an image")
    return tmp_path / "in"


@pytest.fixture
def work(passport: Passport) -> Work:
    return made_work(passport, frozenset({"yolo", "masks", "csv"}))


def made_work(passport: Passport, save: frozenset[str]) -> Work:
    windowing = parse_windowing("auto", None, passport.info.input)
    predictor = Predictor(_Info(passport))
    return Work(
        RunOptions(parse_budget("0.5"), predictor.filter(0.001, None, None), 0.3, save=save, windowing=windowing), "auto", 1
    )


class _Info:
    """As much of a session as a filter needs."""

    def __init__(self, passport: Passport) -> None:
        self.info, self.name = passport.info, "none"

    def run(self, *_arguments: object) -> dict[str, Any]:
        raise AssertionError("nothing runs here")


@pytest.fixture
def plain(opened: Opened, work: Work, folder: Path, tmp_path: Path) -> Path:
    """The output folder of the same images through one run."""
    items = sorted(
        (SourceItem(path, path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()),
        key=lambda item: item.relative,
    )
    output = OutputFolder(tmp_path / "plain", opened.session.info.classes)
    Run(Predictor(opened.session), items, output, work.options).execute(SETTINGS, {})
    return tmp_path / "plain"
