"""``apex-rt parity``: is the fast one still the same model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from apex_runtime.cli.options import chosen_budgets, json_option, not_empty, split_list, tiles_option
from apex_runtime.image_size import parse_size

if TYPE_CHECKING:
    from apex_runtime.parity.check import ParityResult


@click.command("parity", epilog="Exit codes: 0 the same within tolerance; 1 not the same; 2 wrong usage.")
@click.argument("reference")
@click.option(
    "--against",
    multiple=True,
    required=True,
    metavar="PATH[,PATH]",
    callback=split_list,
    help="Candidates: checkpoint, ONNX file or bundle.",
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
@click.option("--images", metavar="PATH", help="Image, folder or pattern.  [default: the shipped samples]")
@click.option("--profile", default="quality", show_default=True, metavar="quality|balanced|edge", help="Tolerance profile.")
@click.option("--size", metavar="HxW", help="Input size when both sides are checkpoints.")
@click.option("--threads", type=int, help="Threads of one run.  [default: one per core]")
@click.option("-o", "--output", default="parity.json", show_default=True, metavar="FILE", help="Where the report goes.")
@click.option("--bisect", metavar="DIR", callback=not_empty, help="Find the first node that differs; DIR gets what was found.")
@json_option
@click.pass_context
def parity(
    ctx: click.Context,
    reference: str,
    against: tuple[str, ...],
    budget: tuple[str, ...],
    tiles: tuple[str, ...],
    images: str | None,
    profile: str,
    size: str | None,
    threads: int | None,
    output: str,
    bisect: str | None,
    as_json: bool,
) -> None:
    """Compare REFERENCE with other forms of the same model.

    Tensor level: the same tiles forced on both sides, every output compared. Decision level: left alone, do both choose the same
    tiles? Real images first, then noise, a constant image and saturated ones.

    \b
    Examples:
      apex-rt parity best.pt --against model.onnx
      apex-rt parity best.pt --against model.onnx,bundle/ --budget 0.25,1.0
      apex-rt parity model.onnx --against bundle/ --images scans/ --profile balanced --output report.json
      apex-rt parity model.onnx --against bundle/ --bisect where/
    """
    from apex_runtime.cli.progress import counter
    from apex_runtime.parity.check import Settings, check_parity
    from apex_runtime.parity.report import to_dict, write_report
    from apex_runtime.parity.tolerance import load_profile

    settings = Settings(
        chosen_budgets(budget, tiles),
        load_profile(profile),
        images=Path(images) if images else None,
        size=parse_size(size) if size else None,
        threads=threads,
    )
    if bisect:
        from apex_runtime.cli.parity_bisect import run_bisect

        ctx.exit(run_bisect(Path(reference), against, settings, Path(bisect), as_json))
    result = check_parity(Path(reference), [Path(item) for item in against], settings, lambda total: counter(total, "parity"))
    document = to_dict(result)
    write_report(document, Path(output))
    if as_json:
        import json

        click.echo(json.dumps(document, indent=2))
    else:
        _show(result, output)
    ctx.exit(0 if result.passed else 1)


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
        console.print(verdict, markup=False, highlight=False, soft_wrap=True)
