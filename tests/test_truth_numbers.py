"""Every measured number in the README, the documents and the cards stands in an evidence file that its section names.

What was measured is written plainly: `12.5 ms`, `0.97`, a cell of a table. What was set, a threshold or a limit, is written as code,
and so are examples. A section links the files under ``bench/evidence/`` that hold its numbers, or ``bench/LOG.md`` for what was
read off a log and says so there. A number is looked for with the digits that it is written with.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from documents import DOCUMENTS, ROOT, Piece, pieces
from evidence_numbers import LOG, Claim, claims, evidence, holds

CLAIMING = [path for path in DOCUMENTS if path.name != "CONTRIBUTING.md"]
# (document, number): which numbers of its evidence it was computed from, for what is in no file itself.
COMPUTED: dict[tuple[str, str], str] = {}


def claimed(document: Path) -> list[tuple[Piece, Claim]]:
    return [(piece, claim) for piece in pieces(document) for claim in claims(piece)]


@pytest.mark.parametrize("document", CLAIMING, ids=lambda path: path.stem)
def test_every_measured_number_has_its_evidence(document: Path) -> None:
    unsupported = []
    for piece, claim in claimed(document):
        files = evidence(piece)
        if not files:
            unsupported.append(f"{piece.place}: {claim} in a section that names no evidence")
        elif not any(holds(path, claim) for path in files):
            unsupported.append(f"{piece.place}: {claim} is not in {', '.join(sorted(path.name for path in files))}")
    assert not unsupported, "\n".join(unsupported)


def test_there_are_numbers_to_look_at() -> None:
    found = {path: len(claimed(path)) for path in CLAIMING}
    assert sum(found.values()) > 250 and sum(count > 0 for count in found.values()) >= 8
