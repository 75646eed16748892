"""The report as one page that needs nothing else: no network, no script; the pictures are inside. ``apex-rt parity --html FILE``.

Whatever comes from outside (paths, names of classes and images, messages of a runtime) is escaped, and the page forbids itself to
load or run anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from apex_runtime.errors import UsageError
from apex_runtime.files import write_atomically
from apex_runtime.html_page import escape, html_page
from apex_runtime.parity.panels import COMMON, ONLY_CANDIDATE, ONLY_REFERENCE, Panel
from apex_runtime.parity.worst import Sight

_STYLE = """.pass, .fail, .empty { font-weight: 600; padding: .05rem .5rem; border-radius: .7rem; color: #fff; }
.pass { background: #1a7f37; } .fail { background: #cf222e; } .empty { background: #6e7781; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: .8rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; } figcaption { font-size: 13px; color: #57606a; }
.swatch { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
"""
_BODY = Template("""<h1>Parity <span class="$verdict">$verdict</span></h1>
<p>Profile <b>$profile</b>, $created. $tools</p>
$subjects
$comparisons""")

_SWATCH = '<span class="swatch" style="background:rgb{}"></span>{}'
_COLUMNS = ("what", "values", "mismatches", "max |d|", "mean |d|", "tolerance", "SQNR dB", "verdict", "why")


def write_page(path: Path, document: dict[str, Any], sights: Sequence[Sequence[Sight]]) -> None:
    """Write the page of a report in one step. ``sights``: the worst images of every comparison, in the order of the report.

    Raises UsageError when the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page(document, sights).encode("utf-8"))
    except OSError as error:
        raise UsageError(f"--html {path}: cannot be written ({error.strerror}).", "Name another file.", path=path) from error


def page(document: dict[str, Any], sights: Sequence[Sequence[Sight]]) -> str:
    """The page of the content of ``parity.json``; see ``write_page``."""
    parts = [_comparison(item, shown) for item, shown in zip(document["comparisons"], sights, strict=True)]
    profile = document["profile"]
    body = _BODY.substitute(
        verdict=_e(document["verdict"]),
        profile=_e(f"{profile['name']}, version {profile['version']}"),
        created=_e(document["created_utc"]),
        tools=_e(", ".join(f"{name} {number}" for name, number in document["tools"].items())),
        subjects=_subjects(document),
        comparisons="\n".join(parts),
    )
    return html_page(f"Parity: {document['verdict']}", body, _STYLE)


def _subjects(document: dict[str, Any]) -> str:
    rows = [("reference", document["reference"], None)]
    rows += [("candidate", item["candidate"], item["verdict"]) for item in document["comparisons"]]
    cells = [
        (
            role,
            _code(side["path"]),
            side["kind"],
            side["precision"],
            _code(f"{side['sha256']} ({side['hashed']})"),
            _badge(verdict),
        )
        for role, side, verdict in rows
    ]
    return _table(("", "path", "kind", "precision", "SHA-256", "verdict"), cells)


def _comparison(item: dict[str, Any], shown: Sequence[Sight]) -> str:
    backends = item["backends"]
    real = sum(not image["synthetic"] for image in item["images"])
    parts = [
        f"<h2>{_code(item['candidate']['path'])} {_badge(item['verdict'])}</h2>",
        f"<p>{_e(backends['reference'] or 'unknown')} against {_e(backends['candidate'] or 'unknown')}, on {real} real images "
        f"and {len(item['images']) - real} synthetic ones.</p>",
        _list(item["reasons"]),
        _list([f"note: {note}" for note in item["notes"]]),
        *(_budget(budget) for budget in item["budgets"]),
        _sights(shown),
    ]
    return "\n".join(part for part in parts if part)


def _budget(budget: dict[str, Any]) -> str:
    counts = budget["tiles"]
    spread = f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{counts[0]}"
    title = f"budget {budget['asked']}: {spread} tiles, {budget['batch']} at a time"
    rows = [_output_row(name, output) for name, output in budget["tensor"].items()]
    tables = _table(_COLUMNS, [*rows, _decision_row(budget["decision"])]) + _task(budget["task"])
    return f"<h3>{_e(title)} {_badge(budget['verdict'])}</h3>{tables}"


def _task(task: dict[str, Any]) -> str:
    """What a user gets, beside what is asked for."""
    limits = task["limits"]
    alone = f"{task['matched']} pairs, {task['reference_only']} + {task['candidate_only']} alone"
    rows: list[tuple[object, ...]] = [
        ("match rate", task["match_rate"], f"at least {limits['min_match_rate']:g}", alone),
        ("mean box IoU", task["mean_box_iou"], f"at least {limits['min_mean_box_iou']:g}", ""),
        ("mean mask IoU", task["mean_mask_iou"], f"at least {limits['min_mean_mask_iou']:g}", ""),
        ("mean |score difference|", task["mean_score_difference"], f"at most {limits['max_mean_score_difference']:g}", ""),
    ]
    precision = task["average_precision"] or {}
    rows += [
        (f"drop of {kind} AP, points", pair["drop_points"], f"at most {limits['max_ap_drop']:g}", "")
        for kind in ("box", "mask")
        if (pair := precision.get(kind))
    ]
    shown = [tuple("" if value is None else value for value in row) for row in rows]
    return f"<p>Task level {_badge(task['verdict'])}</p>{_list(task['reasons'])}" + _table(("what", "found", "limit", ""), shown)


def _output_row(name: str, output: dict[str, Any]) -> tuple[object, ...]:
    tolerance, least, found = output["tolerance"], output["min_sqnr_db"], output["sqnr_db"]
    allowed = f"{tolerance['atol']:g} + {tolerance['rtol']:g} |ref|" if tolerance else ""
    ratio = ("" if found is None else f"{found:.1f}") + ("" if least is None else f" (least {least:g})")
    numbers = output["count"], output["mismatches"], f"{output['max_abs']:.2e}", f"{output['mean_abs']:.2e}"
    return (name, *numbers, allowed, ratio, _badge(output["verdict"]), "; ".join(output["reasons"]))


def _decision_row(decision: dict[str, Any]) -> tuple[object, ...]:
    overlap = decision["mean_overlap"]
    words = "" if overlap is None else f"mean overlap {overlap:.4f}, least {decision['min_overlap']:.4f}"
    why = "; ".join([*([words] if words else []), *decision["reasons"]])
    others = decision["images"] - decision["equal_sets"]
    return ("same tiles chosen", decision["images"], others, "", "", "", "", _badge(decision["verdict"]), why)


def _sights(shown: Sequence[Sight]) -> str:
    if not shown:
        return ""
    colours = zip((COMMON, ONLY_REFERENCE, ONLY_CANDIDATE), ("both", "only the reference", "only the candidate"), strict=True)
    legend = "".join(_SWATCH.format(colour, words) for colour, words in colours)
    return (
        "<h3>The worst real images</h3><p>Those that fail first, then the fewest tiles in common, then the part of the tolerance "
        "that scores and mask prototypes take up. Both drawings and the tiles: each side left to itself; the difference: the "
        f"same tiles forced on both.</p><p>Tiles chosen by{legend}</p>" + "\n".join(map(_sight, shown))
    )


def _sight(sight: Sight) -> str:
    badness = sight.badness
    words = (
        f"budget {sight.asked}, {sight.batch} at a time; {100 * (1 - badness.other_tiles):.1f} % of the tiles in common; "
        f"scores and prototypes take up {badness.strain:.3g} times the tolerance"
    )
    figures = "".join(map(_figure, sight.panels))
    badge = _badge("fail" if badness.fails else "pass")
    return f'<h4>{_e(sight.name)} {badge}</h4><p>{_e(words)}</p>{_list(sight.reasons)}<div class="panels">{figures}</div>'


def _figure(panel: Panel) -> str:
    data = base64.b64encode(panel.jpeg).decode("ascii")
    caption = _e(panel.caption)
    return f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'


class _Safe(str):
    """Text that is HTML already."""


def _e(text: object) -> str:
    return text if isinstance(text, _Safe) else escape(text)


def _code(text: object) -> _Safe:
    return _Safe(f"<code>{_e(text)}</code>")


def _badge(verdict: str | None) -> _Safe:
    return _Safe(f'<span class="{_e(verdict)}">{_e(verdict)}</span>' if verdict else "")


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_e(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers stand on the right; what is no ``_Safe`` is escaped."""
    head = "".join(f"<th>{_e(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    number = isinstance(value, int | float) or (isinstance(value, str) and value[:1].isdigit() and "e" in value)
    return f'<td class="n">{_e(value)}</td>' if number else f"<td>{_e(value)}</td>"
