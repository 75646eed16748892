"""How long do the masks of 100 detections take on the host, and what does a result hold until somebody asks for them?

    OPENBLAS_NUM_THREADS=1 python bench/masks.py engines/nuclei-nano/checkpoint.pt --data ../shared/data/nuclei-dsb2018 \
        --image 08275a5b1c2dfcd7.jpg --output bench/evidence/masks.json

The graph outputs are those of the network at ``--size``, all tiles, on real images; the best 100 detections of each. A last case
puts 100 boxes of an eighth of the side on the outputs of the last image: 1.6 times the area of the image, more than objects have.

Timed, in turn within every round: the part that is done at once; the whole, every mask asked for; and, for scale, what an
obvious program does: the logits of every cell, enlarged to the whole image by OpenCV, cut to the box.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from evidence import write_evidence
from scipy.ndimage import map_coordinates

from apex_runtime.benchmark.turns import measure
from apex_runtime.bundle.load import open_engine
from apex_runtime.data.image import decode_image
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.masks import LazyMasks, assemble_masks
from apex_runtime.routing.budget import parse_budget
from apex_train.checkpoint import file_sha256

DETECTIONS = 100
STRIDE = 4  # input pixels per cell of the prototypes
CLEAR = 1e-4  # logits closer to 0 are ties: float32 and float64 may differ in their sign
REACH_MS, REACH_BYTES = 5.0, 2_000_000


@dataclass(frozen=True, eq=False)
class Case:
    """What the masks of one image are made of, the best ``DETECTIONS`` of it."""

    outputs: dict[str, np.ndarray]
    letterbox: Letterbox

    def assemble(self) -> LazyMasks:
        """Masks that nobody asked for yet."""
        return assemble_masks(
            self.outputs["mask_coefficients"], self.outputs["mask_prototypes"], self.outputs["boxes"], self.letterbox
        )


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="The folder above images/.")
@click.option("--image", "names", required=True, multiple=True, help="A file of images/; repeatable.")
@click.option("--size", default=1024, show_default=True)
@click.option("--rounds", default=60, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(checkpoint: Path, data: Path, names: tuple[str, ...], size: int, rounds: int, output: Path | None) -> None:
    """Measure and print a table; ``--output`` also writes the raw samples."""
    cv2.setNumThreads(1)
    predictor = Predictor(open_engine(checkpoint, threads=1, size=(size, size)).session)
    cases = {Path(name).stem: _case(predictor, data / "images" / name) for name in names}
    cases["large boxes"] = _with_large_boxes(list(cases.values())[-1], size)
    rows, samples = {}, {}
    for name, case in cases.items():
        samples[name] = measure(_subjects(case), rounds, warmup=3)
        rows[name] = _facts(case) | {
            subject: {"min_ms": min(values), "median_ms": float(np.median(values))} for subject, values in samples[name].items()
        }
        _tell(name, rows[name])
    if output is not None:
        contract = {
            "timed": "100 masks from graph outputs in memory, second of two calls per turn; no decoding, no graph",
            "size": size,
            "detections": DETECTIONS,
            "rounds": rounds,
            "openblas_threads": os.environ.get("OPENBLAS_NUM_THREADS"),
            "checkpoint_sha256": file_sha256(checkpoint),
            "data": data.name,
        }
        write_evidence(output, {"contract": contract, "rows": rows, "samples": samples})


def _case(predictor: Predictor, path: Path) -> Case:
    prepared = predictor.prepare(decode_image(path), parse_budget(1.0))
    (outputs,) = predictor.run([prepared])
    best = ("boxes", "scores", "labels", "mask_coefficients", "candidate_ids")
    return Case({key: value[:DETECTIONS] if key in best else value for key, value in outputs.items()}, prepared.letterbox)


def _with_large_boxes(case: Case, size: int) -> Case:
    side = size // 8
    corners = np.random.default_rng(0).uniform(0, size - side, (DETECTIONS, 2))
    boxes = np.concatenate([corners, corners + side], axis=1).astype(np.float32)
    return Case(case.outputs | {"boxes": boxes}, Letterbox(size, size, size, size))


def _subjects(case: Case) -> dict[str, Callable[[], object]]:
    return {"begun": case.assemble, "assembled": lambda: list(case.assemble()), "whole images": partial(_whole_images, case)}


def _whole_images(case: Case) -> list[np.ndarray]:
    """What the obvious program makes of the same outputs; only its time counts."""
    cells_Phw = case.outputs["mask_prototypes"]
    rows, cols = (-(-side // STRIDE) for side in case.letterbox.content)
    logits_nhw = np.tensordot(case.outputs["mask_coefficients"], cells_Phw[:, :rows, :cols], 1)
    size = (case.letterbox.source_width, case.letterbox.source_height)
    boxes = case.letterbox.boxes_to_source(case.outputs["boxes"]).round().astype(int).tolist()
    return [
        cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR)[y1:y2, x1:x2] > 0
        for logits, (x1, y1, x2, y2) in zip(logits_nhw, boxes, strict=True)
    ]


def _facts(case: Case) -> dict[str, Any]:
    masks = case.assemble()
    wrong, ties = _against_float64(case, list(masks))
    return {
        "source": [case.letterbox.source_height, case.letterbox.source_width],
        "median_box": float(np.median([mask.bits.size for mask in masks])) ** 0.5,
        "pixels": sum(mask.bits.size for mask in masks),
        "wrong_pixels": wrong,
        "ties": ties,
        "prototypes_bytes": case.outputs["mask_prototypes"].nbytes,
        **_held(case),
    }


def _against_float64(case: Case, masks: list[RoiMask]) -> tuple[int, int]:
    """Pixels that differ from interpolation in float64 where the logit is clear; pixels where it is not."""
    prototypes = case.outputs["mask_prototypes"].astype(np.float64)
    wrong = ties = 0
    for coefficients, mask in zip(case.outputs["mask_coefficients"].astype(np.float64), masks, strict=True):
        starts, scales = (mask.y, mask.x), case.letterbox.scales
        places = [
            (start + np.arange(length) + 0.5) * scale / STRIDE - 0.5
            for start, length, scale in zip(starts, mask.bits.shape, scales, strict=True)
        ]
        logits = map_coordinates(
            np.tensordot(coefficients, prototypes, 1), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
        )
        clear = np.abs(logits) > CLEAR
        wrong += int(np.count_nonzero((mask.bits != (logits > 0)) & clear))
        ties += int(np.count_nonzero(~clear))
    return wrong, ties


def _held(case: Case) -> dict[str, int]:
    """Bytes that the masks of one image hold, before and after every one was asked for."""
    list(case.assemble())  # the interpolation weights stay for the next image: they are no part of a result
    tracemalloc.start()
    masks = case.assemble()
    waiting = tracemalloc.get_traced_memory()[0]
    for _asked in masks:
        pass
    asked = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {"held_bytes": waiting, "held_bytes_after": asked}


def _tell(name: str, row: dict[str, Any]) -> None:
    times = "  ".join(
        f"{key} {row[key]['min_ms']:.2f} / {row[key]['median_ms']:.2f}" for key in ("begun", "assembled", "whole images")
    )
    reached = row["assembled"]["min_ms"] < REACH_MS and max(row["held_bytes"], row["held_bytes_after"]) < REACH_BYTES
    held = f"{row['held_bytes'] / 1e6:.2f} MB held, {row['held_bytes_after'] / 1e6:.2f} after"
    click.echo(
        f"{name:<18} ms, min / median: {times}; {held}; {row['wrong_pixels']} pixels wrong  {'reached' if reached else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
