"""What is refused before ``apex-rt parity`` runs anything: options that would not be read, files that could not be written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def check_places(files: Mapping[str, str | None], compared: Sequence[str] = ()) -> None:
    """Make the folders of files, by option. ``compared``: the models, which are not overwritten.

    Raises UsageError for a file that cannot be written, or would take the place of another: better now than after minutes.
    """
    taken = {Path(model).resolve(): "it is what is compared" for model in compared}
    for option, path in ((option, Path(file)) for option, file in files.items() if file is not None):
        why = taken.setdefault(path.resolve(), "") or _why_not(path)
        if why:
            raise UsageError(f"{option} {path}: cannot be written ({why}).", "Name another file.", path=path)
        taken[path.resolve()] = f"it is the file of {option}"


def _why_not(path: Path) -> str:
    """What keeps a file from being written; empty when nothing does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return "it is a folder" if path.is_dir() else ""
    except OSError as error:
        return str(error.strerror)
