"""Does parity catch what is wrong, and leave alone what is right? Planted faults, and clean runs.

    python bench/parity_faults.py engines/nuclei-nano --data ../shared/data/nuclei-dsb2018 \
        --output bench/evidence/parity-faults.json

Every fault is planted alone: into a copy of the exported model, into the same in int8, into what runs it, or into the file that
is handed over. Each is compared by the command on two real images, one of them coloured, and the synthetic ones; how far it moves
an output is told in tolerances. A clean run compares the checkpoint, run by PyTorch, with the exported model, run by ONNX
Runtime, on one image of the set at one budget: another image in every run.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import onnx
from click.testing import CliRunner
from evidence import ROOT, write_evidence

from apex_runtime.backends.ort import OrtSession
from apex_runtime.bundle.load import open_engine
from apex_runtime.cli.main import main as apex_rt
from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import resolve_sources
from apex_runtime.parity.cases import real_case
from apex_runtime.parity.run import compare_sessions
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.routing.budget import parse_budget

sys.path.insert(0, str(ROOT / "tests" / "support"))

COLOURED = 50  # mean difference of the largest and the smallest channel from which an image is


class Planted(NamedTuple):
    """A candidate with one fault. ``level`` must see it, if it is named; ``code``: how the command must end. ``during``: what to
    enter while the two are compared."""

    candidate: Path
    level: str | None = None
    code: int = 1
    batch: int = 1
    during: AbstractContextManager[None] = nullcontext()


@click.command()
@click.argument("engine", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="A folder with images.")
@click.option("--clean", default=200, show_default=True, help="Clean runs.")
@click.option("--output", type=click.Path(path_type=Path))
def main(engine: Path, data: Path, clean: int, output: Path | None) -> None:
    """Measure and print; ``--output`` also writes every run."""
    items = resolve_sources(str(data / "images"))
    with _home(engine, items) as home:
        families = {name: _family(name, plant(home), home) for name, plant in FAMILIES.items()}
        blind = _on_grey_images(home)
    runs = _clean(engine, [items[index * len(items) // clean] for index in range(clean)])
    alarms = [run for run in runs if run["reasons"]]
    click.echo(f"{len(alarms)} false alarms in {len(runs)} clean runs")
    if output is not None:
        contract = {"profile": "quality", "budget_of_faults": "0.5", "data": data.name}
        counts = {name: _counts(rows) for name, rows in families.items()}
        content = {"contract": contract, "families": counts, "faults": families, "bgr_on_grey_images": blind}
        write_evidence(output, content | {"clean_runs": runs, "false_alarms": len(alarms)})


@contextmanager
def _home(engine: Path, items: list[Any]) -> Iterator[Path]:
    """A folder with the model, a grey and a coloured image of the set, and the model in int8."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name, chosen in {"images": [items[0], _coloured(items)], "grey": items[:1]}.items():
            (home / name).mkdir()
            for item in chosen:
                shutil.copy(item.path, home / name)
        shutil.copy(engine / "model.onnx", home)
        words = ["build-engine", home / "model.onnx", "--precision", "int8", "--no-report", "-o", home / "int8"]
        words += ["--data", ROOT / "engines" / "samples", "--calibration-cache", home / "cache"]
        CliRunner().invoke(apex_rt, [str(word) for word in words])
        yield home


def _coloured(items: list[Any]) -> Any:
    return next(item for item in items if np.ptp(decode_image(item.path).astype(int), axis=2).mean() > COLOURED)


def _graph(home: Path) -> Iterator[tuple[str, Planted]]:
    from graph_faults import SHIPPED

    return _spoilt(home / "model.onnx", SHIPPED, home)


def _eight_bits(home: Path) -> Iterator[tuple[str, Planted]]:
    from graph_faults import EIGHT_BITS

    return _spoilt(home / "int8" / "model.onnx", EIGHT_BITS, home)


def _spoilt(path: Path, faults: dict[str, Any], home: Path) -> Iterator[tuple[str, Planted]]:
    from graph_faults import with_fault

    model = onnx.load(path)
    for name, fault in faults.items():
        onnx.save(with_fault(model, fault), home / "candidate.onnx")
        yield name, Planted(home / "candidate.onnx")


def _runtime(home: Path) -> Iterator[tuple[str, Planted]]:
    from runtime_faults import RUNTIME, run_by

    candidate = Path(shutil.copy(home / "model.onnx", home / "candidate.onnx"))
    for name, fault in RUNTIME.items():
        yield name, Planted(candidate, fault.level, batch=fault.batch, during=run_by(fault, candidate))


def _files(home: Path) -> Iterator[tuple[str, Planted]]:
    from file_faults import FILES
    from graph_faults import SHIPPED, with_fault

    (home / "other").mkdir()
    other = home / "other" / "model.onnx"
    onnx.save(with_fault(onnx.load(home / "model.onnx"), SHIPPED["a folded bias"]), other)
    for name, fault in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            yield name, Planted(fault.plant(home / "model.onnx", other, Path(folder)), code=fault.code)


FAMILIES: dict[str, Callable[[Path], Iterator[tuple[str, Planted]]]] = {
    "graph": _graph,
    "graph in int8": _eight_bits,
    "runtime": _runtime,
    "files": _files,
}


def _family(family: str, faults: Iterator[tuple[str, Planted]], home: Path) -> dict[str, Any]:
    """Judge every fault of a family while it is planted."""
    from fault_verdicts import judge

    rows = {}
    for name, fault in faults:
        with fault.during:
            verdict = judge(home / "model.onnx", fault.candidate, home / "images", fault.batch)
        seen = verdict.code == fault.code and (fault.level is None or fault.level in verdict.levels)
        rows[name] = {"caught": seen, "moved_by_ten": verdict.by_ten} | verdict.row()
        word = ", ".join(verdict.levels) if seen else "MISSED"
        click.echo(f"  {family}: {name}: {word}; {verdict.in_tolerances:g} tolerances, exit code {verdict.code}")
    click.echo(f"{family}: {_counts(rows)}")
    return rows


def _counts(rows: dict[str, Any]) -> dict[str, int]:
    counts = {"planted": len(rows)}
    counts |= {name: sum(row[name] for row in rows.values()) for name in ("caught", "moved_by_ten")}
    codes = Counter(row["code"] for row in rows.values())
    return counts | {f"exit_code_{code}": count for code, count in sorted(codes.items())}


def _on_grey_images(home: Path) -> dict[str, Any]:
    """Of a grey image BGR is RGB: what is left of that fault without a coloured one."""
    from fault_verdicts import judge
    from runtime_faults import RUNTIME, run_by

    candidate = Path(shutil.copy(home / "model.onnx", home / "candidate.onnx"))
    with run_by(RUNTIME["BGR for RGB"], candidate):
        return judge(home / "model.onnx", candidate, home / "grey").row()


def _clean(engine: Path, items: list[Any]) -> list[dict[str, Any]]:
    exported = OrtSession(engine / "model.onnx")
    size = exported.info.input.height, exported.info.input.width
    checkpoint = open_engine(engine / "checkpoint.pt", size=size).session
    random = np.random.default_rng(0)
    rules = Rules(load_profile("quality"), "fp32")
    runs = []
    for item in items:
        budget = str(random.choice(["0.1", "0.25", "0.5", "0.75", "1.0", "1", "7"]))
        case = real_case(item.path, item.relative, exported.info)
        (result,) = compare_sessions(checkpoint, exported, [case], [parse_budget(budget)], rules)
        runs.append({"image": item.relative, "budget": budget, "reasons": result.reasons(rules)})
    counts = Counter(run["budget"] for run in runs)
    click.echo(f"  clean runs by budget: {dict(counts)}")
    return runs


if __name__ == "__main__":
    main()
