"""``apex-rt parity``: is the fast one still the same model?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apex_runtime.cli.options import (
    chosen_budgets,
    dataset_type_option,
    json_option,
    not_empty,
    split_integers,
    split_list,
    tiles_option,
)
from apex_runtime.errors import UsageError
from apex_runtime.image_size import parse_size

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType
    from apex_runtime.parity.average_precision import Labels
    from apex_runtime.parity.check import ParityResult, Settings, Watch
    from apex_runtime.parity.polygraphy_bridge import Bridge
    from apex_runtime.parity.sweep import Absent


@click.command("parity", epilog="Exit codes: 0 the same within tolerance; 1 not the same; 2 wrong usage.")
@click.argument("reference", required=False, callback=not_empty)
@click.option(
    "--against",
    multiple=True,
    metavar="PATH[,PATH]",
    callback=split_list,
    help="Candidates: checkpoint, ONNX file, bundle, a recording (.json), or onnx-reference:FILE.",
)
@click.option(
    "--budget",
    multiple=True,
    default=("0.25", "0.5", "1.0"),
    show_default=True,
    callback=split_list,
    help="Budgets to compare at.",
)
@tiles_option(multiple=True)
@click.option(
    "--batch",
    multiple=True,
    callback=split_integers,
    metavar="N[,N]",
    help="Images in one run of the graph; each is compared.  [default: 1]",
)
@click.option("--images", metavar="PATH", callback=not_empty, help="Image, folder or pattern.  [default: the shipped samples]")
@click.option(
    "--data",
    type=click.Path(),
    callback=not_empty,
    help="A labelled COCO, YOLO or satellite set in place of --images: AP is compared as well.",
)
@dataset_type_option
@click.option("--split", help="Which split of --data.  [default: test; of a single file, the only one]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images of --data, evenly over the split.")
@click.option("--profile", default="quality", show_default=True, metavar="quality|balanced|edge", help="Tolerance profile.")
@click.option("--size", metavar="HxW", help="Input size when both sides are checkpoints.")
@click.option("--threads", type=int, help="Threads of one run.  [default: one per core]")
@click.option(
    "--sweep",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Build bundles of REFERENCE into DIR, in every precision for every backend that runs here, and compare each.",
)
@click.option("--ops", is_flag=True, help="Compare every face of the plugins' ops instead; needs no REFERENCE.")
@click.option("--op", multiple=True, callback=split_list, metavar="NAME[,NAME]", help="With --ops: these only.  [default: all]")
@click.option(
    "--record", metavar="FILE.json", callback=not_empty, help="Keep what REFERENCE answers here, to be compared elsewhere."
)
@click.option(
    "-o",
    "--output",
    default="parity.json",
    show_default=True,
    metavar="FILE",
    callback=not_empty,
    help="Where the report goes.",
)
@click.option(
    "--html", metavar="FILE", callback=not_empty, help="Also a page with pictures of the worst images; it needs no other file."
)
@click.option(
    "--polygraphy",
    metavar="DIR",
    callback=not_empty,
    help="Also the tensors of the first image there, and Polygraphy's commands for them.",
)
@click.option("--bisect", metavar="DIR", callback=not_empty, help="Find the first node that differs; DIR gets what was found.")
@json_option
@click.pass_context
def parity(
    ctx: click.Context,
    reference: str | None,
    against: tuple[str, ...],
    budget: tuple[str, ...],
    tiles: tuple[str, ...],
    batch: tuple[int, ...],
    images: str | None,
    data: str | None,
    dataset_type: DatasetType | None,
    split: str | None,
    limit: int | None,
    profile: str,
    size: str | None,
    threads: int | None,
    sweep: Path | None,
    ops: bool,
    op: tuple[str, ...],
    record: str | None,
    output: str,
    html: str | None,
    polygraphy: str | None,
    bisect: str | None,
    as_json: bool,
) -> None:
    """Compare REFERENCE with other forms of the same model.

    Tensor level: the same tiles forced on both sides, every output compared. Decision level: left alone, do both choose the same
    tiles? Task level: left alone, do both detect the same objects, and with labels, how much AP is lost? Real images first, then
    noise, a constant image and saturated ones.

    \b
    Examples:
      apex-rt parity best.pt --against model.onnx
      apex-rt parity best.pt --against model.onnx,bundle/ --budget 0.25,1.0
      apex-rt parity model.onnx --against bundle/ --images scans/ --profile balanced --output report.json
      apex-rt parity model.onnx --against bundle8/ --data nuclei/ --split test
      apex-rt parity best.pt --against bundle/ --html parity.html
      apex-rt parity model.onnx --against onnx-reference:model.onnx --budget 4
      apex-rt parity model.onnx --sweep bundles/ --batch 1,4
      apex-rt parity model.onnx --against fp16.onnx --polygraphy compared/
      apex-rt parity --ops --op tile_pack,decode_nms
      apex-rt parity bundle/ --record gpu.json
      apex-rt parity model.onnx --against gpu.json
      apex-rt parity model.onnx --against bundle/ --bisect where/
    """
    from apex_runtime.cli.parity_modes import refuse_unread
    from apex_runtime.cli.parity_ops import run_ops
    from apex_runtime.cli.places import check_places
    from apex_runtime.cli.progress import counter
    from apex_runtime.parity.check import Settings, check_parity, watch_all
    from apex_runtime.parity.polygraphy_bridge import Bridge
    from apex_runtime.parity.report import to_dict, write_report
    from apex_runtime.parity.tolerance import load_profile
    from apex_runtime.parity.worst import Gallery

    refuse_unread(ctx)
    if ops or op:
        ctx.exit(0 if run_ops(ops, op, Path(output), as_json) else 1)
    if reference is None:
        raise UsageError("REFERENCE is missing.", "Name a checkpoint, an ONNX file or a bundle; --ops needs none.")
    settings = Settings(  # a budget or a batch that is named twice is compared once
        tuple(dict.fromkeys(chosen_budgets(budget, tiles))),
        load_profile(profile),
        images=Path(images) if images else None,
        size=parse_size(size) if size else None,
        threads=threads,
        batches=tuple(dict.fromkeys(batch)) or (1,),
        labels=_labels(data, dataset_type, split, limit),
    )
    if record is not None:
        check_places({"--record": record}, (reference,))
        _record(reference, settings, record, as_json)
        return
    if bisect:
        from apex_runtime.cli.parity_bisect import run_bisect

        ctx.exit(run_bisect(Path(reference), against, settings, Path(bisect), as_json))
    if polygraphy and len(against) != 1:
        raise UsageError(f"--polygraphy {polygraphy}: compares two models.", "Name one candidate with --against.")
    exchanged = polygraphy and f"{polygraphy}/inputs.json"
    check_places({"--output": output, "--html": html, "--polygraphy": exchanged}, (reference, *against))
    gallery, bridge = Gallery(), Bridge()
    watch = watch_all([one.open for one, wanted in ((gallery, html), (bridge, polygraphy)) if wanted])
    absent: tuple[Absent, ...] = ()
    if sweep is not None:
        result, absent = _sweep(reference, sweep, settings, watch)
    else:
        candidates = [Path(item) for item in against]
        result = check_parity(Path(reference), candidates, settings, lambda total: counter(total, "parity"), watch)
    document = to_dict(result, absent)
    write_report(document, Path(output))
    if html:
        from apex_runtime.parity.html import write_page

        write_page(Path(html), document, [gallery.sights(comparison) for comparison in result.comparisons])
    if as_json:
        import json

        click.echo(json.dumps(document, indent=2))
    else:
        _show(result, output)
        for item in absent:
            what = f"{item.backend}, {item.precision}" if item.precision else item.backend
            click.echo(f"not compared: {what}: {item.reason}: {item.detail}")
    if polygraphy:
        _to_polygraphy(bridge, result, Path(polygraphy))
    ctx.exit(0 if result.passed else 1)


def _sweep(reference: str, folder: Path, settings: Settings, watch: Watch) -> tuple[ParityResult, tuple[Absent, ...]]:
    from apex_runtime.cli.progress import counter
    from apex_runtime.parity.sweep import sweep

    note = partial(click.echo, err=True)
    found = sweep(Path(reference), folder, settings, note, lambda total: counter(total, "parity"), watch)
    return found.result, found.absent


def _labels(data: str | None, dataset_type: DatasetType | None, split: str | None, limit: int | None) -> Labels | None:
    if data is None:
        useless = [name for name, value in (("--split", split), ("--limit", limit), ("--dataset-type", dataset_type)) if value]
        if useless:
            raise UsageError(f"{', '.join(useless)}: there is no --data.", "Name a labelled set, or leave it out.")
        return None
    from apex_runtime.cli.data import choose_type, default_split, say_left_out
    from apex_runtime.parity.average_precision import Labels

    kind = choose_type(Path(data), dataset_type)
    found = Labels.open(Path(data), split or default_split(Path(data), kind), kind, limit)
    say_left_out(found.dataset)
    return found


def _record(reference: str, settings: Settings, path: str, as_json: bool) -> None:
    from apex_runtime.cli.progress import counter
    from apex_runtime.parity.record import record

    made = record(Path(reference), settings, Path(path), lambda total: counter(total, "record"))
    if as_json:
        click.echo(made.model_dump_json(indent=2))
    else:
        click.echo(f"{path}: {len(made.runs)} runs of {made.subject.backend} on {len(made.images)} images")


def _to_polygraphy(bridge: Bridge, result: ParityResult, folder: Path) -> None:
    """On standard error: what Polygraphy says is no part of the report."""
    from apex_runtime.parity.polygraphy_bridge import comparing_command, running_commands, write_exchange

    exchange = bridge.exchange
    if exchange is None:
        click.echo(f"--polygraphy {folder}: nothing is written: {bridge.refusal}", err=True)
        return
    write_exchange(folder, exchange)
    word = "pass" if exchange.passed else "fail"
    click.echo(f"# {exchange.image}, budget {exchange.asked}, tensor level: {word}. Polygraphy on the same tensors:", err=True)
    for note in exchange.notes:
        click.echo(f"# its verdict may be another one: {note}", err=True)
    click.echo(comparing_command(folder, exchange), err=True)
    commands = running_commands(folder, exchange, result.reference, result.comparisons[0].candidate)
    if commands:
        click.echo("# The files run by Polygraphy, compared by position (no verdict of parity):", err=True)
    for command in commands:
        click.echo(command, err=True)


def _show(result: ParityResult, output: str) -> None:
    from rich.console import Console

    from apex_runtime.parity.report import tables
    from apex_runtime.parity.tolerance import Rules

    console = Console()
    for comparison in result.comparisons:
        for table in tables(comparison, Rules(result.profile, comparison.candidate.precision)):
            console.print(table)
        for note in comparison.notes:
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        for reason in comparison.reasons:
            console.print(f"{comparison.candidate.path}: {reason}", markup=False, highlight=False, soft_wrap=True)
        word = "fails" if comparison.reasons else "passes"
        verdict = f"{comparison.candidate.path} {word} under profile {result.profile.name}; report: {output}"
        if comparison.reasons and comparison.budgets and comparison.candidate.precision in ("fp32", "fp16"):
            verdict += "; --bisect DIR names the node"
        console.print(verdict, markup=False, highlight=False, soft_wrap=True)
