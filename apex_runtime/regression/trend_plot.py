"""The trend as one SVG: every metric against the first measurement of its series, so that all have one scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from apex_runtime.regression.trend import Row, by_series

WIDTH, HEIGHT = 820, 240
LEFT, RIGHT, TOP, BOTTOM = 60, 300, 40, 40
INK, FAINT = "#24292f", "#d0d7de"
LINES = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#9a6700", "#57606a")
_LEAST = 0.05  # of the scale to each side of 1: less than that is noise, and must not look like a slope


def trend_svg(rows: Sequence[Row]) -> str:
    """One panel per series, of at least one row."""
    panels = list(by_series(rows).items())
    height = HEIGHT * len(panels)
    body = "\n".join(
        f'<g transform="translate(0,{HEIGHT * place})">\n{chr(10).join(_panel(series, found))}\n</g>'
        for place, (series, found) in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )


def relative(rows: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """By metric: number of the row, and its value over that of the first row that has the metric."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    found = {name: [(place, row.metrics[name]) for place, row in enumerate(rows) if name in row.metrics] for name in names}
    return {name: [(place, value / points[0][1]) for place, value in points] for name, points in found.items()}


def _panel(series: str, rows: Sequence[Row]) -> Iterator[str]:
    lines = relative(rows)
    values = [value for points in lines.values() for _place, value in points]
    low, high = min(1 - _LEAST, *values), max(1 + _LEAST, *values)

    def x(place: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * place / max(1, len(rows) - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    yield _text(LEFT, 16, series, 10)
    for value in (low, 1.0, high):
        yield f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}" stroke="{FAINT}"/>'
        yield _text(LEFT - 6, y(value) + 4, f"{value:.2f}", 11, "end")
    yield _text(LEFT, HEIGHT - BOTTOM + 18, rows[0].created_utc[:10], 11)
    if len(rows) > 1:
        yield _text(WIDTH - RIGHT, HEIGHT - BOTTOM + 18, rows[-1].created_utc[:10], 11, "end")
    for number, (name, points) in enumerate(lines.items()):
        colour = LINES[number % len(LINES)]
        path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>' for place, value in points)
        yield _text(WIDTH - RIGHT + 14, TOP + 16 * number, f"{name}: {points[-1][1]:.3f} of the first", 11, colour=colour)


def _text(x: float, y: float, text: str, size: int, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
