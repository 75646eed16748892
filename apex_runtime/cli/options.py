"""Options that several commands share, and how they read lists: ``--budget 0.25,1.0 --budget 16`` is three budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.routing.budget import Budget


class FiniteRange(click.FloatRange):
    """A number between bounds. What is not a number ("nan") is in no range, though no comparison with a bound refuses it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Fails as wrong usage."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number in the range {self._describe_range()}.", param, ctx)
        return number


def split_list(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Callback of a repeatable comma list: every value in order, blanks left out. One of nothing must not mean "the default"."""
    parts = tuple(part.strip() for value in values for part in value.split(",") if part.strip())
    if values and not parts:
        raise UsageError(f"{parameter.opts[0]}: the list is empty.", "Give one or more, separated by commas, or leave it out.")
    return parts


def split_integers(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Callback of a repeatable comma list of whole numbers."""
    parts = split_list(ctx, parameter, values)
    for part in parts:
        if not part.isdecimal():
            raise click.BadParameter(f"{part!r} is not a whole number", ctx=ctx, param=parameter)
    return tuple(int(part) for part in parts)


def not_empty(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of a path: an empty text is a shell variable that was not set, and must not mean "here" or "the default"."""
    if value is not None and not value.strip():
        raise click.BadParameter("the path is empty", ctx=ctx, param=parameter)
    return value


def none_empty(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``not_empty`` of every path of several."""
    for value in values:
        not_empty(ctx, parameter, value)
    return values


def chosen_budgets(budgets: Sequence[str], tiles: Sequence[str]) -> tuple[Budget, ...]:
    """The budgets of ``--budget``, or of ``--tiles`` where that is given. Raises UsageError."""
    from apex_runtime.routing.budget import parse_budget, parse_levels

    return tuple(map(parse_levels, tiles)) or tuple(map(parse_budget, budgets))


def dataset_type_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--dataset-type``: how a data folder is read."""
    return click.option(
        "--dataset-type",
        type=click.Choice(["coco", "yolo", "satellite"]),
        help="How the data is read.  [default: recognised, and said]",
    )(function)


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--threads``, ``--device`` and ``--policy``: how an engine is opened."""
    for option in (
        click.option(
            "--policy",
            type=click.Choice(["strict", "permissive"]),
            default="strict",
            show_default=True,
            help="When the engine's backend cannot run here: fail, or run the same graph by ort-cuda or ort-cpu and say so.",
        ),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            help="cpu, cuda or cuda:N; a GPU runs a model.onnx by ort-cuda.",
        ),
        click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the engine.  [default: one per core]"),
    ):
        function = option(function)
    return function


def say_fallback(opened: Opened) -> None:
    """One line, on standard error, when ``--policy permissive`` found another backend than was asked for."""
    if opened.reason:
        click.echo(f"note: asked for {opened.requested}, running on {opened.executed} ({opened.reason})", err=True)


def tiles_option(multiple: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--tiles``: tiles of every level, instead of a budget."""
    more = " May be repeated." if multiple else ""
    return click.option(
        "--tiles", multiple=multiple, metavar="K0,K1", help=f"Tiles of every level, coarsest first; overrides --budget.{more}"
    )


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: the result as JSON on standard output, and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(function)
