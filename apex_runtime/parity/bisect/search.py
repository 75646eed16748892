"""The search itself: which node, fed with what the reference computed, gives something else?

Of a tensor that differs, the nodes that lead to it are cut in the middle, and the candidate's slice up to the cut is fed with the
reference's values. If a tensor at the cut differs, the search goes on towards that one. If none does, nothing before the cut
matters to what comes after, and the reference's values at the cut become what is fed. So the differences of a slice are its own:
they cannot have vanished on the way and come back, nor be rounding from far up.

An answer near the edge of the tolerance may be wrong: rounding adds up, and a small difference can be a large one later. When a
search ends at a node that does nothing wrong, the least certain answer is doubted and its other half is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from apex_runtime.parity.bisect.slices import Graph
from apex_runtime.parity.tolerance import Floating

MOST_SLICES = 40  # a search that has not ended by then will not
# What rounding may do to the output of one node, in terms of the tolerance: nothing below it is called a fault. A convolution in
# float16 was seen at 0.24; in float32 the same node gives the same bits, unless another build of ONNX Runtime sums otherwise.
NOISE: dict[Floating, float] = {"fp32": 0.1, "fp16": 0.5, "bf16": 0.5}
_CLEAR = 100.0  # times the tolerance: beyond it no difference is clearer than another


@dataclass(frozen=True)
class Answer:
    """What a slice gave: for every tensor how far it lies from the reference's, or why the candidate's slice did not run."""

    excess: dict[str, float]
    error: str = ""

    @property
    def worst(self) -> float:
        """The largest of them, infinite for an error."""
        return math.inf if self.error else max(self.excess.values(), default=0.0)


# Given the tensors that are fed and those that are compared, both in a fixed order.
Probe = Callable[[Sequence[str], Sequence[str]], Answer]


@dataclass(frozen=True)
class Place:
    """``targets`` differ when the candidate is fed the reference's ``known``; ``threshold``: what counts as a difference."""

    known: frozenset[str]
    targets: tuple[str, ...]
    threshold: float = 1.0


@dataclass(frozen=True)
class Guilty:
    """``nodes``: numbers of the reference's nodes, one as a rule, several where the candidate has nothing between them."""

    nodes: tuple[int, ...]
    known: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class _Cut:
    """``compared``: where the candidate crosses the cut; ``known``: where either side does."""

    compared: tuple[str, ...]
    known: frozenset[str]


@dataclass(frozen=True)
class _Decision:
    place: Place
    cut: _Cut
    answer: Answer

    @property
    def before(self) -> bool:
        """Whether the fault is before the cut."""
        return self.answer.worst > self.place.threshold

    @property
    def doubt(self) -> float:
        """How far the answer is from the other one; infinite where nothing at all differed, or nothing ran."""
        worst = self.answer.worst
        return abs(math.log(worst / self.place.threshold)) if 0 < worst < math.inf else math.inf


class Search:
    """One search over two graphs whose common tensors bear the same names."""

    def __init__(self, reference: Graph, candidate: Graph, probe: Probe, noise: float = NOISE["fp32"]) -> None:
        self.reference, self.candidate, self.probe, self.noise = reference, candidate, probe, noise
        self._answers: dict[tuple[tuple[str, ...], tuple[str, ...]], Answer] = {}

    def run(self, place: Place) -> Guilty | None:
        """The guilty node behind a difference; None when every part alone does what the reference does."""
        decisions: list[_Decision] = []
        for _ in range(MOST_SLICES):
            cut = self._cut(place)
            if cut is None:
                guilty = self._guilty(place)
                if self._ask(guilty.known, guilty.targets).worst > place.threshold:
                    return guilty
                again = _doubted(decisions, self.noise)
                if again is None:
                    return None
                place = self._other(again)
            else:
                decision = _Decision(place, cut, self._ask(tuple(sorted(place.known)), cut.compared))
                decisions.append(decision)
                place = self._before(decision) if decision.before else _behind(decision)
        return None

    @property
    def slices(self) -> int:
        """How many slices were asked for so far."""
        return len(self._answers)

    def _ask(self, known: tuple[str, ...], compared: tuple[str, ...]) -> Answer:
        """No slice is asked for twice."""
        if (known, compared) not in self._answers:
            self._answers[known, compared] = self.probe(known, compared)
        return self._answers[known, compared]

    def _cut(self, place: Place) -> _Cut | None:
        """The cut nearest to the middle that the candidate crosses; None when there is none."""
        units = sorted(self.reference.walk(place.targets, place.known)[1])
        for size in _from_the_middle(len(units)):
            written = {name for at in units[:size] for name in self.reference.nodes[at].output if name}
            available = place.known | written
            theirs = self.candidate.walk(place.targets, available)[0]
            compared = theirs - place.known
            if compared:
                ours = self.reference.walk(place.targets, available)[0]
                return _Cut(tuple(sorted(compared, key=self._order)), frozenset(ours | theirs))
        return None

    def _before(self, decision: _Decision) -> Place:
        """Towards the first tensor that clearly differs: rounding from far up may have carried others over the tolerance. All of
        them when none can be told from the others."""
        answer, place = decision.answer, decision.place
        if answer.error:
            return replace(place, targets=decision.cut.compared)
        clear = max(place.threshold, math.sqrt(place.threshold * min(answer.worst, place.threshold * _CLEAR**2)))
        return replace(place, targets=(next(name for name in decision.cut.compared if answer.excess[name] >= clear),))

    def _other(self, decision: _Decision) -> Place:
        """The half that was not searched. Before the cut, half of what was seen there counts as a difference."""
        if decision.before:
            return _behind(decision)
        excess = decision.answer.excess
        worst = max(excess, key=lambda name: excess[name])
        return replace(decision.place, targets=(worst,), threshold=max(excess[worst] / 2, self.noise))

    def _guilty(self, place: Place) -> Guilty:
        """What writes the targets, on either side from the nearest tensors that both have."""
        common = (self.reference.producer.keys() & self.candidate.producer.keys()) | self.reference.inputs.keys()
        near = common - set(place.targets)
        ours, nodes = self.reference.walk(place.targets, near)
        theirs = self.candidate.walk(place.targets, near)[0]
        return Guilty(tuple(sorted(nodes)), tuple(sorted(ours | theirs)), place.targets)

    def _order(self, name: str) -> tuple[int, str]:
        return self.reference.producer.get(name, -1), name


def _behind(decision: _Decision) -> Place:
    """Fed at the cut. Targets that are there have been found to agree."""
    place, known = decision.place, decision.cut.known
    return replace(place, known=known, targets=tuple(name for name in place.targets if name not in known))


def _doubted(decisions: list[_Decision], noise: float) -> _Decision | None:
    """The least certain answer, taken from the list with all that followed from it."""
    doubtful = [at for at, item in enumerate(decisions) if item.answer.worst > noise and item.doubt < math.inf]
    if not doubtful:
        return None
    first = min(doubtful, key=lambda at: decisions[at].doubt)
    found = decisions[first]
    del decisions[first:]
    return found


def _from_the_middle(count: int) -> Iterator[int]:
    """1 to ``count`` - 1, those in the middle first."""
    return iter(sorted(range(1, count), key=lambda size: abs(2 * size - count)))
