"""The runs of ``run.py`` in one table: figures with intervals, and what each has more or less than ours.

    python bench/baselines/compare.py runs/ours-0 runs/ours-1 runs/yolo-0 runs/yolo-1 --data DATA --output FILE.json
    python bench/baselines/compare.py runs/* --data DATA --times frontier.json --png frontier.png --output FILE.json

Runs of one name are seeds of one thing. Rows whose terms differ (data, size, limit, threads, machine, libraries, what counts) are
refused: exit code 1. ``--times`` is a report of ``apex-rt bench frontier`` on detectors of these runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[folder]) for folder in (1, 2)]

from evidence import write_evidence  # noqa: E402

from apex_runtime.data.open import open_dataset  # noqa: E402
from apex_runtime.errors import ApexError  # noqa: E402
from apex_runtime.frontier.figures import resamples  # noqa: E402
from baselines.answers import LIMIT, read_run  # noqa: E402
from baselines.budget import TOLERANCE  # noqa: E402
from baselines.table import Run, figures_of, grouped, refusals, rows  # noqa: E402


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="The data set of the runs.")
@click.option("--split", default="test", show_default=True)
@click.option("--against", default="ours 1.0", show_default=True, help="The row that differences are to.")
@click.option("--resamples", "samples", default=1000, show_default=True, type=click.IntRange(100))
@click.option("--times", type=click.Path(exists=True, path_type=Path), help="Report of apex-rt bench frontier.")
@click.option("--png", type=click.Path(path_type=Path), help="Draw mask AP over the times.")
@click.option("--output", type=click.Path(path_type=Path))
def main(
    folders: tuple[Path, ...],
    data: Path,
    split: str,
    against: str,
    samples: int,
    times: Path | None,
    png: Path | None,
    output: Path | None,
) -> None:
    """Read, refuse or compare, print; ``--output`` also writes the evidence."""
    if png is not None and times is None:
        raise click.UsageError("--png needs --times")
    try:
        dataset = open_dataset(data, split)
        found = [run for folder in folders for run in runs_of(folder)]
    except ApexError as error:
        raise click.ClickException(str(error)) from error
    said = refusals(found, dataset.fingerprint(), TOLERANCE)
    if said:
        click.echo("not one table:\n" + "\n".join(said), err=True)
        raise SystemExit(1)
    groups = grouped(found)
    if against not in groups:
        raise click.UsageError(f"--against {against}: there are {', '.join(groups)}")
    counts_RI = resamples(len(dataset), samples)
    figures = {run: figures_of(run, dataset.ground_truth(), LIMIT, counts_RI) for run in found}
    table = rows(groups, figures, against, {} if times is None else read_times(times))
    click.echo(as_text(table))
    terms = {"contracts": sorted({run.contract.sha256() for run in found}), "training": found[0].training}
    if png is not None:
        from baselines.plot import draw

        draw(table, png)
    if output is not None:
        contract = {run.contract.sha256(): run.contract.model_dump(mode="json") for run in found}
        write_evidence(output, terms | {"against": against, "resamples": samples, "rows": table, "fairness": contract})


def runs_of(folder: Path) -> list[Run]:
    """One per answer of a run."""
    facts, answers = read_run(folder)
    return [Run(f"{facts['who']} {answer.name}", facts, answer) for answer in answers]


def read_times(path: Path) -> dict[tuple[str, str], float]:
    """Milliseconds per image by SHA-256 of the model file and the name of an answer."""
    found = {}
    for contender in json.loads(path.read_text())["contenders"]:
        sliced = "sliced" in (contender["fairness"]["postprocessing"] or "")
        for row in contender["rows"]:
            name = {"router": row["budget"], "all tiles": "1.0", "yardstick": "sliced" if sliced else "all"}.get(row["line"])
            if name is not None:
                found[contender["subject"]["model_sha256"], name] = row["image_ms"]
    return found


def as_text(table: list[dict[str, Any]]) -> str:
    """A line per row, percent."""
    lines = [f"{'':<20}{'seeds':>6}{'minutes':>9}{'ms':>8}   {'mask AP':<22}{'mask AP50':<22}mask AP less that of the first"]
    for row in table:
        ms = "" if row["image_ms"] is None else f"{row['image_ms']:.1f}"
        cells = [_interval(row["figures"][name]) for name in ("AP_segm", "AP50_segm")] + [_interval(row["minus"].get("AP_segm"))]
        head = f"{row['name']:<20}{len(row['seeds']):>6}{row['cpu_minutes']['mean']:>9.2f}{ms:>8}   "
        lines.append(head + "".join(f"{cell:<22}" for cell in cells).rstrip())
    return "\n".join(lines)


def _interval(found: dict[str, float | None] | None) -> str:
    if found is None or found["value"] is None:
        return ""
    low, value, high = (found[name] for name in ("low", "value", "high"))
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


if __name__ == "__main__":
    main()
