"""A click group that imports a command only when it is called, and prints every ApexError the same way.

Shared by ``apex-rt`` and ``apex-train``: ``LazyGroup(commands={"infer": ("package.module:command", "one line of help")})``.
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

from apex_runtime.errors import ApexError

HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
EXIT_CODES = "Exit codes: 0 done; 1 the answer is no, or some inputs failed; 2 wrong usage."


def version_option(program: str) -> Callable[[Any], Any]:
    """``--version`` of a program of this distribution; the metadata is read only when it is asked for."""

    def show(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
        if not wanted or ctx.resilient_parsing:
            return
        from importlib.metadata import version

        click.echo(f"{program} {version('apex-x')}")
        ctx.exit()

    return click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version.")


class ShownError(click.ClickException):
    """An ApexError on its way to the terminal: message, remedy, exit code."""

    def __init__(self, error: ApexError) -> None:
        super().__init__(error.message)
        self.remedy = error.remedy
        self.exit_code = error.exit_code  # type: ignore[misc]  # click reads it off the instance

    def show(self, file: Any = None) -> None:
        """Two lines on standard error, so that ``--json`` output stays clean."""
        stream = file or sys.stderr
        click.echo(f"error: {self.message}", file=stream)
        if self.remedy:
            click.echo(f"remedy: {self.remedy}", file=stream)


class LazyGroup(click.Group):
    """A group whose commands are named with their help line and imported on first use."""

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, without importing any command."""
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object; this is where its module is imported."""
        return _imported(self.lazy, cmd_name) if cmd_name in self.lazy else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command table of ``--help``, from the stored help lines."""
        _write_commands(self.lazy, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an ApexError becomes message, remedy and exit code 1 or 2, and so does a failing disk."""
        try:
            return super().invoke(ctx)
        except ApexError as error:
            raise ShownError(error) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output left (| head): click ends quietly
                raise
            raise ShownError(_from_os_error(error)) from error


class CommandWithActions(click.Command):
    """A command with actions beside what it does by itself: ``bench ENGINE`` and ``bench check ENGINE``.

    ``lazy`` as in ``LazyGroup``. A first word that names an action is one: a file of that name is given as ``./check``.
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def action(self, name: str) -> click.Command:
        """The command behind an action; this is where its module is imported."""
        return _imported(self.lazy, name)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the action, where the first word names one; the group invokes the command of the context."""
        if args and args[0] in self.lazy:
            return self.action(args[0]).make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Its own options, then its actions."""
        super().format_options(ctx, formatter)
        if self.lazy:
            _write_commands(self.lazy, formatter)


def _imported(lazy: dict[str, tuple[str, str]], name: str) -> click.Command:
    module, _, attribute = lazy[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _write_commands(lazy: dict[str, tuple[str, str]], formatter: click.HelpFormatter) -> None:
    with formatter.section("Commands"):
        formatter.write_dl([(name, lazy[name][1]) for name in sorted(lazy)])


def _from_os_error(error: OSError) -> ApexError:
    where = f"{error.filename}: " if error.filename else ""
    return ApexError(f"{where}{error.strerror or error}.", "Check the path, its permissions and the free space on the disk.")
