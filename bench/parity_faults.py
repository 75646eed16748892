"""Does parity catch what is wrong, and leave alone what is right? Planted faults, and clean runs.

    python bench/parity_faults.py engines/nuclei-nano --data ../shared/data/nuclei-dsb2018 \
        --output bench/evidence/parity-faults.json

Every fault is planted alone into a copy of the exported model, and compared with it on two real images and the synthetic ones.
How far it moves an output is told in tolerances. A clean run compares the checkpoint, run by PyTorch, with the exported model,
run by ONNX Runtime, on one image of the set at one budget: another image in every run.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from evidence import ROOT, write_evidence

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.session import Session
from apex_runtime.bundle.load import open_engine
from apex_runtime.data.sources import resolve_sources
from apex_runtime.errors import ApexError
from apex_runtime.parity.cases import Case, real_case, synthetic_cases
from apex_runtime.parity.run import BudgetResult, Seen, compare_sessions
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.routing.budget import parse_budget

sys.path.insert(0, str(ROOT / "tests" / "support"))

RULES = Rules(load_profile("quality"), "fp32")


@click.command()
@click.argument("engine", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="A folder with images.")
@click.option("--clean", default=200, show_default=True, help="Clean runs.")
@click.option("--output", type=click.Path(path_type=Path))
def main(engine: Path, data: Path, clean: int, output: Path | None) -> None:
    """Measure and print; ``--output`` also writes every run."""
    items = resolve_sources(str(data / "images"))
    model = engine / "model.onnx"
    info = read_onnx(model).info
    cases = [real_case(item.path, item.relative, info) for item in items[:: len(items) // 2][:2]]
    faults = _faults(model, [*cases, *synthetic_cases(info)])
    caught = sum(row["caught"] for row in faults.values())
    large = sum(row["in_tolerances"] >= 10 for row in faults.values())
    click.echo(f"{caught} of {len(faults)} faults caught; {large} move an output by ten tolerances or more")
    runs = _clean(engine, [items[index * len(items) // clean] for index in range(clean)])
    alarms = [run for run in runs if run["reasons"]]
    click.echo(f"{len(alarms)} false alarms in {len(runs)} clean runs")
    if output is not None:
        contract = {"profile": "quality", "precision": "fp32", "budget_of_faults": "0.5", "data": data.name}
        write_evidence(output, {"contract": contract, "faults": faults, "clean_runs": runs, "false_alarms": len(alarms)})


def _faults(path: Path, cases: list[Case]) -> dict[str, Any]:
    from graph_faults import SHIPPED, with_fault

    reference, model = OrtSession(path), onnx.load(path)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, fault in SHIPPED.items():
            candidate = Path(folder) / "candidate.onnx"
            onnx.save(with_fault(model, fault), candidate)
            rows[name] = _judged(reference, candidate, cases)
            click.echo(f"  {name}: {', '.join(rows[name]['levels']) or 'MISSED'}, {rows[name]['in_tolerances']:.0f} tolerances")
    return rows


def _judged(reference: Session, candidate: Path, cases: list[Case]) -> dict[str, Any]:
    """On which levels it was caught, and by how many tolerances the worst value of an output is off."""
    worst = 0.0

    def look(_result: BudgetResult, seen: Seen) -> None:
        nonlocal worst
        for sides in ((seen.forced_reference, seen.forced_candidate), (seen.free_reference, seen.free_candidate)):
            worst = max(worst, _in_tolerances(*sides))

    try:
        (result,) = compare_sessions(reference, OrtSession(candidate), cases, [parse_budget("0.5")], RULES, watcher=look)
    except ApexError as error:
        return {"caught": True, "levels": ["does not run"], "in_tolerances": 1e9, "reasons": [str(error)[:200]]}
    for name in ("boxes", "scores"):  # aligned there; their tolerance is absolute
        worst = max(worst, result.outputs[name].max_abs / RULES.tolerance(name).atol)
    reasons = result.reasons(RULES)
    levels = sorted({_level(reason) for reason in reasons})
    return {
        "caught": bool(reasons),
        "levels": levels,
        "in_tolerances": min(worst, 1e9),
        "reasons": [text[:200] for text in reasons],
    }


def _level(reason: str) -> str:
    word = reason.split(":")[0]
    return word if word in ("decision", "task") else "tensor"


def _in_tolerances(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> float:
    """Of the prototypes, which need no alignment, and of the utilities."""
    found = [0.0]
    for name in ("mask_prototypes", "utilities"):
        allowed = RULES.tolerance(name)
        assert allowed is not None
        difference = np.abs(candidate[name].astype(np.float64) - reference[name])
        share = difference / (allowed.atol + allowed.rtol * np.abs(reference[name]))
        found.append(1e9 if not np.isfinite(share).all() else float(share.max()))
    return max(found)


def _clean(engine: Path, items: list[Any]) -> list[dict[str, Any]]:
    exported = OrtSession(engine / "model.onnx")
    size = exported.info.input.height, exported.info.input.width
    checkpoint = open_engine(engine / "checkpoint.pt", size=size).session
    random = np.random.default_rng(0)
    runs = []
    for item in items:
        budget = str(random.choice(["0.1", "0.25", "0.5", "0.75", "1.0", "1", "7"]))
        case = real_case(item.path, item.relative, exported.info)
        (result,) = compare_sessions(checkpoint, exported, [case], [parse_budget(budget)], RULES)
        runs.append({"image": item.relative, "budget": budget, "reasons": result.reasons(RULES)})
    counts = Counter(run["budget"] for run in runs)
    click.echo(f"  clean runs by budget: {dict(counts)}")
    return runs


if __name__ == "__main__":
    main()
