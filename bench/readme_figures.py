"""Writes the table of figures into README.md from the evidence files, between two markers; a test fails when they differ.

python bench/readme_figures.py
python bench/readme_figures.py --check
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from evidence import ROOT

BEGIN, END = "<!-- figures: bench/readme_figures.py -->", "<!-- end of figures -->"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 when the table is not that of the files.")
def main(check: bool) -> None:
    """Rewrite the table in README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    made = replaced(text)
    if check:
        click.echo(
            f"{readme.name}: {'the figures are those of the files' if made == text else 'the figures are not those of the files'}"
        )
        sys.exit(made != text)
    readme.write_text(made, encoding="utf-8")
    click.echo(f"{readme.name}: figures written")


def replaced(text: str) -> str:
    """``text`` with the part between the markers made anew."""
    head, found, rest = text.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not found or not closed:
        raise click.UsageError(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def table() -> str:
    """Accuracy on the test split and latency at two sizes, in Markdown."""
    accuracy, small, large = (_read(name) for name in ("nuclei-nano", "latency-512", "latency-1024"))
    lines = ["| budget | mask AP at 512 x 512 (95 %) | AP50 | ms at 512 x 512 | ms at 1024 x 1024 |", "|---|---|---|---|---|"]
    for label, row in accuracy["rows"].items():
        low, high = (100 * bound for bound in row["interval_segm"])
        name = "all tiles" if label == "1.0" else f"{100 * float(label):g} % of the tiles" if label[0].isdigit() else label
        times = [_milliseconds(item, label) for item in (small, large)]
        ap = f"{100 * row['mAP_segm']:.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"| {name} | {ap} | {100 * row['AP50_segm']:.1f} | {times[0]} | {times[1]} |")
    for name in [row["subject"] for row in large["rows"] if not row["subject"].startswith("K=")]:
        title = "dense foveal pass, same weights" if name == "dense" else f"{name}, for scale (random weights, time only)"
        lines.append(f"| {title} | | | {_of(small, name)} | {_of(large, name)} |")
    return "\n".join(lines)


def _read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "bench" / "evidence" / f"{name}.json").read_text(encoding="utf-8"))


def _milliseconds(latency: dict[str, Any], label: str) -> str:
    """Of the row whose K is this share of all tiles; empty for the line without tiles, which no engine can be asked for."""
    if not label[0].isdigit():
        return ""
    count = max(int(row["subject"][2:]) for row in latency["rows"] if row["subject"].startswith("K="))
    return _of(latency, f"K={round(float(label) * count)}")


def _of(latency: dict[str, Any], subject: str) -> str:
    return next((f"{row['median_ms']:.0f}" for row in latency["rows"] if row["subject"] == subject), "")


if __name__ == "__main__":
    main()
