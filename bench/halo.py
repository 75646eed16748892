"""What does the halo leave out? The same weights with other halos, all tiles against a dense foveal pass with the same padding.

    python bench/halo.py engines/nuclei-nano/checkpoint.pt --data DIR --split test --output bench/evidence/halo.json
    python bench/halo.py runs/a/best.pt --data DIR --size 384x1280 --halos 0,8,16,24,32 --plot seams.png

A halo shapes the compute, not the weights (DESIGN rule 6). Once it reaches as far as the foveal stream sees, tiles and dense pass
are the same numbers, and that is checked; what a smaller one costs in AP is measured on the same images, in pairs. So that the
difference is that of the seams alone, the dense pass has the tiles' own halo as its padding, and the tiles are all of the grid,
those that show only padding too (``TileContext`` lets them be heard by the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from dense import densify
from evidence import write_evidence
from measured import kinds_of, read_size, spread
from torch import nn

from apex_plugins.tile_pack.torch_op import tile_pack
from apex_runtime.cli.options import dataset_type_option, split_integers
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import Matches, matches_of
from apex_runtime.evaluation.coco_ap import detection_limit, predict_results
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.figures import as_json, interval, resamples, sampled
from apex_runtime.pipeline.predictor import Predictor, Prepared
from apex_runtime.postprocess.letterbox import letterbox_image
from apex_runtime.routing.budget import Budget
from apex_train.checkpoint import file_sha256, load_model
from apex_train.model.detector import ApexDetector, chosen_cells
from apex_train.model.foveal import STRIDE, FovealStream
from apex_train.predictor import TorchSession

ROW = Line("halo")
FEATURE_IMAGES = 8
EXACT = 1e-5  # of the largest feature, as DESIGN rule 6 asks


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@dataset_type_option
@click.option("--split", default="test", show_default=True)
@click.option("--size", default="512", show_default=True, callback=read_size, help="One side, or HEIGHTxWIDTH.")
@click.option("--images", type=click.IntRange(1), help="At most, evenly spread.  [default: all]")
@click.option("--halos", multiple=True, default=("0,8,16,24,32",), show_default=True, callback=split_integers, help="Pixels.")
@click.option("--samples", default=1000, show_default=True, help="Resamples of the images.")
@click.option("--output", type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path))
def main(checkpoint: Path, data: Path, output: Path | None, plot: Path | None, **asked: Any) -> None:
    """Measure the halos asked for, that of CHECKPOINT, and the one that leaves nothing out."""
    model, dataset = load_model(checkpoint), open_dataset(data, asked["split"], asked["dataset_type"])
    indices = spread(list(range(len(dataset))), asked["images"])
    radius = receptive_radius(model.foveal)
    rows = []
    for halo in sorted({*asked["halos"], model.config.halo, -(-radius // STRIDE) * STRIDE}):
        rows.append(measure_halo(with_halo(model, halo), dataset, indices, asked["size"], asked["samples"]))
        click.echo(_told(rows[-1]))
        if halo >= radius and rows[-1]["features"]["max"] > EXACT:
            raise click.ClickException(
                f"halo {halo} reaches as far as the foveal stream sees ({radius}), but tiles are not dense"
            )
    content = {
        "checkpoint_sha256": file_sha256(checkpoint),
        "tile": model.config.tile,
        "halo": model.config.halo,
        "receptive_radius": radius,
        "size": asked["size"],
        "data": {"split": asked["split"], "images": len(indices), "fingerprint": dataset.fingerprint()},
        "rows": rows,
    }
    if output is not None:
        write_evidence(output, content)
    if plot is not None:
        draw(content, plot)


def receptive_radius(stream: FovealStream) -> int:
    """How many pixels to each side of a cell its feature depends on; a halo of as many leaves nothing out."""
    radius, jump = 0, 1
    for layer in stream.modules():  # one after the other: a shortcut sees less than what it bridges
        if isinstance(layer, nn.Conv2d):
            radius += layer.kernel_size[0] // 2 * jump
            jump *= layer.stride[0]
    return radius


def with_halo(model: ApexDetector, halo: int) -> ApexDetector:
    """The same weights, tiles seen with another halo. Raises ValueError unless it is a multiple of 8."""
    changed = ApexDetector(type(model.config).model_validate(model.config.model_dump() | {"halo": halo}))
    changed.load_state_dict(model.state_dict())
    return changed.eval()


def measure_halo(
    model: ApexDetector, dataset: InstanceDataset, indices: list[int], size: tuple[int, int], samples: int
) -> dict[str, Any]:
    """A row: what the tiles cost over their own area, how far their features are from dense ones, and AP minus that of dense."""
    tile, halo = model.config.tile, model.config.halo
    gaps = [feature_gap(model, dataset.read_image(index), size) for index in spread(indices, FEATURE_IMAGES)]
    features = {"max": max(gap[0] for gap in gaps), "mean": float(np.mean([gap[1] for gap in gaps]))}
    row: dict[str, Any] = {"halo": halo, "area": ((tile + 2 * halo) / tile) ** 2, "features": features}
    counts = resamples(len(indices), samples)
    tiles, dense = (sampled({ROW: _matches(each, dataset, indices, size)}, counts)[ROW] for each in (model, densify(model)))
    for name, values in tiles.items():
        row[name] = as_json(interval(values))
        row[f"{name}_minus_dense"] = as_json(interval(values - dense[name]))
    return row


@torch.inference_mode()
def feature_gap(model: ApexDetector, image: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    """Of one image the largest and the mean difference of foveal features, over the largest and the mean dense feature."""
    pixels = model.normalise(torch.from_numpy(letterbox_image(image, *size)[0])[None])
    tile, halo = model.config.tile, model.config.halo
    rows, cols = model.config.grid(*size)
    ids = torch.arange(rows * cols)[None]
    tiles = model.foveal(tile_pack(pixels, ids, torch.zeros_like(ids), tile, halo)[0])
    dense = chosen_cells(model.foveal(F.pad(pixels, (halo,) * 4)), ids, tile // STRIDE)[0]
    gap = (tiles - dense).abs()
    return float(gap.max() / dense.abs().max()), float(gap.mean() / dense.abs().mean())


class EveryTile(Predictor):
    """Looks at all tiles of the grid, as a dense pass does, whatever the budget."""

    def prepare(self, image: np.ndarray, budget: Budget) -> Prepared:
        return replace(super().prepare(image, budget), tiles=self.info.tiles.count)


def _matches(model: ApexDetector, dataset: InstanceDataset, indices: list[int], size: tuple[int, int]) -> dict[str, Matches]:
    truth = dataset.ground_truth()
    limit, ids = detection_limit(truth), [dataset.records[index].image_id for index in indices]
    found = predict_results(EveryTile(TorchSession(model, *size)), dataset, 1.0, max_detections=limit, indices=indices)
    return {kind: matches_of(run_coco_eval(truth, found, kind, limit, ids)) for kind in kinds_of(truth)}


def _told(row: dict[str, Any]) -> str:
    gaps = {name.removesuffix("_minus_dense"): gap for name, gap in row.items() if name.endswith("_minus_dense")}
    points = [f"{name} {100 * g['value']:+.2f} ({100 * g['low']:+.2f} to {100 * g['high']:+.2f})" for name, g in gaps.items()]
    head = f"halo {row['halo']:>3}  area x{row['area']:.2f}  features {row['features']['max']:.1e} at most"
    return f"{head}; points to dense: {', '.join(points)}"


def draw(content: dict[str, Any], path: Path) -> None:
    """Write the PNG file: points of AP to the dense pass, and the features' difference, over the halo."""
    from matplotlib.figure import Figure

    rows: Sequence[dict[str, Any]] = content["rows"]
    halos = [row["halo"] for row in rows]
    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for shift, (name, label) in enumerate({"AP_segm": "mask AP", "AP_bbox": "box AP"}.items()):
        if name in rows[0]:
            value, low, high = ([100 * row[f"{name}_minus_dense"][key] for row in rows] for key in ("value", "low", "high"))
            errors = [np.subtract(value, low), np.subtract(high, value)]
            left.errorbar([halo + shift for halo in halos], value, errors, marker="o", capsize=3, label=label)
    left.axhline(0, color="#24292f", linewidth=0.8)
    left.set(xlabel="halo, pixels", title="all tiles minus dense, points (bars: 95 %, paired)", xticks=halos)
    left.legend(frameon=False)
    for key in ("max", "mean"):
        right.plot(halos, [max(row["features"][key], 1e-9) for row in rows], marker="o", label=f"{key} over {key} dense feature")
    right.axvline(content["receptive_radius"], color="#8c959f", linestyle=":", label="receptive radius")
    right.set(xlabel="halo, pixels", title="difference of the foveal features", yscale="log", xticks=halos)
    right.legend(frameon=False)
    for ax in (left, right):
        ax.grid(color="#d8dee4", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
