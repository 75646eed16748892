"""The report on a terminal: counts, classes and sizes as tables, the findings by kind, and one line that says yes or no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from apex_train.preflight.report import message, place, sorted_findings
from apex_train.preflight.statistics import LETTERBOX, SIZE_NAMES, SplitStatistics
from apex_train.preflight.walk import SetReport

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CLASSES = 20
_EXAMPLES = 5
_BAR = 24  # characters of the longest bar
_MEASURES = {
    "sqrt_area": "root of their area",
    "short_side": "short side of the box",
    f"short_side_in_{LETTERBOX}": f"short side, letterbox of {LETTERBOX}",
}


def show(reports: Sequence[SetReport], console: Console, everything: bool) -> None:
    """Print the tables and findings of all sets; ``everything``: every class and every finding."""
    for report in reports:
        if report.splits:
            for table in (_counts(report), _classes(report, everything), *_sizes(report)):
                console.print(table)
        for line in _findings(report, everything):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(verdict(reports), markup=False, highlight=False, soft_wrap=True)


def verdict(reports: Sequence[SetReport]) -> str:
    """One line: whether the data may be trained on, and what was counted."""
    errors = sum(len(report.errors) for report in reports)
    warnings = sum(len(report.findings) for report in reports) - errors
    images = sum(len(split.per_image) for report in reports for split in report.splits)
    instances = sum(split.instances for report in reports for split in report.splits)
    word = "not ready" if errors else "ready"
    return f"{word}: {_number(errors, 'error')}, {_number(warnings, 'warning')}; {images} images, {instances} instances"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _counts(report: SetReport) -> Table:
    table = _table(f"{report.data} ({report.kind})", "", [split.split for split in report.splits])
    figures = [split.per_image_figures() for split in report.splits]
    rows: dict[str, list[object]] = {
        "images": [len(split.per_image) for split in report.splits],
        "  without objects": [split.empty for split in report.splits],
        "  size": [_image_sizes(split) for split in report.splits],
        "instances": [split.instances for split in report.splits],
        "  of them crowds": [split.crowds for split in report.splits],
        "objects with a mask": [split.with_mask for split in report.splits],
        "  with a box only": [split.box_only for split in report.splits],
        "objects per image": [f"{figure['mean']:.1f}" for figure in figures],
        "  95th percentile": [f"{figure['p95']:.0f}" for figure in figures],
        "  most": [f"{figure['max']:.0f}" for figure in figures],
    }
    for name, values in rows.items():
        table.add_row(name, *map(str, values))
    return table


def _image_sizes(split: SplitStatistics) -> str:
    """The size where all have the same, else the least and the greatest width and height."""
    sizes = list(split.image_sizes)
    if len(sizes) == 1:
        return f"{sizes[0][0]}x{sizes[0][1]}"
    (widths, heights) = zip(*sizes, strict=True) if sizes else ((0,), (0,))
    return f"{min(widths)}-{max(widths)}x{min(heights)}-{max(heights)}"


def _classes(report: SetReport, everything: bool) -> Table:
    """Objects per class and split, the most frequent first; a panoptic split beside may have other classes."""
    names = list(dict.fromkeys(name for split in report.splits for name in split.class_names))
    counts = [Counter({split.class_names[label]: n for label, n in split.classes.items()}) for split in report.splits]
    totals = sum(counts, Counter())
    ordered = sorted(names, key=lambda name: -totals[name])
    kept = ordered if everything else ordered[:_CLASSES]
    more = len(ordered) - len(kept)
    absent = sum(totals[name] == 0 for name in names)
    title = f"classes: {len(names)}" + (f", {absent} without an object" if absent else "") + (f", {more} more" if more else "")
    table = _table(title, "class", [*(split.split for split in report.splits), "objects"])
    table.add_column("")
    most = max(totals.values(), default=0)
    for name in kept:
        table.add_row(_plain(name), *(str(count[name]) for count in counts), str(totals[name]), _bar(totals[name], most))
    return table


def _sizes(report: SetReport) -> Iterator[Table]:
    """Objects per band of sizes, a table for each measure."""
    bands = [split.size_bands() for split in report.splits]
    for measure, title in _MEASURES.items():
        table = _table(f"objects by {title}", "px", [*(split.split for split in report.splits), "objects"])
        table.add_column("")
        columns = [band[measure] for band in bands]
        totals = [sum(counts) for counts in zip(*columns, strict=True)]
        for name, total, *each in zip(SIZE_NAMES, totals, *columns, strict=True):
            table.add_row(name, *map(str, each), str(total), _bar(total, max(totals)))
        yield table


def _bar(count: int, most: int) -> str:
    """A bar of blocks; what is there at all shows."""
    return "█" * max(1, round(_BAR * count / most)) if count else ""


def _findings(report: SetReport, everything: bool) -> Iterator[str]:
    for fault, group in groupby(sorted_findings(report), key=lambda finding: finding.fault):
        found = list(group)
        yield f"{'error' if fault.is_error else 'warning'} {fault}: {len(found)}"
        kept = found if everything else found[:_EXAMPLES]
        for finding in kept:
            yield f"  {_printable(place(report, finding))}  {_printable(message(report, finding))}"
        if len(found) > len(kept):
            yield f"  and {len(found) - len(kept)} more; --all shows them"
    if report.findings:
        yield ""


def _plain(name: str) -> str:
    from rich.markup import escape

    return escape(_printable(name))


def _printable(text: str) -> str:
    """Names come from files: nothing in them may steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
