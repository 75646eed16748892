"""What is refused before ``apex-rt parity`` runs anything: options that its mode would not read."""

from __future__ import annotations

import click
from click.core import ParameterSource

from apex_runtime.errors import UsageError

# Parameters that a mode does not read. --sweep and --polygraphy judge as usual.
_UNREAD = {
    "record": ("against", "profile", "sweep", "output", "html", "polygraphy", "bisect"),
    "bisect": ("batch", "sweep", "output", "html", "polygraphy"),
    "sweep": ("against", "polygraphy"),
}
_OPS_READ = ("ops", "op", "output", "as_json")


def refuse_unread(ctx: click.Context) -> None:
    """Raises UsageError for an option of the command line that nothing would read."""
    if ctx.params["ops"]:
        every = [parameter.name for parameter in ctx.command.params if parameter.name]
        _refuse(ctx, "ops", tuple(name for name in every if name not in _OPS_READ))
    for mode, unread in _UNREAD.items():
        if ctx.params[mode] is not None:
            _refuse(ctx, mode, unread)


def _refuse(ctx: click.Context, mode: str, unread: tuple[str, ...]) -> None:
    given = [_word(ctx, name) for name in unread if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(f"--{mode}: {', '.join(given)} would not be read.", f"Leave it out, or leave --{mode} out.")


def _word(ctx: click.Context, name: str) -> str:
    """The option as it is written, or the name of the argument."""
    parameter = next(item for item in ctx.command.params if item.name == name)
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name
