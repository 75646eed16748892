"""The frontier as one page that needs nothing else: no network, no script; the picture is inside."""

from __future__ import annotations

import base64
from string import Template
from typing import Any

from apex_runtime.frontier.picture import KINDS
from apex_runtime.html_page import escape, html_page

_BODY = Template("""<h1>Accuracy and time over the budget</h1>
<p>$images images of the split $split, made $created. $timed.</p>
<img alt="Accuracy over milliseconds, a line per way to choose tiles" src="data:image/png;base64,$picture">
$contenders
<p>$machine. $versions</p>""")


def page(report: dict[str, Any], picture: bytes) -> str:
    """The page of a report; what comes from outside is escaped."""
    data, facts = report["data"], report["circumstances"]
    body = _BODY.substitute(
        images=data["images"],
        split=escape(data["split"]),
        created=escape(report["created_utc"]),
        timed=escape(report["timed"]),
        picture=base64.b64encode(picture).decode("ascii"),
        contenders="\n".join(_contender(each, report["asked"]["kinds"]) for each in report["contenders"]),
        machine=escape(f"{facts['machine']['processor']}, {facts['machine']['usable_cpus']} cpus"),
        versions=escape(", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)),
    )
    return html_page("Frontier", body, "img { width: 100%; height: auto; }\n")


def _contender(contender: dict[str, Any], kinds: list[str]) -> str:
    names = [f"{figure}_{kind}" for kind in reversed(kinds) for figure in ("AP50", "AP")]
    heads = [*(("line", "budget")), "tiles", "image ms", "graph ms"]
    heads += [f"{KINDS[name.split('_')[1]]} {name.split('_')[0]} (95 %)" for name in names]
    rows = "".join(_row(row, names) for row in contender["rows"] if row["seed"] is None)
    other = "".join(
        f"<li>{escape(name)}: {escape(pair[1])}, the first has {escape(pair[0])}</li>"
        for name, pair in contender["differences"].items()
    )
    different = f"<p>Not measured as the first:</p><ul>{other}</ul>" if other else ""
    head = "".join(f"<th{'' if place < 2 else ' class=n'}>{escape(text)}</th>" for place, text in enumerate(heads))
    model = escape(contender["subject"]["model_sha256"])
    return (
        f"<h2>{escape(contender['title'])}</h2><p>Model <code>{model}</code></p>{different}<table><tr>{head}</tr>{rows}</table>"
    )


def _row(row: dict[str, Any], names: list[str]) -> str:
    cells = [_cell(row["tiles"]), _cell(row["image_ms"]), _cell(row["graph_ms"]), *(bounds(row.get(name)) for name in names)]
    numbers = "".join(f"<td class=n>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td>{escape(row['line'])}</td><td>{escape(row['budget'] or '')}</td>{numbers}</tr>"


def bounds(found: dict[str, float | None] | None) -> str:
    """A figure in percent with its interval, where it has one; empty for what was not measured."""
    if found is None:
        return ""
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
