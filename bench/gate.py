"""Does the gate catch a slow-down of 15 %, and how often is it wrong about an engine that did not change?

A pair is a baseline (``apex-rt bench record``) and a check against it, each a fresh process. Clean and planted pairs
alternate, so that what else the machine does hits both. Slow-downs are of two kinds in turn: a session that computes
15 % longer, and a graph with more convolutions, whose number is chosen by measuring. A planted pair is caught only by a
metric of time.

    python bench/gate.py engines/nuclei-nano/model.onnx --output bench/evidence/gate.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from evidence import write_evidence
from slower import with_more_convolutions

from apex_runtime.backends.ort import OrtSession
from apex_runtime.benchmark.turns import Subject
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.own_time import time_turn
from apex_runtime.regression.record import OVER_ANCHOR
from apex_runtime.regression.workload import calls_of

PLANTED = 0.15
KINDS = ("computes longer", "more convolutions")
CHANNELS = (32, 40, 48, 56, 64)  # convolutions of ONNX Runtime compute eight of them at a time
LOOKS = 30  # rounds over them


@click.command()
@click.argument("engine", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--pairs", default=20, show_default=True, help="Of each: clean and planted.")
@click.option("--budget", default="0.25", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="The most for a baseline; a check has its default.")
@click.option("--output", type=click.Path(path_type=Path))
def main(engine: Path, pairs: int, budget: str, threads: int, seconds: float, output: Path | None) -> None:
    """Run the pairs, print each and the count; ``--output`` also writes them."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        slower, calibration = calibrate(engine, budget, threads, place / "slower.onnx")
        click.echo(f"{calibration['channels']} more channels: {calibration['slowdown']:.3f} times the time")
        rows = []
        for number in range(pairs):
            kind = KINDS[number % len(KINDS)]
            for planted in (None, kind):
                rows.append(run_pair(engine, slower, planted, budget, threads, seconds, place))
                click.echo(line(rows[-1]))
    found = summary(rows)
    click.echo(json.dumps(found, indent=2))
    if output is not None:
        contract = {
            "engine_sha256": sha256_of(engine),
            "budget": budget,
            "threads": threads,
            "baseline_seconds": seconds,
            "planted": PLANTED,
            "calibration": calibration,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        write_evidence(output, {"contract": contract, **found, "rows": rows})


def calibrate(engine: Path, budget: str, threads: int, path: Path) -> tuple[Path, dict[str, Any]]:
    """Write the engine with about 15 % more work in convolutions; what was measured for it."""
    model = onnx.load(engine)

    def call(path: Path) -> Subject:
        return calls_of(OrtSession(path, threads), [budget])[budget]

    def slower(channels: int) -> Subject:
        onnx.save(with_more_convolutions(model, channels), path)
        return call(path)

    calls = [call(engine), *map(slower, CHANNELS)]
    turns = np.array([[time_turn(each).own for each in calls] for _look in range(LOOKS)])
    found = dict(zip(CHANNELS, np.median(turns[:, 1:] / turns[:, :1], 0).round(4).tolist(), strict=True))
    channels = min(found, key=lambda each: abs(found[each] - 1 - PLANTED))
    onnx.save(with_more_convolutions(model, channels), path)
    return path, {"channels": channels, "slowdown": found[channels], "measured": found}


def run_pair(
    engine: Path, slower: Path, planted: str | None, budget: str, threads: int, seconds: float, place: Path
) -> dict[str, Any]:
    """A baseline of the engine and a check, of the slower one where a slow-down is planted."""
    baseline, report = place / "baseline.json", place / "check.json"
    report.unlink(missing_ok=True)
    load = os.getloadavg()[0]
    plain = [sys.executable, "-m", "apex_runtime.cli.main"]
    how = ["--budget", budget, "--threads", threads, "--seconds", seconds]
    run([*plain, "bench", "record", engine, *how, "-o", baseline], (0,))
    program = [sys.executable, Path(__file__).with_name("slower.py"), PLANTED] if planted == KINDS[0] else plain
    subject = slower if planted == KINDS[1] else engine
    run([*program, "bench", "check", subject, "--baseline", baseline, "-o", report], (0, 1))
    recorded, checked = json.loads(baseline.read_text()), json.loads(report.read_text())
    (time_row,) = [row for row in checked["metrics"] if row["name"].startswith(OVER_ANCHOR)]
    return {
        "planted": planted,
        "verdict": checked["verdict"],
        "time_verdict": time_row["verdict"],
        "baseline": time_row["baseline"],
        "current": time_row["current"],
        "quotient": round(time_row["current"] / time_row["baseline"], 4),
        "quotients_of_the_rest": _quotients(checked["metrics"]),
        "rounds": [recorded["measured"]["rounds"], checked["measured"]["rounds"]],
        "seconds": [recorded["measured"]["seconds"], checked["measured"]["seconds"]],
        "settled": checked["measured"]["settled"],
        "load": round(load, 2),
        "reasons": checked["reasons"],
    }


def _quotients(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Current over baseline of what is not judged as time: what absolute milliseconds would have said, and memory."""
    rest = [row for row in metrics if not row["name"].startswith(OVER_ANCHOR)]
    return {row["name"]: round(row["current"] / row["baseline"], 4) for row in rest}


def run(words: list[object], expected: tuple[int, ...]) -> None:
    """A process that must end with one of the codes. Raises RuntimeError with what it said."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode not in expected:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")


def line(row: dict[str, Any]) -> str:
    """One pair for the terminal."""
    right = (row["time_verdict"] == "fail") if row["planted"] else (row["verdict"] == "pass")
    kind, rounds = row["planted"] or "clean", "+".join(map(str, row["rounds"]))
    return f"{kind:<18} x{row['quotient']:.3f} {row['verdict']} rounds {rounds} load {row['load']}{'' if right else '  WRONG'}"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many were caught, how many false alarms there were, and how far the quotients spread."""
    clean = [row for row in rows if row["planted"] is None]
    planted = [row for row in rows if row["planted"] is not None]
    return {
        "planted": len(planted),
        "caught": sum(row["time_verdict"] == "fail" for row in planted),
        "clean": len(clean),
        "false_alarms": sum(row["verdict"] == "fail" for row in clean),
        "spread": {
            kind or "clean": _spread(kind, rows) for kind in (None, *KINDS) if any(row["planted"] == kind for row in rows)
        },
    }


def _spread(kind: str | None, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of current over baseline: quotients with the anchor, and milliseconds without it."""
    of_kind = [row for row in rows if row["planted"] == kind]
    values = np.array([row["quotient"] for row in of_kind])
    plain = np.array([value for row in of_kind for name, value in row["quotients_of_the_rest"].items() if name[:8] == "graph_ms"])
    figures = {"least": values.min(), "median": np.median(values), "most": values.max(), "deviation": values.std()}
    figures |= {"milliseconds_least": plain.min(), "milliseconds_most": plain.max(), "milliseconds_deviation": plain.std()}
    return {name: round(float(value), 4) for name, value in figures.items()}


if __name__ == "__main__":
    main()
