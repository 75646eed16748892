"""The budget curve of a shipped engine as one SVG: what a deadline costs in accuracy, with one artefact.

    python bench/budget_curve.py --accuracy ACCURACY.json --latency LATENCY.json \\
        --output docs/budget-curve.svg

Nothing is measured here: accuracy comes from ``ship_engine.py``, latency from ``latency.py``; the picture names both files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 30, 70
INK, LINE, FAINT = "#24292f", "#0969da", "#d0d7de"


@dataclass(frozen=True)
class Point:
    """One budget: its label, milliseconds of the graph, mask AP in percent with its interval."""

    label: str
    milliseconds: float
    ap: float
    low: float
    high: float


@click.command()
@click.option("--accuracy", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--latency", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
def main(accuracy: Path, latency: Path, output: Path) -> None:
    """Draw the curve."""
    points, tiles = read_points(json.loads(accuracy.read_text()), json.loads(latency.read_text()))
    output.write_text(draw(points, tiles, f"{accuracy.name}, {latency.name}"), encoding="utf-8")
    click.echo(f"{output}: {', '.join(f'{p.label} {p.milliseconds:.0f} ms {p.ap:.1f}' for p in points)}")


def read_points(accuracy: dict, latency: dict) -> tuple[list[Point], int]:
    """Budgets that both files measured; the two must speak of the same checkpoint."""
    if accuracy["engine"]["checkpoint_sha256"] != latency["contract"]["checkpoint_sha256"]:
        raise click.UsageError("the two files measured different checkpoints")
    milliseconds = {row["subject"]: row["median_ms"] for row in latency["rows"]}
    tiles = max(int(name[2:]) for name in milliseconds if name.startswith("K="))
    points = []
    for label, row in accuracy["rows"].items():
        share = float(label) if label.replace(".", "").isdigit() else None
        if share is None or f"K={round(share * tiles)}" not in milliseconds:
            continue
        low, high = row["interval_segm"]
        time = milliseconds[f"K={round(share * tiles)}"]
        points.append(Point(f"{100 * share:g} %", time, 100 * row["mAP_segm"], 100 * low, 100 * high))
    return sorted(points, key=lambda point: point.milliseconds), tiles


def draw(points: list[Point], tiles: int, source: str) -> str:
    """The SVG text."""
    right = 1.25 * max(point.milliseconds for point in points)
    bottom, top = 5 * int(min(p.low for p in points) // 5), 5 * (int(max(p.high for p in points) // 5) + 1)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / right

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom)

    parts = [_text(WIDTH / 2, HEIGHT - 32, "milliseconds of the graph (512 x 512, ONNX Runtime CPU, 2 threads)")]
    parts.append(
        _text(WIDTH / 2, HEIGHT - 10, f"share of the {tiles} tiles looked at closely; bars: 95 % over images; {source}", 11)
    )
    parts.append(
        f'<g transform="translate(18,{(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)">{_text(0, 0, "mask AP, nuclei test split")}</g>'
    )
    for value in range(bottom, top + 1, 5):
        parts += [_line(LEFT, y(value), WIDTH - RIGHT, y(value), FAINT), _text(LEFT - 8, y(value) + 4, str(value), 12, "end")]
    step = 10 if right < 80 else 50
    for value in range(0, int(right) + 1, step):
        parts.append(_text(x(value), HEIGHT - BOTTOM + 16, str(value), 12))
    path = " ".join(f"{x(p.milliseconds):.1f},{y(p.ap):.1f}" for p in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>')
    for p in points:
        parts.append(_line(x(p.milliseconds), y(p.low), x(p.milliseconds), y(p.high), LINE))
        parts.append(f'<circle cx="{x(p.milliseconds):.1f}" cy="{y(p.ap):.1f}" r="4" fill="{LINE}"/>')
        parts.append(_text(x(p.milliseconds) + 8, y(p.ap) + 18, f"{p.label}: {p.ap:.1f}", 12, "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, size: int = 13, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


if __name__ == "__main__":
    main()
