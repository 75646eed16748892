r"""What wrong labels cost a training, and how much of it a curriculum gets back: the same network, epochs and seeds, three times.

    python bench/noise.py ../shared/data/nuclei-dsb2018 --missing 0.07 --shifted 0.07 --spurious 0.06 --threads 1 \
        --set train.size=256 --set train.crop=128 --set train.batch=16 --output runs/noise --evidence bench/evidence/noise.json

Arms: ``clean`` (the labels as they are), ``plain`` (with planted noise), ``curriculum`` (with the noise, weights of
``apex-train label-quality``, labels.first and so on). The judge of a seed is its ``plain`` network after its last epoch, so that
nothing clean is seen; the processor time of the judge is counted to those that use it, and ``longer`` is ``plain`` with twice the
epochs, which is what that time would buy. Nothing is chosen on the split that is measured: the last weights are.

A finished cell (arm and seed) is kept in OUTPUT/cells; the same command goes on. A training that was cut off starts anew, so that
its processor time is that of one run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import click
from baselines.budget import cpu_seconds
from evidence import write_evidence
from plant_noise import KINDS, RECORD, Noise, plant
from recovered import recovered

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import ApexError
from apex_runtime.files import write_atomically
from apex_train.ablation.measure import Measured, measure
from apex_train.ablation.study import EvaluateSection
from apex_train.config import load_config, parse_assignment

ArmName = Literal["clean", "plain", "curriculum", "weights", "clip", "longer"]
ALWAYS: tuple[ArmName, ...] = ("clean", "plain")  # what is lost is their difference, and plain is the judge
JUDGED: tuple[ArmName, ...] = ("curriculum", "weights")
CURRICULUM = ("labels.first=0.5", "labels.last=0.9", "labels.ramp=0.5", "labels.clip=3")
METRIC = "mAP_segm"


@dataclass(frozen=True)
class Bench:
    """What is the same in every cell. ``sets``: ``--set`` of every training, ``curriculum`` of that arm in addition."""

    data: Path
    split: str
    output: Path
    noise: Noise
    epochs: int
    sets: tuple[str, ...]
    curriculum: tuple[str, ...]
    threads: int | None
    init: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The letterbox (height, width) of the trainings."""
        return load_config(None, dict(parse_assignment(text) for text in self.sets)).train.letterbox


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--missing", type=click.FloatRange(0, 1), default=0.0)
@click.option("--shifted", type=click.FloatRange(0, 1), default=0.0)
@click.option("--wrong-class", type=click.FloatRange(0, 1), default=0.0)
@click.option("--spurious", type=click.FloatRange(0, 1), default=0.0)
@click.option("--split", default="test", show_default=True, help="Where all are measured.")
@click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True, help="Of the training and of the noise.")
@click.option(
    "--arms", default="clean,plain,curriculum", show_default=True, help=f"Comma list of {', '.join(get_args(ArmName))}."
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Configuration of every training; repeatable.")
@click.option("--curriculum", multiple=True, metavar="KEY=VALUE", default=CURRICULUM, show_default=True, help="Of that arm.")
@click.option("--init", type=click.Path(exists=True, path_type=Path), help="Every training starts from this checkpoint.")
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--evidence", type=click.Path(path_type=Path), help="The file for the figures, once every cell is there.")
def main(
    data: Path,
    split: str,
    epochs: int,
    seeds: str,
    arms: str,
    sets: tuple[str, ...],
    curriculum: tuple[str, ...],
    threads: int | None,
    init: Path | None,
    output: Path,
    evidence: Path | None,
    **rates: float,
) -> None:
    """Train every arm with every seed, measure it on one split, and say what was lost and what recovered."""
    noise = Noise({kind: rates[kind.replace("-", "_")] for kind in KINDS})
    bench = Bench(data, split, output, noise, epochs, sets, curriculum, threads, init)
    names, numbers = _arms(arms), [int(seed) for seed in seeds.split(",")]
    try:
        cells = [cell(bench, arm, seed) for seed in numbers for arm in names]
    except ApexError as error:
        raise click.ClickException(str(error)) from error
    content = summary(bench, cells, names, numbers)
    click.echo(json.dumps(content["recovered"], indent=2))
    if evidence is not None:
        write_evidence(evidence, content)


def _arms(text: str) -> list[ArmName]:
    asked = text.split(",")
    strange = [name for name in asked if name not in get_args(ArmName)]
    if strange:
        raise click.BadParameter(f"{strange[0]}: known are {', '.join(get_args(ArmName))}", param_hint="--arms")
    return [*ALWAYS, *(name for name in get_args(ArmName) if name in asked and name not in ALWAYS)]


def cell(bench: Bench, arm: ArmName, seed: int) -> dict[str, Any]:
    """The figures of one arm and seed: read where they are kept, else trained and measured. Raises ApexError, RuntimeError."""
    return _kept(bench, f"{arm}-{seed}", lambda: _trained(bench, arm, seed))


def _kept(bench: Bench, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result by its name. Raises ClickException when it was made with other settings."""
    file, settings = bench.output / "cells" / f"{name}.json", _settings(bench)
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise click.ClickException(f"{file}: is of other settings. Choose another --output, or remove it.")
        return found
    found = make() | {"settings": settings}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(found, indent=2).encode())
    return found


def _settings(bench: Bench) -> dict[str, Any]:
    noise = {"rates": dict(bench.noise.rates), "shift": list(bench.noise.shift), "jitter": bench.noise.jitter}
    return {
        "data": bench.data.name,
        "split": bench.split,
        "noise": noise,
        "epochs": bench.epochs,
        "init": None if bench.init is None else sha256_of(bench.init),
        "set": list(bench.sets),
        "curriculum": list(bench.curriculum),
    }


def _trained(bench: Bench, arm: ArmName, seed: int) -> dict[str, Any]:
    folder = bench.output / "runs" / f"{arm}-{seed}"
    data, own = _what_differs(bench, arm, seed)
    epochs = bench.epochs * (2 if arm == "longer" else 1)
    sets = [*bench.sets, f"train.seed={seed}", f"train.evaluate_every={epochs}", *own]
    shutil.rmtree(folder, ignore_errors=True)  # cut off: its time would be that of two runs
    words = ["fit", "--data", data, "--output", folder, "--epochs", epochs, "--no-report"]
    words += [] if bench.init is None else ["--init", bench.init]
    spent = _run(bench, [*words, *(word for text in sets for word in ("--set", text))])
    subject = Measured(folder / "last.pt", bench.size, "cpu", bench.data)
    (value,) = measure(subject, open_dataset(bench.data, bench.split), METRIC, [EvaluateSection()])
    click.echo(f"{arm} {seed}: {METRIC} {value:.4f}, {spent / 60:.1f} minutes of one processor")
    return {"arm": arm, "seed": seed, METRIC: value, "epochs": epochs, "cpu_seconds": spent}


def _what_differs(bench: Bench, arm: ArmName, seed: int) -> tuple[Path, tuple[str, ...]]:
    """The data set of an arm, and its own settings."""
    if arm == "clean":
        return bench.data, ()
    clip = tuple(text for text in bench.curriculum if text.startswith("labels.clip"))
    own = {"curriculum": bench.curriculum, "clip": clip}.get(arm, ())
    return _judged(bench, seed) if arm in JUDGED else _noisy(bench, seed), own


def _noisy(bench: Bench, seed: int) -> Path:
    folder = bench.output / "data" / f"noisy-{seed}"
    if not (folder / RECORD).is_file():  # written last
        plant(bench.data, "train", bench.noise, seed, folder)
    return folder


def _judged(bench: Bench, seed: int) -> Path:
    """The noisy set with the weights that the plain network of this seed gives."""
    _judgement(bench, seed)
    return _judged_folder(bench, seed)


def _judgement(bench: Bench, seed: int) -> dict[str, Any]:
    return _kept(bench, f"judge-{seed}", lambda: _judge(bench, seed, _judged_folder(bench, seed)))


def _judged_folder(bench: Bench, seed: int) -> Path:
    return bench.output / "data" / f"judged-{seed}"


def _judge(bench: Bench, seed: int, folder: Path) -> dict[str, Any]:
    noisy, checkpoint = _noisy(bench, seed), bench.output / "runs" / f"plain-{seed}" / "last.pt"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(noisy / "annotations", folder / "annotations")
    os.symlink((noisy / "images").resolve(), folder / "images")
    size = "x".join(str(side) for side in bench.size)
    words = ["label-quality", checkpoint, "--data", noisy, "--size", size, "--truth", noisy / RECORD]
    report = folder / "report.json"
    spent = _run(bench, [*words, "-o", folder / "annotations" / "train.json", "--report", report])
    return {"seed": seed, "truth": json.loads(report.read_text(encoding="utf-8"))["truth"], "cpu_seconds": spent}


def _run(bench: Bench, words: list[Any]) -> float:
    """Run ``apex-train`` and return the processor seconds that it spent."""
    before = cpu_seconds()
    threads = [] if bench.threads is None else ["--threads", str(bench.threads)]
    environment = os.environ | ({} if bench.threads is None else {"OMP_NUM_THREADS": str(bench.threads)})
    command = [sys.executable, "-m", "apex_train.cli.main", *map(str, words), *threads]
    subprocess.run(command, check=True, env=environment, stdout=2)  # standard output is for the figures
    return cpu_seconds() - before


def summary(bench: Bench, cells: list[dict[str, Any]], arms: list[ArmName], seeds: list[int]) -> dict[str, Any]:
    """The content of the evidence file."""
    figure = {(each["arm"], each["seed"]): each[METRIC] for each in cells}
    values = {arm: [figure[arm, seed] for seed in seeds] for arm in arms}
    judges = [_judgement(bench, seed) for seed in seeds] if set(arms) & set(JUDGED) else []
    others = [arm for arm in arms if arm not in ALWAYS]
    return {
        "what": "AP after training on clean labels, on planted noise, and on the noise with what is to help against it",
        "metric": METRIC,
        "settings": _settings(bench),
        "seeds": seeds,
        "values": values,
        "cpu_seconds": _spent(cells, judges, arms),
        "recovered": {arm: recovered(values["clean"], values["plain"], values[arm]) for arm in others},
        "label_quality": [{key: each[key] for key in ("seed", "truth", "cpu_seconds")} for each in judges],
    }


def _spent(cells: list[dict[str, Any]], judges: list[dict[str, Any]], arms: list[ArmName]) -> dict[str, dict[str, float]]:
    """Mean processor seconds per arm: of its training, and with the judge's training and its look at the labels."""
    mean = {arm: _mean([each["cpu_seconds"] for each in cells if each["arm"] == arm]) for arm in arms}
    judge = mean["plain"] + _mean([each["cpu_seconds"] for each in judges]) if judges else 0.0
    return {arm: {"training": mean[arm], "all": mean[arm] + (judge if arm in JUDGED else 0.0)} for arm in arms}


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 1)


if __name__ == "__main__":
    main()
