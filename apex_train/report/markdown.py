"""``report.md``: the report as a page, made of ``report.json`` and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

LISTED = 100  # classes of the table per class
_FIGURES = (("mask AP", "mAP_segm"), ("mask AP50", "AP50_segm"), ("box AP", "mAP_bbox"), ("box AP50", "AP50_bbox"))


def as_markdown(report: dict[str, Any]) -> str:
    """The whole page. Figures are in percent."""
    sections = (_summary, _test, _times, _classes, _pictures, _curves, _data, _reproduce, _circumstances)
    return "\n".join(line for section in sections for line in section(report)) + "\n"


def cell(text: object) -> str:
    """A text of the user's files as one cell of a table: what would end the cell or start markup is escaped."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return "".join(f"\\{letter}" if letter in "\\|`*_[]<>" else letter for letter in plain)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> Iterator[str]:
    """Numbers right, the first ``left`` columns left."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if place < left else "---:" for place in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(str(item) for item in row) + " |"
    yield ""


def _percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"


def _summary(report: dict[str, Any]) -> Iterator[str]:
    training, chosen, checkpoint = report["training"], report["selection"], report["checkpoint"]
    yield from ("# Report of a training run", "")
    yield (
        f"Model `{report['config']['model']['size']}` ({checkpoint['parameters'] / 1e6:.2f} M parameters, "
        f"{_count(len(checkpoint['classes']), 'class', 'classes')}) at {report['config']['train']['size']} px: "
        f"{training['epochs']} of {training['epochs_planned']} epochs, {_duration(training['seconds'])} of training."
    )
    if chosen["metric"] is None:
        yield "Nothing was measured during the training: `best.pt` is the newest epoch."
    else:
        value = f"{chosen['value']:.4f}" if chosen["metric"] == "val_loss" else f"{_percent(chosen['value'])} %"
        yield f"`best.pt` is epoch {chosen['epoch']}, chosen by `{chosen['metric']}` on the split val ({value} there)."
    yield ""


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _test(report: dict[str, Any]) -> Iterator[str]:
    test = report["test"]
    yield from ("## Held-out test split", "")
    if not test["measured"]:
        yield from (f"**Not measured: {cell(test['reason'])}.** This report has no test figures.", "")
        return
    contract = test["contract"]
    yield (
        f"{test['images']} images with {test['objects']} objects, from which this run neither learned nor chose. Average "
        f"precision in percent by COCO's rules, at most {contract['max_detections']} detections per image. In brackets 95 % "
        f"intervals, bootstrap over images ({contract['bootstrap']} resamples): they speak of the luck of the images, not of the "
        "training, which is one seed."
    )
    if test["unknown_classes"]:
        yield f"Classes that the model does not know, whose objects count as missed: {cell(', '.join(test['unknown_classes']))}."
    yield ""
    rows = [test["peripheral_only"], *test["budgets"]]
    figures = [(name, key) for name, key in _FIGURES if any(row["figures"].get(key, -1) >= 0 for row in rows)]
    body = [[row["budget"], f"{row['tiles_per_image']:.1f}", *(_with_interval(row, key) for _, key in figures)] for row in rows]
    yield from _table(["budget", "tiles per image", *(name for name, _ in figures)], body)
    yield (
        "`1.0` looks at every tile that shows the image, `0.25` at a quarter of them; `no tiles` gates every tile off: what the "
        "model sees without a close look."
    )
    yield ""


def _with_interval(row: dict[str, Any], key: str) -> str:
    low, high = row["intervals"].get(key) or (None, None)
    value = _percent(row["figures"].get(key))
    return value if low is None or high is None or value == "-" else f"{value} ({100 * low:.1f} to {100 * high:.1f})"


# Of a row of the sweep, what says something of time: key, title.
_COSTS = (
    ("graph_milliseconds", "network, ms (p95)"),
    ("image_milliseconds", "image, ms (p95)"),
    ("images_per_second", "images per second"),
)


def _times(report: dict[str, Any]) -> Iterator[str]:
    test = report["test"]
    if not test["measured"]:
        return
    yield from ("## Time", "")
    costs = [(key, title) for key, title in _COSTS if any(row.get(key) is not None for row in test["budgets"])]
    peaks = [_peak(row.get("peak_memory") or {}) for row in test["budgets"]]
    head = ["budget", "tiles per image", *(title for _, title in costs), *(["peak memory, MiB"] if any(peaks) else [])]
    body = [
        [
            row["budget"],
            f"{row['tiles_per_image']:.1f}",
            *(_cost(row.get(key)) for key, _ in costs),
            *([peak] if any(peaks) else []),
        ]
        for row, peak in zip(test["budgets"], peaks, strict=True)
    ]
    yield from _table(head, body)
    yield f"Timed: {test['timed']}. Medians over the test images, measured once."
    if any(peaks):
        yield "Peak memory is the most since the process began: where `apex-train fit` wrote this page, the training is in it."
    yield ""


def _cost(value: Any) -> str:
    if isinstance(value, dict) and {"median", "p95"} <= set(value):
        return f"{value['median']:.1f} ({value['p95']:.1f})"
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def _peak(memory: dict[str, int | None]) -> str:
    """That of the device where it counts its own, else the resident set of the process."""
    bytes_ = memory.get("device_bytes") or memory.get("resident_bytes")
    return f"{bytes_ / (1 << 20):.0f}" if bytes_ else ""


def _classes(report: dict[str, Any]) -> Iterator[str]:
    test = report["test"]
    rows = (test["budgets"][-1].get("per_class") or []) if test["measured"] else []
    present = [row for row in rows if row.get("objects", 0) > 0]
    if not present:
        return
    yield from (f"## Per class, budget {test['budgets'][-1]['budget']}", "")
    figures = [("mask AP", "AP_segm"), ("mask AP50", "AP50_segm"), ("box AP", "AP_bbox"), ("box AP50", "AP50_bbox")]
    figures = [(name, key) for name, key in figures if any(row.get(key) is not None for row in present)]
    body = [
        [cell(row["name"]), row["objects"], *(_percent(row.get(key)) for _, key in figures)]
        for row in sorted(present, key=lambda row: -row["objects"])[:LISTED]
    ]
    yield from _table(["class", "objects", *(name for name, _ in figures)], body)
    left = [f"{len(present) - LISTED} more in report.json"] if len(present) > LISTED else []
    left += (
        [f"{_count(len(rows) - len(present), 'class has', 'classes have')} no object in this split"]
        if len(rows) > len(present)
        else []
    )
    if left:
        yield from ("; ".join(left).capitalize() + ".", "")


def _pictures(report: dict[str, Any]) -> Iterator[str]:
    test = report["test"]
    if not test["measured"]:
        return
    shown, score = test["pictures"], test["pictures"]["score"]
    yield from ("## Best and worst test images", "")
    yield (
        f"Ranked by the F1 of one image: what scores at least {score['min_score']} is a claim, right when its {score['overlap']} "
        f"overlaps an object of its class by IoU {score['min_iou']} or more that no better claim has taken; F1 = 2 x right / "
        f"(claims + objects). Budget {shown['budget']}; tiles that were not looked at lie under a bluish fog. Green agrees, red "
        "does not (an object that was missed, a detection that is wrong), blue counts neither way."
    )
    yield ""
    for kind in ("best", "worst"):
        for place, entry in enumerate(shown[kind], start=1):
            counts = f"{entry['found']} of {entry['objects']} objects found, {entry['false']} wrong"
            yield from (f"**{kind.capitalize()} {place}**, {cell(entry['image'])}: F1 {entry['f1']:.2f}, {counts}.", "")
            yield from (f"![{kind} {place}: truth and prediction]({entry['file']})", "")


def _curves(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Curves", "")
    curves = report["curves"]
    if curves["panels"]:
        yield from (f"![Curves over the epochs]({curves['file']})", "")
        yield from ("Every number is in `log.csv` and `log.jsonl`. Figures of val chose the epoch, so they flatter it.", "")
    else:
        yield from ("No epoch was finished: there is nothing to draw.", "")


def _data(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Data", "")
    body = [
        [
            cell(name),
            split.get("dataset_type", "-"),
            split.get("images", "-"),
            f"`{split['fingerprint']}`" if "fingerprint" in split else "-",
        ]
        for name, split in report["data"].items()
    ]
    yield from _table(["split", "layout", "images", "fingerprint"], body, left=4)
    yield "A fingerprint is the SHA-256 of annotations and of names and sizes of images; equal ones are the same data."
    yield ""


def _reproduce(report: dict[str, Any]) -> Iterator[str]:
    size = report["config"]["train"]["size"]
    yield from ("## Again", "")
    yield from ("In the folder of this run, with the data in `DATA`:", "")
    yield "    apex-train fit config.yaml --data DATA --output again"
    if report["test"]["measured"]:
        budgets = ",".join(row["budget"] for row in report["test"]["budgets"])
        yield f"    apex-train eval best.pt --data DATA --split test --size {size} --budget {budgets} --bootstrap"
    yield from ("    apex-train report . --data DATA", "")
    yield (
        "The first trains anew with every value of this run (one that was started with `--init` needs that too); the others "
        "measure this checkpoint again."
    )
    yield ""


def _circumstances(report: dict[str, Any]) -> Iterator[str]:
    code, device = report["code"], report["device"]
    commit = f"`{code['commit']}`" + (" with changes" if code["dirty"] else "") if code["commit"] else "not from a git checkout"
    libraries = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    rows = [
        ("checkpoint", f"`{report['checkpoint']['file']}`, SHA-256 `{report['checkpoint']['sha256']}`"),
        ("configuration", "`config.yaml`; also in `report.json`"),
        ("commit of the code that measured", commit),
        ("device", f"{cell(device['name'])} ({device['kind']}, {device['threads']} CPU threads, {device['system']})"),
        ("versions", cell(libraries)),
        ("written", report["created_utc"]),
    ]
    yield from ("## Circumstances", "")
    yield from _table(["item", "value"], rows, left=2)
