"""How often does the ablation runner call something that does nothing validated or harmful?

Each repeat is a study of its own, through the command line, with seeds of its own and one factor: a file of equal sample weights,
with which an epoch shows every image once as without it, only in another order. The toy goes on from the shipped weights
for an epoch, so that there is an AP to differ.

    python bench/null_study.py tests/fixtures/nuclei --init engines/nuclei-nano/checkpoint.pt --work studies/null --output FILE
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from evidence import write_evidence
from scipy.stats import binomtest

from apex_runtime.data.open import open_dataset
from apex_runtime.files import write_atomically
from apex_train.ablation.statistics import permutation_p
from apex_train.data.sample_weights import write_sample_weights

TOY = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.workers": 0, "train.warmup_steps": 1, "train.device": "cpu"}
WRONG = ("validated", "harmful")


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--init", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--repeats", default=40, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Of each study.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the studies are kept; a second call goes on.")
@click.option("--output", type=click.Path(path_type=Path))
def main(data: Path, init: Path, repeats: int, seeds: int, work: Path, output: Path | None) -> None:
    """Run the studies that are missing, print the count of wrong verdicts; ``--output`` writes all."""
    weights = work / "equal.json"
    write_equal_weights(data, weights)
    found = []
    for repeat in range(repeats):
        study = write_study(work / f"{repeat}.yaml", data, init, weights, range(repeat * seeds, (repeat + 1) * seeds))
        found.append(judged(study, work / str(repeat)))
        click.echo(
            f"{repeat + 1}/{repeats}: {found[-1]['verdict']}, p {found[-1]['p']:.3g}, {100 * found[-1]['difference']:+.2f}"
        )
    summary = counted(found)
    click.echo(json.dumps(summary, indent=2))
    if output is not None:
        write_evidence(output, summary | {"studies": found})


def write_equal_weights(data: Path, path: Path) -> None:
    """A file of sample weights that prefers no image."""
    images = [record.file_name for record in open_dataset(data, "train").records]
    write_sample_weights(path, dict.fromkeys(images, 1.0), {"of": "nobody's choice"})


def write_study(path: Path, data: Path, init: Path, weights: Path, seeds: range) -> Path:
    """The file of one repeat."""
    levels = [{"name": "without"}, {"name": "equal weights", "set": {"train.sample_weights": str(weights.resolve())}}]
    study = {
        "name": "a factor that does nothing",
        "data": str(data.resolve()),
        "init": str(init.resolve()),
        "set": TOY,
        "epochs": 1,
        "seeds": list(seeds),
        "test": "student",
        "factors": [{"name": "order", "levels": levels}],
    }
    write_atomically(path, yaml.safe_dump(study).encode())
    return path


def judged(study: Path, output: Path) -> dict[str, Any]:
    """The one comparison of a study; what is finished is not trained again."""
    command = [str(Path(sys.executable).parent / "apex-train"), "ablate", str(study), "--output", str(output), "--threads", "1"]
    run = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=True)
    comparison: dict[str, Any] = json.loads(run.stdout)["comparisons"][0]
    kept = ("differences", "difference", "interval", "effect_size", "p", "verdict")
    return {name: comparison[name] for name in kept}


def counted(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Wrong verdicts, with the exact interval of their share; and of the permutation test over pairs of studies."""
    wrong = sum(each["verdict"] in WRONG for each in found)
    bounds = binomtest(wrong, len(found)).proportion_ci(0.95)
    pairs = [[*first["differences"], *second["differences"]] for first, second in zip(found[::2], found[1::2], strict=False)]
    values = [permutation_p(np.array(pair)) for pair in pairs]
    return {
        "repeats": len(found),
        "wrong": wrong,
        "share": wrong / len(found),
        "interval": [bounds.low, bounds.high],
        "without_any_difference": sum(not any(each["differences"]) for each in found),
        "permutation": {"studies": len(pairs), "wrong": sum(value <= 0.05 for value in values), "p": values},
    }


if __name__ == "__main__":
    main()
