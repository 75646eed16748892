"""Workers of a job without Ray: the same blocks through the same pipeline, in this process; some may die."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from apex_runtime.bundle.load import Opened
from apex_runtime.offline.block_run import Work, run_block
from apex_runtime.offline.blocks import Block, Image
from apex_runtime.offline.outcome import Outcome
from apex_runtime.offline.rounds import Answers


def images_in(folder: Path) -> list[Image]:
    """Its files, as a job names them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [Image(name, number, str(path), str(path)) for number, (name, path) in enumerate(zip(names, paths, strict=True), 1)]


def answers_here(opened: Opened, work: Work, scratch: Path, dies: Callable[[Block], bool] = lambda block: False) -> Answers:
    """The answers of a pool, the last block first; a block of which a worker ``dies`` gets none, as Ray Data leaves it out."""

    def answers(blocks: Sequence[Block], _in_flight: int) -> Generator[Outcome, None, None]:
        for block in reversed(blocks):
            if not dies(block):
                (outcome,) = Outcome.from_table(run_block(block, opened, work, scratch / "block").to_table())
                yield outcome

    return answers
