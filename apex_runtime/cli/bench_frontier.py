"""``apex-rt bench frontier``: accuracy and time over the budget, of one detector or several, with lines to compare with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.interrupt import interruptible
from apex_runtime.cli.options import (
    chosen_budgets,
    dataset_type_option,
    engine_options,
    json_option,
    none_empty,
    not_empty,
    say_fallback,
    split_list,
)
from apex_runtime.errors import ApexError, UsageError

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.frontier.choices import Line
    from apex_runtime.frontier.contenders import Contender, Wanted
    from apex_runtime.frontier.report import Outcome, Setting
    from apex_runtime.routing.budget import Budget

BUDGETS = "0.0625,0.125,0.25,0.5,0.75"


@click.command("frontier")
@click.argument("detectors", nargs=-1, required=True, type=click.Path(), callback=none_empty)
@click.option("--data", type=click.Path(), required=True, callback=not_empty, help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option("--split", help="Which split of the data set.  [default: test; of a single file, the only one]")
@click.option("--limit", type=click.IntRange(1), help="Images at most, evenly spread.  [default: all]")
@click.option(
    "--budget", multiple=True, default=(BUDGETS,), show_default=True, callback=split_list, help="Budgets below all tiles."
)
@click.option("--seeds", type=click.IntRange(0, 20), default=2, show_default=True, help="Of random tiles.")
@click.option("--slice", "slicing", type=click.Choice(["on", "off"]), default="on", show_default=True, help="A sliced pass too.")
@click.option(
    "--twin",
    "twins",
    multiple=True,
    metavar="peripheral=FILE|dense=FILE",
    help="A twin of the first engine without tiles, or without routing (bench/twins.py makes them).",
)
@click.option("--rounds", type=click.IntRange(2, 10_000), default=10, show_default=True, help="Rounds that are timed.")
@click.option(
    "--resamples", type=click.IntRange(100, 100_000), default=500, show_default=True, help="Of the images, for intervals."
)
@engine_options
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False), callback=not_empty, help="Also write the report to this JSON file."
)
@click.option("--png", type=click.Path(dir_okay=False), callback=not_empty, help="Also draw it (extra plot).")
@click.option(
    "--html", type=click.Path(dir_okay=False), callback=not_empty, help="Also write one page with all of it (extra plot)."
)
@click.option("--evidence", type=click.Path(), callback=not_empty, help="Also write an evidence bundle: a new folder.")
@json_option
def frontier(
    detectors: tuple[str, ...],
    data: str,
    output: str | None,
    png: str | None,
    html: str | None,
    evidence: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Accuracy and time over the budget of DETECTORS: engines (bundle, model.onnx, best.pt) and yardsticks (.yaml).

    Per engine: the router's own tiles at every budget; random tiles and those with most objects, as many; all tiles; and a sliced
    pass (overlapping windows, all tiles in each). Per yardstick one mark. All are timed in turn. Ctrl-C keeps nothing.

    \b
    Examples:
      apex-rt bench frontier bundle/ --data nuclei/ --png frontier.png
      apex-rt bench frontier fp32/ int8/ yolo.yaml --data nuclei/ --threads 2 --html frontier.html -o frontier.json
      apex-rt bench frontier bundle/ --data nuclei/ --limit 20 --budget 0.25,0.5 --slice off --json
    """
    from apex_runtime.cli.places import check_places, check_suffix
    from apex_runtime.frontier import picture
    from apex_runtime.pipeline.results import write_json

    check_suffix("--png", png, (".png",))
    check_suffix("--html", html, (".html", ".htm"))
    if png or html:
        picture.check()
    read = [*detectors, data, *(word.partition("=")[2] for word in asked["twins"])]
    check_places({"--output": output, "--png": png, "--html": html}, read, evidence)
    report = _measure(detectors, data, asked)
    if evidence is not None:
        _write_evidence(Path(evidence), report)
    if output is not None:
        write_json(Path(output), report)
    if png or html:
        _draw(report, png, html)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        from apex_runtime.cli.frontier_table import show

        show(report)


def _write_evidence(folder: Path, report: dict[str, Any]) -> None:
    """The bundle of ``apex-rt bench --evidence``, with a contract per detector and the fingerprint of the data set."""
    import sys

    from apex_runtime.code_state import command_line
    from apex_runtime.fairness.contract import Contract
    from apex_runtime.fairness.evidence import write_evidence_bundle

    each = report["contenders"]
    contracts = {one["contract_sha256"]: Contract.model_validate(one["fairness"]) for one in each}
    hashes = {
        f"detector {number}: {one['subject']['file_name']}": one["subject"]["model_sha256"] for number, one in enumerate(each)
    }
    hashes |= {
        f"description {number}": one["subject"]["description_sha256"]
        for number, one in enumerate(each)
        if "description_sha256" in one["subject"]
    }
    hashes |= {f"{kind} twin of detector 0": digest for kind, digest in each[0]["subject"].get("twins", {}).items()}
    samples = {f"{number}: {one['title']}": one["samples"] for number, one in enumerate(each)}
    command = command_line("apex-rt", sys.argv[1:])
    write_evidence_bundle(folder, command, contracts, report, samples, hashes | {"data": report["data"]["fingerprint"]})


def _draw(report: dict[str, Any], png: str | None, html: str | None) -> None:
    from apex_runtime.files import write_atomically
    from apex_runtime.frontier import page, picture

    drawn = picture.png(report)
    if png is not None:
        write_atomically(Path(png), drawn)
    if html is not None:
        write_atomically(Path(html), page.page(report, drawn).encode())


def _measure(detectors: tuple[str, ...], data: str, asked: dict[str, Any]) -> dict[str, Any]:
    from apex_runtime import hindrances
    from apex_runtime.frontier.measure import check_classes
    from apex_runtime.frontier.report import document
    from apex_runtime.machine import state
    from apex_runtime.short_names import told_apart

    before, counters = state(), hindrances.read()
    setting, indices = _setting(data, asked)
    with interruptible("interrupted: nothing is kept; once more to leave at once") as stop:

        def go_on(*_anything: object) -> None:
            if stop.is_set():
                raise ApexError("Interrupted.", "Measure again, for example with --limit.")

        contenders = [
            _contender(path, name, setting, asked, not number)
            for number, (path, name) in enumerate(zip(detectors, told_apart(detectors), strict=True))
        ]
        check_classes(contenders, setting.dataset)
        outcomes = _outcomes(contenders, setting, indices, go_on)
    facts = {"before": before, "after": state(), "hindered": hindrances.between(counters, hindrances.read())}
    return document(setting, outcomes, facts)


def _setting(data: str, asked: dict[str, Any]) -> tuple[Setting, list[int]]:
    import numpy as np

    from apex_runtime.cli.data import choose_type, default_split, say_left_out
    from apex_runtime.data.open import open_dataset
    from apex_runtime.evaluation.coco_ap import detection_limit
    from apex_runtime.frontier.contenders import Wanted
    from apex_runtime.frontier.report import Setting

    kind = choose_type(Path(data), asked["dataset_type"])
    dataset = open_dataset(Path(data), asked["split"] or default_split(Path(data), kind), kind)
    say_left_out(dataset)
    truth = dataset.ground_truth()
    wanted = Wanted(_budgets(asked["budget"]), asked["seeds"], 0.001, detection_limit(truth))
    indices = np.linspace(0, len(dataset) - 1, min(asked["limit"] or len(dataset), len(dataset))).astype(int).tolist()
    kinds = ("bbox", "segm") if any("segmentation" in entry for entry in truth["annotations"]) else ("bbox",)
    return Setting(dataset, len(indices), kinds, wanted, asked["threads"], asked["rounds"], asked["resamples"]), indices


def _budgets(words: tuple[str, ...]) -> tuple[Budget, ...]:
    """In ascending order; all tiles are a line of their own. Raises UsageError."""
    found = {budget.value: budget for budget in chosen_budgets(words, ()) if (budget.kind, budget.value) != ("share", 1.0)}
    if len({budget.kind for budget in found.values()}) > 1 or any(
        budget.kind not in ("share", "tiles") for budget in found.values()
    ):
        raise UsageError(
            "--budget: give shares of the tiles or numbers of tiles, not both, and no deadlines.", "For example 0.125,0.25"
        )
    return tuple(found[value] for value in sorted(found))


def _contender(path: str, name: str, setting: Setting, asked: dict[str, Any], first: bool) -> Contender:
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.frontier.contenders import EngineContender, YardstickContender
    from apex_runtime.yardsticks.description import SUFFIXES
    from apex_runtime.yardsticks.yardstick import Yardstick

    if Path(path).suffix.lower() in SUFFIXES:
        if first and asked["twins"]:
            raise UsageError(f"--twin: {path} is a yardstick.", "Name the engine of the twins first.")
        return YardstickContender(Path(path), Yardstick(path, setting.threads))
    opened = open_engine(path, setting.threads, asked["device"], asked["policy"])
    say_fallback(opened)
    twins = _twins(asked["twins"], path, opened, setting.threads) if first else {}
    return EngineContender(name, Path(path), opened, twins, sliced=asked["slicing"] == "on")


def _twins(words: tuple[str, ...], engine: str, opened: Opened, threads: int | None) -> dict[Line, Opened]:
    """The twins as they run on the CPU: a dense pass on another processor, or in another precision, says nothing of routing."""
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.frontier.contenders import DENSE, PERIPHERAL
    from apex_runtime.parity.subjects import identify

    found: dict[Line, Opened] = {}
    for word in words:
        kind, _, path = word.partition("=")
        line = {"peripheral": PERIPHERAL, "dense": DENSE}.get(kind)
        if line is None or not path:
            raise UsageError(f"--twin {word}: expected peripheral=FILE or dense=FILE.", "For example --twin dense=dense.onnx")
        twin = open_engine(path, threads)
        ours, its = opened.session.info, twin.session.info
        if (its.input, its.classes) != (ours.input, ours.classes):
            raise UsageError(f"--twin {word}: its input or its classes are not those of the engine.", "Make it at that size.")
        one, other = (f"{identify(file).precision} on {item.executed}" for file, item in ((engine, opened), (path, twin)))
        if one != other:
            raise UsageError(f"--twin {word}: is {other}, the engine is {one}.", "Name an engine that runs as its twins do.")
        found[line] = twin
    return found


def _outcomes(contenders: list[Contender], setting: Setting, indices: list[int], go_on: Any) -> list[Outcome]:
    from apex_runtime.cli.progress import counter
    from apex_runtime.frontier.figures import LEAST_IMAGES, resamples, sampled
    from apex_runtime.frontier.measure import find, kinds_of, score, time_all
    from apex_runtime.frontier.report import Outcome

    counts = resamples(len(indices), setting.resamples if len(indices) >= LEAST_IMAGES else 0)
    found, done = [], 0
    with counter(len(indices) * len(contenders), "look") as progress:
        for contender in contenders:

            def looked() -> None:
                nonlocal done
                done += 1
                progress(done, 0)
                go_on()

            results = find(contender, setting.dataset, indices, setting.wanted, looked)
            matches = score(setting.dataset, indices, results, kinds_of(contender, setting.kinds), setting.wanted.limit)
            found.append(sampled(matches, counts))
    turns = _turns(contenders, setting.wanted, setting.rounds)
    with counter(turns, "time") as progress:
        taken = iter(range(1, turns + 1))

        def turn() -> None:
            go_on()
            progress(next(taken), 0)

        times = time_all(contenders, setting.dataset, indices, setting.wanted, setting.rounds, turn)
    return [Outcome(*each) for each in zip(contenders, found, times, strict=True)]


def _turns(contenders: list[Contender], wanted: Wanted, rounds: int) -> int:
    from apex_runtime.frontier.measure import WARM_UP

    return (rounds + WARM_UP) * sum(len(contender.timed_lines(wanted)) for contender in contenders)
