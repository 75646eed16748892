"""Numbers in prose and in the evidence behind it: which of the text are claims, and whether a file holds one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from documents import ROOT, Piece, pieces

NUMBER = r"\d{1,3}(?:[  ]\d{3})+(?!\d)|\d+(?:\.\d+)?"
UNIT = (
    r"%|ms|us|s|seconds?|minutes?|hours?|h|kB|MB|GB|MiB|GiB|x(?! \d)|times|points?|dB|images(?:/s)?|frames|nuclei|buildings|"
    r"detections|requests|million|FPS"
)
FREE = r"(?<![\w.,:/^+-])(?<! x )"  # not the rest of a word, version, path, or the second side of 512 x 512
CLAIM = re.compile(rf"{FREE}-?(?P<range>{NUMBER})(?= (?:to|and|/) (?:{NUMBER}) ?(?:{UNIT})(?!\w))|{FREE}-?(?P<measured>{NUMBER})(?= ?(?:{UNIT})(?!\w))|{FREE}-?(?P<fine>\d+\.\d+)(?![\w.]*\d)")
CELL = re.compile(rf"[-+(]*(?:{NUMBER})(?:[-+()/,. ]|to|{NUMBER})*(?:{UNIT})?[).]*")
SETTINGS = ("default",)  # what a column of settings is headed
SCALES = (1.0, 100.0, 1e3, 1e6, 1e-3, 1e-6, 1e-9, 1 / 2**20, 1 / 3600)
LOG = ROOT / "bench" / "LOG.md"


def claims(piece: Piece) -> Iterator[str]:
    """The numbers of a paragraph or table that say something was measured or counted."""
    if piece.kind == "text":
        for match in CLAIM.finditer(piece.prose):
            yield next(group for group in match.groups() if group)
    for row in piece.rows[1:]:
        for heading, cell in zip(piece.rows[0][1:], row[1:], strict=False):
            if heading not in SETTINGS and CELL.fullmatch(cell.strip()):
                yield from re.findall(NUMBER, cell)


def evidence(piece: Piece) -> set[Path]:
    """The evidence files, and the log, that the section of a piece names."""
    around = [other for other in pieces(piece.document) if other.section == piece.section]
    named = {piece.document.parent / link for other in around for link in other.links}
    named |= {ROOT / span for other in around for span in other.spans if span.startswith("bench/")}
    resolved = {path.resolve() for path in named}
    return {path for path in resolved if path == LOG or path.parent == LOG.parent / "evidence"}


def holds(path: Path, number: str) -> bool:
    """Whether a file has this number, to as many digits as it was written with, in whatever unit."""
    plain = number.replace(" ", "").replace(" ", "")
    if path == LOG:
        return re.search(rf"(?<![\d.]){re.escape(plain)}(?![\d]|\.\d)", _log()) is not None
    half = 0.5 * 10.0 ** -len(plain.partition(".")[2])
    return any(abs(value * scale - float(plain)) <= half * (1 + 1e-6) for value in _numbers(path) for scale in SCALES)


@cache
def _log() -> str:
    return re.sub(r"(?<=\d)[  ](?=\d{3}(?!\d))", "", LOG.read_text(encoding="utf-8"))


@cache
def _numbers(path: Path) -> frozenset[float]:
    return frozenset(abs(value) for value in _leaves(json.loads(path.read_text(encoding="utf-8"))))


def _leaves(value: Any) -> Iterator[float]:
    """Every number; of a list of raw samples the median and the ends only."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list) and len(value) > 4 and all(isinstance(item, (int, float)) for item in value):
        yield from (median(value), min(value), max(value))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value)
