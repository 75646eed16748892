"""Numbers in prose and in the evidence behind it: which of the text are claims, and whether a file holds one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from documents import ROOT, Piece, pieces

NUMBER = r"\d{1,3}(?:[  ]\d{3})+(?!\d)|\d+(?:\.\d+)?"
# Units of a figure, and what it may have to be multiplied with from how evidence files keep it: shares, seconds, bytes.
SCALES = {
    "%": (1, 100),
    "point": (1, 100),
    "points": (1, 100),
    "us": (1, 1e3, 1e6),
    "ms": (1, 1e3),
    "s": (1, 1e-3),
    "h": (1 / 3600,),
    "kB": (1e-3,),
    "MB": (1, 1e-6),
    "MiB": (1, 2**-20),
    "million": (1, 1e-6),
    "": (1, 100, 1e3, 1e6, 1e-6),
}
COUNTED = ("x", "times", "dB", "images", "images/s", "frames", "nuclei", "buildings", "detections", "requests")
UNIT = "|".join(sorted(filter(None, [*SCALES, *COUNTED]), key=len, reverse=True))
FREE = r"(?<![\w.,:/^+-])(?<! x )"  # not the rest of a word, version or path, nor the second side of 512 x 512
VERSION = r"(?<!Python )(?<!TensorRT )(?<!Runtime )(?<!CUDA )(?<!RTX )(?<!torch )(?<!CC0 )"
END = r"(?![\w.]*\d)(?! x \d)"
CLAIM = re.compile(
    rf"{FREE}-?(?P<first>{NUMBER})(?= (?:to|and) (?:{NUMBER}) ?(?P<of_both>{UNIT})(?!\w))"
    rf"|{FREE}-?(?P<measured>{NUMBER}) ?(?P<unit>{UNIT})(?!\w)(?! \d)"
    rf"|{FREE}{VERSION}-?(?P<fine>\d+\.\d+){END}"
)
CONFIDENCE = re.compile(r"95 %(?=\s(?:interval|bootstrap))")
CELL = re.compile(rf"[-+(]*(?:{NUMBER})(?:[-+()/,. ]|to|{NUMBER})*(?:{UNIT})?[).]*")
SETTINGS = ("default",)  # what a column of settings is headed
LOG = ROOT / "bench" / "LOG.md"
FOLDER = ROOT / "bench" / "evidence"


@dataclass(frozen=True)
class Claim:
    """A number that says something was measured or counted: as it is written, with its unit or an empty one."""

    number: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.unit}".strip()


def claims(piece: Piece) -> Iterator[Claim]:
    """The measured numbers of a paragraph or table. The first column of a table says what its rows are about."""
    if piece.kind == "text":
        yield from _in_text(piece.prose)
    for row in piece.rows[1:]:
        for heading, cell in zip(piece.rows[0][1:], row[1:], strict=False):
            if heading in SETTINGS:
                continue
            if CELL.fullmatch(cell.strip()):
                yield from (Claim(number, _unit(cell, heading)) for number in re.findall(NUMBER, cell))
            else:
                yield from _in_text(cell)


def _in_text(text: str) -> Iterator[Claim]:
    for match in CLAIM.finditer(CONFIDENCE.sub("`", text)):
        number = match["first"] or match["measured"] or match["fine"]
        yield Claim(number, match["of_both"] or match["unit"] or "")


def _unit(cell: str, heading: str) -> str:
    return next((unit for unit in SCALES if unit and re.search(rf"(?<!\w){unit}(?!\w)", f"{cell} {heading}")), "")


def evidence(piece: Piece) -> set[Path]:
    """The evidence files, and the log, that the section of a piece names."""
    around = [other for other in pieces(piece.document) if other.section == piece.section]
    named = {piece.document.parent / link for other in around for link in other.links}
    named |= {ROOT / span for other in around for span in other.spans if span.startswith("bench/")}
    resolved = {path.resolve() for path in named}
    return {path for path in resolved if path == LOG or (FOLDER in path.parents and path.suffix == ".json" and path.is_file())}


def holds(path: Path, claim: Claim) -> bool:
    """Whether a file has this number, to as many digits as it was written with, in one of the units it may be kept in."""
    plain = re.sub(r"[  ]", "", claim.number)
    if path == LOG:
        return re.search(rf"(?<![\d.]){re.escape(plain)}(?!\d|\.\d)", _log()) is not None
    half = 0.5 * 10.0 ** -len(plain.partition(".")[2])
    scales = SCALES.get(claim.unit, (1,))
    return any(abs(value * scale - float(plain)) <= half * (1 + 1e-6) for value in _numbers(path) for scale in scales)


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
