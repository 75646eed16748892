"""One call of ``apex-rt bench``: what it is about, its engines, and what is made of the measurement."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.session import in_all
from apex_runtime.benchmark.report import Measurement, against, document, of_batch
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.bundle.manifest import is_bundle, read_manifest
from apex_runtime.bundle.verify import model_of
from apex_runtime.code_state import command_line
from apex_runtime.data.image import decode_image
from apex_runtime.errors import UsageError
from apex_runtime.fairness.contract import Contract, images_sha256, of_engine
from apex_runtime.parity.subjects import identify
from apex_runtime.pipeline.predictor import Filter
from apex_runtime.postprocess.letterbox import letterbox_image
from apex_runtime.short_names import told_apart

if TYPE_CHECKING:
    from apex_runtime.benchmark.measure import Cell, Measured

CLOCK = "one call after the other, files as often as needed, graph inside with_copies inside end_to_end"
IN_TURN = "; two engines in turn, the second of two calls counts"


@dataclass(frozen=True)
class Subject:
    """An engine that is timed, and its cells."""

    path: Path
    precision: str
    opened: Opened
    cells: Sequence[Cell]

    @classmethod
    def of(cls, path: str, opened: Opened, cells: Sequence[Cell]) -> Subject:
        """Of an engine that was opened from ``path``."""
        return cls(Path(path), identify(path).precision, opened, cells)

    def profiled_file(self) -> Path:
        """The ONNX file that ONNX Runtime executes on the CPU. Raises UsageError when something else executes."""
        if self.opened.executed != "ort-cpu":
            message = f"--layers: {self.path} runs on {self.opened.executed}, which has no profile of its nodes here."
            raise UsageError(message, "Leave it out, or use ort-cpu.", path=self.path)
        return model_of(self.path, read_manifest(self.path)) if is_bundle(self.path) else self.path


@dataclass(frozen=True)
class Job:
    """The images (``given``: by the user) and how engines are opened."""

    paths: list[Path]
    given: bool
    threads: int | None
    device: str

    def open(self, path: str, policy: str) -> Opened:
        """An engine as this job asks. Raises what ``open_engine`` raises."""
        return open_engine(path, self.threads, self.device, policy)

    def asked(self) -> dict[str, Any]:
        """The part of the report that repeats the options."""
        return {
            "threads": self.threads,
            "device": self.device,
            "images": len(self.paths),
            "source": "given" if self.given else "shipped samples",
            "min_score": Filter().min_score,
        }

    @cached_property
    def data_sha256(self) -> str:
        """Of the contents of the images."""
        return images_sha256(self.paths)

    def contract(self, subject: Subject, engines: int) -> Contract:
        """The fairness contract of one of so many engines; the batch is the row's."""
        return of_engine(
            subject.opened,
            precision=subject.precision,
            data=self.data_sha256,
            split=None,
            images=len(self.paths),
            min_score=Filter().min_score,
            max_detections=None,
            evaluator=None,
            batch=None,
            threads=self.threads,
            timed=CLOCK + IN_TURN if engines > 1 else CLOCK,
        )

    def report(self, subjects: Sequence[Subject], found: Measurement) -> dict[str, Any]:
        """The report of the first engine, and of the second one against it."""
        first = self.contract(subjects[0], len(subjects))
        report = document(subjects[0].opened, subjects[0].precision, first, found)
        if len(subjects) > 1:
            report["against"] = against(
                subjects[1].opened, subjects[1].precision, self.contract(subjects[1], len(subjects)), first, found
            )
        return report

    def samples(self, measured: Sequence[Measured]) -> list[dict[str, Any]]:
        """Milliseconds of every stage of every turn, and how many of them its thread waited for a core, cell by cell."""
        return [
            {
                "engine": item.engine,
                "budget": item.cell.budget.asked,
                "tiles": in_all(item.cell.tiles),
                "batch": item.cell.batch,
                "milliseconds": _rounded(item.stages),
                "waited_milliseconds": _rounded(item.waited),
            }
            for item in measured
        ]

    def layers(self, subject: Subject) -> list[dict[str, Any]]:
        """The profile of every number of tiles, on the first image, batch 1. Raises UsageError unless ort-cpu executes."""
        from apex_runtime.benchmark.layers import profile_layers

        model = subject.profiled_file()
        info = subject.opened.session.info
        image, _ = letterbox_image(decode_image(self.paths[0]), info.input.height, info.input.width)
        tiles = list(dict.fromkeys(cell.tiles for cell in subject.cells))
        return profile_layers(model, self.threads, np.asarray(image)[None], tiles)

    def write_evidence(
        self, folder: Path, subjects: Sequence[Subject], report: dict[str, Any], samples: list[dict[str, Any]]
    ) -> None:
        """Write the evidence bundle of a report. Raises UsageError when the folder has something in it."""
        from apex_runtime.fairness.evidence import write_evidence_bundle

        own = [(subject, self.contract(subject, len(subjects))) for subject in subjects]  # each asks the system about GPUs
        contracts = [of_batch(contract, cell.batch) for subject, contract in own for cell in subject.cells]
        hashes = {f"engine {number}: {subject.path.name}": subject.opened.digest for number, subject in enumerate(subjects)}
        hashes |= {f"image {name}": sha256_of(path) for name, path in zip(told_apart(self.paths), self.paths, strict=True)}
        command = command_line("apex-rt", sys.argv[1:])
        write_evidence_bundle(folder, command, {each.sha256(): each for each in contracts}, report, samples, hashes)


def _rounded(stages: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [round(value, 4) for value in values] for name, values in stages.items()}
