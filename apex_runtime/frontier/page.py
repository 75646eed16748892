"""The frontier as one page that needs nothing else: no network, no script; the picture is inside."""

from __future__ import annotations

import base64
import html
from string import Template
from typing import Any

from apex_runtime.frontier.picture import KINDS

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Frontier</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; color: #1b1f24; }
h1, h2 { line-height: 1.2; } h2 { border-top: 1px solid #d0d7de; padding-top: 1.2rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d8dee4; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
img { width: 100%; height: auto; }
</style>
</head>
<body>
<h1>Accuracy and time over the budget</h1>
<p>$images images of the split $split, made $created. $timed.</p>
<img alt="Accuracy over milliseconds, a line per way to choose tiles" src="data:image/png;base64,$picture">
$contenders
<p>$machine. $versions</p>
</body>
</html>
""")


def page(report: dict[str, Any], picture: bytes) -> str:
    """The page of a report; what comes from outside is escaped."""
    data, facts = report["data"], report["circumstances"]
    return _PAGE.substitute(
        images=data["images"],
        split=_e(data["split"]),
        created=_e(report["created_utc"]),
        timed=_e(report["timed"]),
        picture=base64.b64encode(picture).decode("ascii"),
        contenders="\n".join(_contender(each, report["asked"]["kinds"]) for each in report["contenders"]),
        machine=_e(f"{facts['machine']['processor']}, {facts['machine']['usable_cpus']} cpus"),
        versions=_e(", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)),
    )


def _contender(contender: dict[str, Any], kinds: list[str]) -> str:
    names = [f"{figure}_{kind}" for kind in reversed(kinds) for figure in ("AP50", "AP")]
    heads = [*(("line", "budget")), "tiles", "image ms", "graph ms"]
    heads += [f"{KINDS[name.split('_')[1]]} {name.split('_')[0]} (95 %)" for name in names]
    rows = "".join(_row(row, names) for row in contender["rows"] if row["seed"] is None)
    other = "".join(
        f"<li>{_e(name)}: {_e(pair[1])}, the first has {_e(pair[0])}</li>" for name, pair in contender["differences"].items()
    )
    different = f"<p>Not measured as the first:</p><ul>{other}</ul>" if other else ""
    head = "".join(f"<th{'' if place < 2 else ' class=n'}>{_e(text)}</th>" for place, text in enumerate(heads))
    model = _e(contender["subject"]["model_sha256"])
    return f"<h2>{_e(contender['title'])}</h2><p>Model <code>{model}</code></p>{different}<table><tr>{head}</tr>{rows}</table>"


def _row(row: dict[str, Any], names: list[str]) -> str:
    cells = [_cell(row["tiles"]), _cell(row["image_ms"]), _cell(row["graph_ms"]), *(bounds(row.get(name)) for name in names)]
    numbers = "".join(f"<td class=n>{_e(cell)}</td>" for cell in cells)
    return f"<tr><td>{_e(row['line'])}</td><td>{_e(row['budget'] or '')}</td>{numbers}</tr>"


def bounds(found: dict[str, float | None] | None) -> str:
    """A figure in percent with its interval; empty for what was not measured."""
    if found is None or found["value"] is None:
        return ""
    low, value, high = (
        _cell(None if found[name] is None else 100 * float(found[name] or 0)) or "-" for name in ("low", "value", "high")
    )
    return f"{value} ({low} to {high})"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _e(text: Any) -> str:
    return html.escape(str(text), quote=True)
