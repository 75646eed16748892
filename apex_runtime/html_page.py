"""The frame of every page this package writes: it needs nothing else, and forbids itself to load or run anything."""

from __future__ import annotations

import html
from string import Template
from typing import Any

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; color: #1b1f24; }
h1, h2, h3, h4 { line-height: 1.2; } h2 { border-top: 1px solid #d0d7de; padding-top: 1.2rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d8dee4; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
$style</style>
</head>
<body>
$body
</body>
</html>
""")


def html_page(title: str, body: str, style: str = "") -> str:
    """A whole document. ``title`` is escaped; ``body`` and ``style`` (more rules of CSS, a line each) stand as they are."""
    return _PAGE.substitute(title=escape(title), body=body, style=style)


def escape(text: Any) -> str:
    """Whatever comes from outside, as text of a page."""
    return html.escape(str(text), quote=True)
