"""A worker of a job: an actor of Ray's with an engine, which answers for one block after the other."""

from __future__ import annotations

import platform
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.errors import ApexError, BundleError
from apex_runtime.offline.block_run import Work, run_block
from apex_runtime.offline.blocks import Block
from apex_runtime.offline.fetch import is_full_disk
from apex_runtime.offline.outcome import Outcome
from apex_runtime.offline.scratch import Scratch

if TYPE_CHECKING:
    import pyarrow

PACKAGE = "apex-x"


class BlockWorker:
    """What Ray Data calls with a row per block (column ``block``), and what answers with a row per outcome.

    What concerns more than one image (an engine that cannot run here, a full disk) is an error in the outcome, not an exception:
    whoever started the job hears it in words, and Ray does not try it again.
    """

    def __init__(self, work: Work, parcel: list[Any], digest: str, release: str) -> None:
        """``parcel``: a reference to the engine's ``Parcel`` in Ray's store, in a list, so that it is not fetched before.
        ``digest``: SHA-256 of the model. ``release``: version of this package where the job was started."""
        self._work = work
        self._error: BaseException | None = None
        try:
            self._scratch = Scratch()
            self._opened = self._open(parcel, digest, release)
        except Exception as error:
            self._error = error

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """The outcomes of the blocks in a table."""
        import pyarrow as pa

        blocks = [Block.from_json(text) for text in table.column("block").to_pylist()]
        return pa.concat_tables([self._answer(block).to_table() for block in blocks])

    def _answer(self, block: Block) -> Outcome:
        if self._error is not None:
            return _error(block, self._error)
        try:
            return run_block(block, self._opened, self._work, self._scratch.folder / "block")
        except Exception as error:
            return _error(block, error)

    def _open(self, parcel: list[Any], digest: str, release: str) -> Opened:
        import ray

        if version(PACKAGE) != release:
            raise BundleError(
                f"{PACKAGE} {version(PACKAGE)} is installed, the job is of {release}.", "Install the same everywhere."
            )
        with tempfile.TemporaryDirectory(dir=self._scratch.folder) as folder:
            path = ray.get(parcel[0]).unpack(Path(folder))
            opened = open_engine(path, self._work.threads, self._work.device, self._work.policy, many=True)
        if opened.digest != digest:
            raise BundleError("the engine is not the one of the job.", "Run the job again.")
        return opened


def _error(block: Block, error: BaseException) -> Outcome:
    where = f"worker on {platform.node()}"
    if isinstance(error, ApexError):
        return Outcome(block.key, error=f"{where}: {error.message}", remedy=error.remedy)
    if isinstance(error, OSError):
        remedy = "Make room on that machine" if is_full_disk(error) else "Mend that on the machine"
        return Outcome(block.key, error=f"{where}: {error}", remedy=f"{remedy}, then go on with --resume.")
    trace = "".join(traceback.format_exception(error)[-3:])
    return Outcome(block.key, error=f"{where}: {trace}", remedy="Report this.")
