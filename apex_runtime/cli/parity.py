"""``apex-rt parity``: is the fast one still the same model?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.parity.check import ParityResult, Progress


@click.command("parity", epilog="Exit codes: 0 the same within tolerance; 1 not the same; 2 wrong usage.")
@click.argument("reference")
@click.option("--against", multiple=True, required=True, metavar="PATH[,PATH]", help="Candidates: checkpoint, ONNX or bundle.")
@click.option("--budget", multiple=True, metavar="B[,B]", help="Budgets.  [default: 0.25,0.5,1.0]")
@click.option("--images", metavar="PATH", help="Image, folder or pattern.  [default: the shipped samples]")
@click.option("--profile", default="quality", show_default=True, metavar="quality|balanced|edge", help="Tolerance profile.")
@click.option("--size", metavar="HxW", help="Input size when both sides are checkpoints.")
@click.option("--threads", type=int, help="Threads of one run.  [default: one per core]")
@click.option("-o", "--output", default="parity.json", show_default=True, metavar="FILE", help="Where the report goes.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
@click.pass_context
def parity(
    ctx: click.Context,
    reference: str,
    against: tuple[str, ...],
    budget: tuple[str, ...],
    images: str | None,
    profile: str,
    size: str | None,
    threads: int | None,
    output: str,
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
    """
    from apex_runtime.parity.check import Settings, check_parity
    from apex_runtime.parity.report import to_dict, write_json
    from apex_runtime.parity.tolerance import load_profile
    from apex_runtime.routing.budget import parse_budget

    with _progress(enabled=not as_json) as progress:
        settings = Settings(
            budgets=tuple(parse_budget(item) for item in _items(budget) or ["0.25", "0.5", "1.0"]),
            profile=load_profile(profile),
            images=None if images is None else Path(images),
            size=_size(size),
            threads=threads,
            progress=progress,
        )
        result = check_parity(Path(reference), [Path(item) for item in _items(against)], settings)
    document = to_dict(result)
    write_json(document, Path(output))
    if as_json:
        import json

        click.echo(json.dumps(document, indent=2))
    else:
        _show(result, output)
    ctx.exit(0 if result.passed else 1)


def _items(values: tuple[str, ...]) -> list[str]:
    """The entries of a repeatable option whose values are comma lists."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _size(text: str | None) -> tuple[int, int] | None:
    """``512`` or ``384x1280`` as (height, width)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip())
    if match is None:
        raise UsageError(f"--size {text}: expected one number or HEIGHTxWIDTH.", "For example --size 512 or --size 384x1280.")
    return int(match[1]), int(match[2] or match[1])


@contextmanager
def _progress(enabled: bool) -> Iterator[Progress]:
    """A bar on standard error while a person watches; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not (enabled and console.is_terminal)) as bar:
        task = bar.add_task("comparing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
