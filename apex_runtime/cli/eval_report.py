"""The reports of ``eval``, as JSON values and as tables. Schema: ``apex_runtime/schemas/eval.schema.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.data.dataset import InstanceDataset
    from apex_runtime.evaluation.prediction_files import PredictionFile

Report = dict[str, Any]
REPORT_FORMAT_VERSION = 1
_COLUMNS = ("mAP_bbox", "AP50_bbox", "mAP_segm", "AP50_segm", "AP75_segm")
_CLASS_COLUMNS = ("AP_bbox", "AP50_bbox", "AP_segm", "AP50_segm")


def engine_report(opened: Opened, dataset: InstanceDataset, rows: list[Report], contract: Report) -> Report:
    """The report of an engine: one row per budget."""
    info = opened.session.info
    engine = {
        "model_sha256": opened.digest,
        "requested": opened.requested,
        "executed": opened.executed,
        "reason": opened.reason or None,
        "input": [info.input.height, info.input.width],
        "tiles": info.tiles.count,
    }
    head = {"format_version": REPORT_FORMAT_VERSION, "engine": engine, "data": _data(dataset)}
    return head | {"contract": contract, "budgets": rows}


def predictions_report(file: PredictionFile, dataset: InstanceDataset, scores: Report, contract: Report) -> Report:
    """The report of a file of predictions."""
    predictions = {
        "file_name": file.path.name,
        "sha256": file.sha256,
        "kind": "coco" if file.panoptic is None else "panoptic",
        "left_out": file.left_out,
        "images_missing": file.images_missing,
    }
    head = {"format_version": REPORT_FORMAT_VERSION, "predictions": predictions, "data": _data(dataset)}
    return head | {"contract": contract, "scores": scores}


def _data(dataset: InstanceDataset) -> Report:
    return {
        "split": dataset.split,
        "images": len(dataset),
        "objects": len(dataset.ground_truth()["annotations"]),
        "fingerprint": dataset.fingerprint(),
    }


def table(report: Report, classes: bool) -> str:
    """What a terminal shows: figures in percent; ``classes`` adds those of every class."""
    return "\n".join(_engine_lines(report, classes) if "budgets" in report else _prediction_lines(report, classes))


def _engine_lines(report: Report, classes: bool) -> Iterator[str]:
    engine = report["engine"]
    yield (
        f"{_split(report)}; {engine['executed']} at {engine['input'][0]}x{engine['input'][1]}, "
        f"at most {report['contract']['max_detections']} detections; AP in percent"
    )
    columns = "".join(f"{name:>11}" for name in _COLUMNS)
    yield f"{'budget':<9}{'tiles':>7}{columns}{'graph ms (p95)':>19}{'image ms (p95)':>19}{'images/s':>10}"
    for row in report["budgets"]:
        figures = "".join(f"{_percent(row['figures'][name]):>11}" for name in _COLUMNS)
        times = "".join(f"{_times(row[name]):>19}" for name in ("graph_milliseconds", "image_milliseconds"))
        yield f"{row['budget']:<9}{row['tiles_per_image']:>7.1f}{figures}{times}{row['images_per_second']:>10.1f}"
        yield from _below(row, classes, "this model predicts no stuff, all of it counts as missed")
    yield f"{_memory(report['budgets'][-1]['peak_memory'])}; image ms: from the file to boxes and masks, graph included"


def _prediction_lines(report: Report, classes: bool) -> Iterator[str]:
    scores, limit = report["scores"], report["contract"]["max_detections"]
    counted = f", at most {limit} detections" if limit else ""
    yield f"{_split(report)}; {report['predictions']['file_name']}{counted}; figures in percent"
    kinds = [kind for kind in ("bbox", "segm") if f"mAP_{kind}" in scores["figures"]]
    if kinds:
        names = [name.removesuffix(f"_{kinds[0]}") for name in scores["figures"] if name.endswith(f"_{kinds[0]}")]
        yield f"{'':<6}" + "".join(f"{name:>7}" for name in names)
        for kind in kinds:
            yield f"{kind:<6}" + "".join(f"{_percent(scores['figures'][f'{name}_{kind}']):>7}" for name in names)
    of_results = report["predictions"]["kind"] == "coco"
    yield from _below(
        scores, classes, "made of instances: stuff is not predicted, all of it counts as missed" if of_results else ""
    )


def _below(row: Report, classes: bool, about_stuff: str) -> Iterator[str]:
    """What stands under the figures of a row: intervals, panoptic quality, classes."""
    for name, (low, high) in row["intervals"].items():
        yield f"{'':<9}{name}: {low:.1%} to {high:.1%} (95 %)"
    panoptic = row["panoptic"]
    if panoptic is not None:
        for name in ("all", "things", "stuff"):
            each = panoptic[name]
            figures = ", ".join(f"{key.upper()} {_percent(each[key])}" for key in ("pq", "sq", "rq"))
            yield f"{'':<9}panoptic, {name} ({each['n']} classes): {figures}"
        if about_stuff:
            yield f"{'':<9}({about_stuff})"
    if classes and row["per_class"]:
        yield from _class_lines(row["per_class"])
    if classes and panoptic is not None:
        yield from _panoptic_class_lines(panoptic["per_class"])


def _class_lines(rows: list[Report]) -> Iterator[str]:
    columns = [name for name in _CLASS_COLUMNS if name in rows[0]]
    yield f"{'':<9}{'class':<24}{'objects':>9}" + "".join(f"{name:>11}" for name in columns)
    present = [row for row in rows if row["objects"]]
    for row in present:
        yield f"{'':<9}{row['name'][:23]:<24}{row['objects']:>9}" + "".join(f"{_percent(row[name]):>11}" for name in columns)
    if len(present) < len(rows):
        yield f"{'':<9}({len(rows) - len(present)} classes have no objects and enter no mean)"


def _panoptic_class_lines(rows: list[Report]) -> Iterator[str]:
    """Classes that have a segment on either side."""
    keys = ("pq", "sq", "rq")
    yield f"{'':<9}{'class':<24}{'':>9}" + "".join(f"{key.upper():>11}" for key in keys) + "  matched, false, missed"
    for row in rows:
        if row["pq"] is not None:
            figures = "".join(f"{_percent(row[key]):>11}" for key in keys)
            kind = "thing" if row["thing"] else "stuff"
            yield f"{'':<9}{row['name'][:23]:<24}{kind:>9}{figures}  {row['matched']}, {row['false']}, {row['missed']}"


def _split(report: Report) -> str:
    data = report["data"]
    return f"{data['split']}: {data['images']} images, {data['objects']} objects"


def _times(milliseconds: Report) -> str:
    return f"{milliseconds['median']:.1f} ({milliseconds['p95']:.1f})"


def _memory(peak: Report) -> str:
    parts = [f"{name} {peak[key] / 2**20:.0f} MiB" for name, key in _MEMORIES if peak[key] is not None]
    return f"peak memory: {', '.join(parts) or 'not known here'}"


_MEMORIES = (("of the process", "resident_bytes"), ("of the device", "device_bytes"))


def _percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"
