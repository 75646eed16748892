"""One slice on both sides, the same values in: how far apart is what comes out? What the journal knows is not run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apex_runtime.errors import BackendError, UsageError
from apex_runtime.parity.bisect.difference import Judge
from apex_runtime.parity.bisect.journal import ANOTHER_FOLDER, Journal, Probed
from apex_runtime.parity.bisect.search import Answer
from apex_runtime.parity.bisect.slices import Arrays, Graph, values_of


class Probes:
    """``search.Probe``, with the reference's values at the last cut, and no others, kept in memory. ``feeds``: of the graph."""

    def __init__(self, reference: Graph, candidate: Graph, feeds: Arrays, judge: Judge, journal: Journal, folder: Path) -> None:
        self.reference, self.candidate, self.judge = reference, candidate, judge
        self.journal, self.folder = journal, folder
        self.done = 0
        self._feeds = feeds
        self._values: Arrays = {}

    def __call__(self, known: Sequence[str], compared: Sequence[str]) -> Answer:
        """The answer of the journal, or else of a slice, which the journal then knows. Raises BackendError where the reference
        fails, UsageError for a journal that is of another search after all."""
        if self.done == len(self.journal.slices):
            answer = self._run(known, compared)
            self.journal.slices.append(Probed(fed=list(known), excess=answer.excess, error=answer.error))
            self.journal.save(self.folder)
        probed = self.journal.slices[self.done]
        if probed.fed != list(known) or not (probed.error or list(probed.excess) == list(compared)):
            raise UsageError(
                f"{self.folder}: the journal holds other slices than this search asks for.",
                ANOTHER_FOLDER,
                path=self.folder,
            )
        self.done += 1
        return Answer(probed.excess, probed.error)

    def values(self, names: Sequence[str]) -> Arrays:
        """What the reference computes for these tensors; all others are given up."""
        self._values = values_of(self.reference, names, self._feeds | self._values)
        return self._values

    def _run(self, known: Sequence[str], compared: Sequence[str]) -> Answer:
        fed = self.values(known)
        wanted = self.reference.run(compared, fed)
        self._values = fed | wanted
        try:
            found = self.candidate.run(compared, fed)
        except BackendError as error:
            return Answer({}, str(error))
        return Answer({name: self.judge.excess(name, wanted[name], found[name]) for name in compared})
