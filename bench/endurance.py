"""What does ``apex-rt infer`` do to a machine over thousands of images, to files that are broken, and when it is killed?

    python bench/endurance.py memory --data DIR --images 5000 --distinct 200 --output bench/evidence/endurance-memory.json
    python bench/endurance.py broken --data DIR --images 5000 --output bench/evidence/endurance-broken.json
    python bench/endurance.py kills --data DIR --images 100 --kills 20 --output bench/evidence/endurance-kills.json

DIR is a folder of images, which are linked again and again under other names. The run is a process of its own. Exit code 1: a
promise was not kept.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from broken_files import WAYS, break_file
from evidence import write_evidence
from killed_runs import Trial, files_of, kill_often, results_of
from measured import spread
from processes import finish, looks_at, start

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.data.sources import resolve_sources
from apex_runtime.engine import default_engine

GROWTH_PERCENT = 3.0
BROKEN_SHARE = 0.01
NEEDLE = 0.1  # of the samples at either end: their median is compared
KEPT_SAMPLES = 200  # in the evidence


def shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """What every command takes."""
    options = (
        click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)),
        click.option("--engine", type=click.Path(exists=True, path_type=Path), help="model.onnx.  [default: the shipped one]"),
        click.option("--budget", default="1", show_default=True),
        click.option("--save", default="none", show_default=True, help="As for apex-rt infer."),
        click.option("--threads", default=1, show_default=True),
        click.option("--min-score", default=0.05, show_default=True),
        click.option("--output", type=click.Path(path_type=Path)),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group()
def endurance() -> None:
    """Long runs, broken files, kills."""


@endurance.command()
@shared_options
@click.option("--images", default=5000, show_default=True)
@click.option("--settled", default=200, show_default=True, help="Growth counts from this image on.")
@click.option("--distinct", type=int, help="Different images, evenly spread: as many as --settled, and all are known by then.")
def memory(data: Path, images: int, settled: int, distinct: int | None, output: Path | None, **asked: Any) -> None:
    """Watch the memory of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), _engine(asked.pop("engine"))
        link_images(data, folder / "images", images, distinct)
        words = _words(folder / "images", engine, asked)
        started = time.perf_counter()
        code, samples = watch(words, folder)
        seconds = time.perf_counter() - started
    grown = growth([sample for sample in samples if settled <= sample[0] < images])
    facts = {"exit_code": code, "seconds": round(seconds, 1), "settled": settled, **grown}
    facts["peak_bytes"] = max(held for _done, held in samples)
    click.echo(json.dumps(facts))
    thinned = samples[:: max(1, len(samples) // KEPT_SAMPLES)]
    _prove(
        output,
        asked | {"images": images, "distinct": distinct, "engine_sha256": sha256_of(engine)} | facts | {"samples": thinned},
    )
    _promise(code == 0 and grown["growth_percent"] < GROWTH_PERCENT)


@endurance.command()
@shared_options
@click.option("--images", default=5000, show_default=True)
def broken(data: Path, images: int, output: Path | None, **asked: Any) -> None:
    """One file of a hundred is broken."""
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), _engine(asked.pop("engine"))
        count = max(len(WAYS), round(images * BROKEN_SHARE))
        healthy = link_images(data, folder / "images", images - count)
        ways = dict(break_some(healthy, folder / "images", count))
        (folder / "list.txt").write_text("".join(f"{path}\n" for path in sorted([*healthy, *ways])))
        code = finish([*_words(folder / "list.txt", engine, asked), "-o", folder / "out"], folder / "said.txt")
        facts = {"exit_code": code, **judge_broken(folder / "out", healthy, ways)}
        facts["traceback"] = "Traceback" in (folder / "said.txt").read_text(errors="replace")
    click.echo(json.dumps(facts, indent=2))
    _prove(output, asked | {"images": images, "broken": count, "engine_sha256": sha256_of(engine)} | facts)
    _promise(code == 1 and not facts["traceback"] and not any(facts[key] for key in ("good_lost", "bad_unnamed", "good_named")))


@endurance.command()
@shared_options
@click.option("--images", default=100, show_default=True)
@click.option("--kills", default=20, show_default=True)
def kills(data: Path, images: int, kills: int, output: Path | None, **asked: Any) -> None:
    """Kill at random moments, resume, compare; then try to resume with something else."""
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), _engine(asked.pop("engine"))
        link_images(data, folder / "images", images)
        trial = Trial(_words(folder / "images", engine, asked), folder)
        whole, seconds = trial.undisturbed()
        rows = []
        for resumed, facts in kill_often(trial, seconds, kills):
            same = {"equal": results_of(resumed) == results_of(whole), "same_files": files_of(resumed) == files_of(whole)}
            rows.append(facts | same)
            click.echo(json.dumps(rows[-1]))
        refused = refusals(trial, whole, engine)
    click.echo(json.dumps(refused))
    contract = asked | {"images": images, "seconds_undisturbed": round(seconds, 2), "engine_sha256": sha256_of(engine)}
    _prove(output, contract | {"rows": rows, "refused": refused})
    _promise(all(row["equal"] and row["same_files"] for row in rows) and set(refused.values()) == {True})


def link_images(data: Path, folder: Path, count: int, distinct: int | None = None) -> list[Path]:
    """So many links to the images of ``data``, or to so many of them, in turn, under names of their own."""
    folder.mkdir()
    found, links = resolve_sources(str(data)), []
    chosen = [found[place] for place in spread(list(range(len(found))), distinct)]
    for number, item in enumerate(itertools.islice(itertools.cycle(chosen), count)):
        links.append(folder / f"{number:05}{item.path.suffix}")
        links[-1].symlink_to(item.path.resolve())
    return links


def watch(words: Sequence[object], folder: Path) -> tuple[int, list[tuple[int, int]]]:
    """Run to the end; the exit code, and again and again how many images were done and how many bytes it held."""
    process = start([*words, "-o", folder / "out"], folder / "said.txt")
    journal, done, samples = folder / "out" / "results.jsonl", 0, []
    read = 0
    for held in looks_at(process, every=0.25):
        if journal.is_file():
            with journal.open("rb") as stream:
                stream.seek(read)
                new = stream.read()
            read, done = read + len(new), done + new.count(b"\n")
        samples.append((done, held))
    return process.wait(), samples


def growth(samples: Sequence[tuple[int, int]]) -> dict[str, float]:
    """The medians of the first and of the last tenth of the samples, and by how much the one exceeds the other."""
    part = max(1, round(NEEDLE * len(samples)))
    first, last = (float(np.median([held for _done, held in some])) for some in (samples[:part], samples[-part:]))
    return {"first_bytes": first, "last_bytes": last, "growth_percent": round(100 * (last / first - 1), 3)}


def break_some(healthy: Sequence[Path], folder: Path, count: int) -> list[tuple[Path, str]]:
    """So many broken files among the healthy ones, every way in turn."""
    ways = itertools.islice(itertools.cycle(WAYS), count)
    step = len(healthy) // count
    return [(break_file(way, healthy[number * step], folder / f"{number * step:05}-bad"), way) for number, way in enumerate(ways)]


def judge_broken(out: Path, healthy: Sequence[Path], ways: dict[Path, str]) -> dict[str, Any]:
    """Which names are missing or in the wrong file, and what the first file of each way was said to have."""
    done = {json.loads(line)["file_name"] for line in (out / "results.jsonl").read_text().splitlines()}
    reasons = {entry["file_name"]: entry for entry in json.loads((out / "failures.json").read_text())}
    good, bad = {path.name for path in healthy}, {path.name: way for path, way in ways.items()}
    said: dict[str, str] = {}
    for path, way in ways.items():
        if path.name in reasons:
            said.setdefault(way, reasons[path.name]["reason"].removeprefix(f"{path}: "))
    return {
        "good": len(good),
        "good_lost": sorted(good - done),
        "good_named": sorted(good & set(reasons)),
        "bad_unnamed": sorted(set(bad) - set(reasons)),
        "said": said,
    }


def refusals(trial: Trial, whole: Path, engine: Path) -> dict[str, bool]:
    """Whether a resume with another engine, budget or score ends with exit code 2 and leaves the folder as it is."""
    other = trial.folder / "other.onnx"
    graph = onnx.load(engine)
    graph.doc_string = "the same numbers, another file"
    onnx.save(graph, other)
    changes = {"engine": ("--engine", other), "budget": ("--budget", "2"), "min_score": ("--min-score", "0.5")}
    before, found = _contents(whole), {}
    for name, change in changes.items():
        found[name] = trial.resume_code(whole, *change) == 2 and _contents(whole) == before
    return found


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def _engine(asked: Path | None) -> Path:
    return asked or default_engine() / "model.onnx"


def _words(source: Path, engine: Path, asked: dict[str, Any]) -> list[object]:
    options = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    return ["infer", source, "--engine", engine, *options]


def _prove(output: Path | None, content: dict[str, Any]) -> None:
    if output is not None:
        write_evidence(output, content)


def _promise(kept: bool) -> None:
    if not kept:
        raise SystemExit(1)


if __name__ == "__main__":
    endurance()
