"""Both programs as trees of click commands, and a command line as click reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from apex_runtime.cli.group import CommandWithActions
from apex_runtime.cli.main import main as apex_rt
from apex_train.cli.main import main as apex_train

PROGRAMS: dict[str, click.Group] = {"apex-rt": apex_rt, "apex-train": apex_train}


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it, groups and actions of commands included, each with the words that lead there."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*words, name))
    if isinstance(command, CommandWithActions):
        for name in command.lazy:
            yield from walk(command.action(name), (*words, name))


def every_command() -> dict[tuple[str, ...], click.Command]:
    """The commands of both programs by their words: ``("apex-rt", "bench", "compare")``; the programs themselves left out."""
    found = {(program, *words): command for program, top in PROGRAMS.items() for words, command in walk(top)}
    return {words: command for words, command in found.items() if len(words) > 1}


def command_of(words: list[str]) -> tuple[str, ...] | None:
    """The longest beginning of a command line that is a command."""
    known = every_command()
    return next((tuple(words[:length]) for length in (3, 2) if tuple(words[:length]) in known), None)


def parse(words: list[str]) -> click.Context:
    """Have click read a command line without running it: options, types, callbacks, what is required. Raises UsageError."""
    path = command_of(words)
    if path is None:
        raise click.UsageError(f"{' '.join(words[:2])} is no command")
    top = PROGRAMS[path[0]]
    parent = click.Context(top, info_name=path[0], **top.context_settings)  # what a command inherits, it keeps: -h beside --help
    return every_command()[path].make_context(" ".join(path[1:]), words[len(path) :], parent=parent)


def any_file_will_do(patch: pytest.MonkeyPatch) -> None:
    """Let ``click.Path`` accept files that are not there: the names in documents are examples."""

    def convert(kind: click.Path, value: Any, _parameter: click.Parameter | None, _context: click.Context | None) -> Any:
        return kind.type(value) if kind.type is not None else value

    patch.setattr(click.Path, "convert", convert)
