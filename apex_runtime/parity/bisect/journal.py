"""``bisect.json``: what was asked and answered so far, and in the end what was found. A second start goes on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.errors import UsageError
from apex_runtime.files import write_atomically

NAME = "bisect.json"
CHOICES = ("tile_ids", "tile_levels", "candidate_ids")  # discrete: fed to both sides where both made the same
MAX_BYTES = 16 << 20  # hundreds of probes fit into one
ANOTHER_FOLDER = "Name another folder with --bisect, or delete this one."


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Key(_Record):
    """What a search depends on. ``images``: digests of the pixels; ``tools``: versions of what computes."""

    reference_sha256: str
    candidate_sha256: str
    images: list[str]
    budgets: list[str]
    profile: str
    profile_version: int
    precision: str
    tools: dict[str, str]


class Difference(_Record):
    """What differs on one image under one budget: ``outputs`` with the reasons.

    ``mode``: the reference's tiles forced on both sides, or both left alone. ``tiles``: flat numbers of the reference's tiles.
    ``runs``: whether the candidate runs at all; where it does not, every output differs.
    """

    image: str
    image_sha256: str
    budget: str
    mode: Literal["forced", "free"]
    tiles: list[int]
    outputs: dict[str, list[str]]
    runs: bool = True

    @property
    def agreed(self) -> tuple[str, ...]:
        """The discrete choices that both sides made alike."""
        return tuple(name for name in CHOICES if name not in self.outputs) if self.mode == "forced" else ()


class Probed(_Record):
    """One slice: what it was fed, how far each compared tensor was off (1: the edge of its tolerance), or why it did not run."""

    fed: list[str]
    excess: dict[str, float]
    error: str


class Tensor(_Record):
    """Numbers of one tensor: ``least``, ``largest`` and ``mean`` of the finite values, None without any."""

    dtype: str
    shape: list[int]
    least: float | None
    largest: float | None
    mean: float | None
    non_finite: int


class Pair(_Record):
    """One output of the guilty node on both sides. ``at``: the index of the largest difference."""

    name: str
    reference: Tensor
    candidate: Tensor | None
    excess: float
    max_abs: float | None
    at: list[int] | None


class Fed(_Record):
    """An input of ``minimal.onnx`` and the file that holds it."""

    name: str
    file: str


class Node(_Record):
    """A node: ``region`` and ``scope`` (the path of its module) as far as the graph tells."""

    name: str
    op: str
    region: str
    scope: str


class Finding(_Record):
    """The guilty nodes: of the reference, one as a rule, and what stands in their place in the candidate. ``changes``: what the
    nodes that write the output say differently."""

    reference_nodes: list[Node]
    candidate_nodes: list[Node]
    changes: list[str]
    outputs: list[Pair]
    inputs: list[Fed]
    error: str


class Journal(_Record):
    """The whole file. ``verdict``: unfinished, same, found, or unexplained: it differs, yet no part of it alone does.

    ``aligned``: tensors of the reference that the candidate has as well; ``without``: those that it has not, the first of which
    are ``unaligned``.
    """

    schema_name: Literal["apex-x/bisect"] = Field(default="apex-x/bisect", alias="schema")
    schema_version: Literal[1] = 1
    key: Key
    verdict: Literal["unfinished", "same", "found", "unexplained"] = "unfinished"
    aligned: int
    without: int
    unaligned: list[str]
    start: Difference | None = None
    slices: list[Probed] = []
    finding: Finding | None = None

    def save(self, folder: Path) -> None:
        """Write it in one step. Raises UsageError when the place cannot be written."""
        text = self.model_dump_json(indent=2, by_alias=True) + "\n"
        try:
            write_atomically(folder / NAME, text.encode())
        except OSError as error:
            path = folder / NAME
            raise UsageError(f"--bisect {folder}: cannot be written ({error.strerror}).", "Name another.", path=path) from error


def open_journal(folder: Path, fresh: Journal) -> Journal:
    """The journal of ``folder`` when it is one of the same search, ``fresh`` when there is none.

    Raises UsageError for a journal of another search, and for a damaged one.
    """
    path = folder / NAME
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--bisect {folder}: not a folder.", "Name a folder, which is made when it is missing.", path=folder)
    if not path.exists():
        return fresh
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too long")
        found = Journal.model_validate_json(path.read_bytes())
    except (OSError, ValueError, ValidationError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not a journal of --bisect, or a damaged one.", ANOTHER_FOLDER, path=path) from error
    other = [name for name, value in found.key if value != getattr(fresh.key, name)]
    if other:
        words = ", ".join(name.replace("_", " ") for name in other)
        raise UsageError(f"{path}: the journal of another search: not the same {words}.", ANOTHER_FOLDER, path=path)
    return found
