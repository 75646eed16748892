"""The command lines that documents show: where they stand, and what is said beside them about who runs them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from command_tree import PROGRAMS, every_command
from documents import Piece, pieces

OTHERS = ("python", "python3", "pip", "pytest", "ruff", "mypy", "torchrun", "tensorboard", "ffmpeg", "pre-commit", "run")
JOINTS = re.compile(r"\s(?:&&|\|\||\|)\s")
# Said beside what no test runs, to the reader; and beside what a test outside of tests/test_docs.py runs, to whoever looks.
NOT_RUN = re.compile(
    r"\*Not run by the tests: (?P<need>[^;*]+); (?:last ran (?P<date>\d{4}-\d\d-\d\d) (?P<where>[^(*]+) "
    r"\(\[(?:evidence|log)\]\((?P<file>[^)]+)\)\)|never ran: `unproven`)\.\*"
)
RUN_BY = re.compile(r"<!-- run by (?P<file>\S+) -->")


@dataclass(frozen=True)
class Shown:
    """A command line in a document: ``words`` without a comment; ``block``: a reader is meant to type it as it stands."""

    piece: Piece
    words: tuple[str, ...]
    block: bool

    @property
    def program(self) -> str:
        """The name of what is called, without the folder of its environment."""
        return self.words[0].rpartition("/")[2]

    @property
    def ours(self) -> list[str] | None:
        """The part that one of our programs reads, behind torchrun too."""
        names = [word.rpartition("/")[2] for word in self.words]
        place = next((place for place, name in enumerate(names) if name in PROGRAMS), None)
        return None if place is None or (place and self.program != "torchrun") else [names[place], *self.words[place + 1 :]]


def shown(document_pieces: tuple[Piece, ...]) -> Iterator[Shown]:
    """Every command line: in blocks, and in code within the text that has more than a name."""
    for piece in document_pieces:
        if piece.kind == "indented" or (piece.kind == "fence" and piece.language == "bash"):
            for line in piece.content.replace("\\\n", " ").splitlines():
                yield from _commands(piece, line, True)
        for span in piece.spans:
            yield from _commands(piece, " ".join(span.split()), False)


def _commands(piece: Piece, line: str, block: bool) -> Iterator[Shown]:
    for part in JOINTS.split(line):
        try:
            words = shlex.split(part, comments=block)
        except ValueError:  # an apostrophe: prose of a program's output
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        found = Shown(piece, tuple(words), block) if words else None
        if found and (found.program in PROGRAMS or (found.program in OTHERS and (len(words) > 1 or "/" in words[0]))):
            yield found


def fragments(document_pieces: tuple[Piece, ...]) -> Iterator[tuple[Piece, str, str]]:
    """Code within the text that names an option of ours: (piece, the command or "", ``--option``)."""
    names = {words[-1] for words in every_command()}
    for piece in document_pieces:
        for span in piece.spans:
            words = span.split()
            command = words[0] if words and words[0] in names else ""
            if command or span.startswith("--"):
                for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span):
                    yield piece, command, option


def beside(piece: Piece) -> list[Piece]:
    """The pieces before and after one."""
    around = pieces(piece.document)
    place = around.index(piece)
    return [*around[max(place - 1, 0) : place], *around[place + 1 : place + 2]]
