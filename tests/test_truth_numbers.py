"""Every measured number in the README, the documents and the cards stands in an evidence file that its section names.

What was measured is written plainly: 12.5 ms, 0.97, a cell of a table. What was set, a threshold or a limit, is
written as code, and so are examples. A section links the files under ``bench/evidence/`` that hold its numbers, or
``bench/LOG.md`` for what was read off a log and says so there. A number is looked for with the digits that it is
written with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from documents import DOCUMENTS, ROOT, Piece, pieces
from evidence_numbers import Claim, claims, evidence, holds

CLAIMING = [path for path in DOCUMENTS if path.name != "CONTRIBUTING.md"]


def of(name: str) -> Any:
    return json.loads((ROOT / "bench" / "evidence" / f"{name}.json").read_text(encoding="utf-8"))


def quarter_over_dense() -> float:
    """The median over the rounds, as the evidence file has it for all tiles."""
    samples = of("frontier-aerial-vehicles")["samples_ms"]
    return median(quarter / dense for quarter, dense in zip(samples["K=30"], samples["dense"], strict=True))


def frames_of_training() -> float:
    """The frames of mos074 and mos155 are the split train of aerial-vehicles."""
    frames = {row["clip"]: row["frames"] for row in of("video-clips")["rows"]}
    return frames["mos074"] + frames["mos155"]


# What stands in no file itself and is computed from one: by document and number as it is written.
COMPUTED: dict[tuple[str, str], Callable[[], float]] = {
    ("README.md", "0.59"): quarter_over_dense,
    ("README.md", "45"): frames_of_training,
    ("card.md", "533"): lambda: of("loader")["contract"]["images"],
}


def claimed(document: Path) -> list[tuple[Piece, Claim]]:
    return [(piece, claim) for piece in pieces(document) for claim in claims(piece)]


@pytest.mark.parametrize("document", CLAIMING, ids=lambda path: path.stem)
def test_every_measured_number_has_its_evidence(document: Path) -> None:
    unsupported = []
    for piece, claim in claimed(document):
        files = evidence(piece)
        computed = COMPUTED.get((document.name, claim.number))
        if computed is not None:
            assert f"{computed():.{len(claim.number.partition('.')[2])}f}" == claim.number
        elif not files:
            unsupported.append(f"{piece.place}: {claim} in a section that names no evidence")
        elif not any(holds(path, claim) for path in files):
            unsupported.append(f"{piece.place}: {claim} is not in {', '.join(sorted(path.name for path in files))}")
    assert not unsupported, "\n".join(unsupported)


def test_there_are_numbers_to_look_at() -> None:
    found = {path: len(claimed(path)) for path in CLAIMING}
    assert sum(found.values()) > 250 and sum(count > 0 for count in found.values()) >= 8


def test_what_is_computed_is_still_written() -> None:
    written = {(path.name, claim.number) for path in CLAIMING for _piece, claim in claimed(path)}
    assert set(COMPUTED) <= written


def test_another_number_would_be_noticed() -> None:
    """Every figure of three digits or more, a little off: nearly none of these is in the evidence by chance."""
    changed = [
        (piece, replace(claim, number=off))
        for path in CLAIMING
        for piece, claim in claimed(path)
        if len(re.sub(r"\D", "", claim.number).lstrip("0")) >= 3
        for off in (one_more(claim.number),)
    ]
    passed = [f"{piece.place} {claim}" for piece, claim in changed if any(holds(path, claim) for path in evidence(piece))]
    assert len(changed) > 100 and len(passed) < 0.25 * len(changed), "\n".join(passed)


def one_more(number: str) -> str:
    """A number that differs by seven in its last digits: 52.7 becomes 53.4."""
    digits = len(number.partition(".")[2])
    return f"{float(re.sub(r'[^0-9.]', '', number)) + 7 * 10.0**-digits:.{digits}f}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("takes 12.5 ms, 1 727 us and 30 %", ["12.5 ms", "1 727 us", "30 %"]),
        ("42 to 51 s on 512 x 512 pixels with TensorRT 10.12", ["42 s", "51 s"]),
        ("a 95 % interval over 63 images, at `", ["63 images"]),
        ("0.98 of 1.10x; 3 points, `docs/v1.2/x`, version 2", ["0.98", "1.10 x", "3 points"]),
    ],
)
def test_which_numbers_are_claims(text: str, found: list[str]) -> None:
    assert [str(claim) for claim in claims(Piece(ROOT / "README.md", "text", 1, 0, prose=text))] == found
