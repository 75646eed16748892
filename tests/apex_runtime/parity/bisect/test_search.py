"""The search over chains and diamonds whose errors are known: probes are answered by arithmetic, nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from apex_runtime.parity.bisect.search import MOST_SLICES, Answer, Guilty, Place, Search
from apex_runtime.parity.bisect.slices import Graph

LENGTH = 328  # nodes of the default engine
ALLOWED = 20


def graph(edges: Sequence[tuple[str, str]]) -> Graph:
    """``("a b", "c")``: a node that reads a and b and writes c. The input is x."""
    nodes = [helper.make_node("Sum", reads.split(), [writes]) for reads, writes in edges]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    last = helper.make_tensor_value_info(edges[-1][1], TensorProto.FLOAT, [1])
    return Graph(helper.make_model(helper.make_graph(nodes, "g", [value], [last])), Path("g.onnx"))


def chain(length: int) -> Graph:
    return graph([("x" if at == 0 else f"t{at - 1}", f"t{at}") for at in range(length)])


class Chain:
    """Errors of a chain: every node adds its own, ``grows`` multiplies what comes in."""

    def __init__(self, own: Callable[[int], float], grows: Callable[[int], float] = lambda at: 1.0) -> None:
        self.own, self.grows = own, grows
        self.asked: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def __call__(self, known: Sequence[str], compared: Sequence[str]) -> Answer:
        self.asked.append((tuple(known), tuple(compared)))
        numbers = [int(name[1:]) for name in known if name != "x"]
        found = {}
        for name in compared:
            error = 0.0
            for at in range(max((n for n in numbers if n < int(name[1:])), default=-1) + 1, int(name[1:]) + 1):
                error = error * self.grows(at) + self.own(at)
            found[name] = error
        return Answer(found)


def searched(probe: Chain, length: int = LENGTH) -> tuple[Guilty | None, int]:
    both = chain(length)
    search = Search(both, both, probe)
    return search.run(Place(frozenset({"x"}), (f"t{length - 1}",))), search.slices


@pytest.mark.parametrize("guilty", [0, 1, 100, 163, 164, 165, 326, 327])
def test_one_fault_in_a_chain(guilty: int) -> None:
    found, slices = searched(Chain(lambda at: 50.0 * (at == guilty)))
    assert found == Guilty((guilty,), (f"t{guilty - 1}" if guilty else "x",), (f"t{guilty}",))
    assert slices <= 11


def test_nothing_is_asked_twice() -> None:
    probe = Chain(lambda at: 50.0 * (at == 77))
    searched(probe)
    assert len(set(probe.asked)) == len(probe.asked)


@pytest.mark.parametrize("hidden", [2, 30])
def test_a_difference_that_vanishes_and_comes_back_is_followed_to_where_it_is_made(hidden: int) -> None:
    """The long way to the end hides the fault at its first node, as a Relu may; the short one, beside it, does not."""
    long_way = [(f"m{at}", f"m{at + 1}") for at in range(hidden)]
    both = graph([("x", "guilty"), ("guilty", "side"), ("guilty", "m0"), *long_way, (f"m{hidden} side", "end")])

    def differs(name: str, known: Sequence[str]) -> bool:
        if name in known or name.startswith("m"):
            return False
        return name == "guilty" or any(differs(read, known) for read in both.nodes[both.producer[name]].input)

    def probe(known: Sequence[str], compared: Sequence[str]) -> Answer:
        return Answer({name: 9.0 * differs(name, known) for name in compared})

    found = Search(both, both, probe).run(Place(frozenset({"x"}), ("end",)))
    assert found is not None and found.nodes == (0,)


@pytest.mark.parametrize("guilty", range(0, LENGTH, 37))
def test_rounding_that_adds_up_to_more_than_the_tolerance_misleads_only_for_a_while(guilty: int) -> None:
    found, slices = searched(Chain(lambda at: 50.0 if at == guilty else 0.005))
    assert found is not None and found.nodes == (guilty,)
    assert slices <= ALLOWED


@pytest.mark.parametrize("guilty", range(3, LENGTH - 40, 41))
def test_a_small_difference_that_grows_later_is_followed_back(guilty: int) -> None:
    found, slices = searched(Chain(lambda at: 0.3 * (at == guilty), lambda at: 200.0 if at == guilty + 30 else 1.0))
    assert found is not None and found.nodes == (guilty,)
    assert slices <= ALLOWED


def test_a_difference_that_no_part_makes_ends_without_a_node() -> None:
    class Whole(Chain):
        def __call__(self, known: Sequence[str], compared: Sequence[str]) -> Answer:
            super().__call__(known, compared)
            return Answer(dict.fromkeys(compared, 0.0))

    found, slices = searched(Whole(lambda at: 0.0))
    assert found is None and slices < MOST_SLICES


def test_only_what_leads_to_the_target_is_searched() -> None:
    both = graph([("x", "a"), ("x", "b"), ("a", "c"), ("b", "d"), ("c", "left"), ("d", "right"), ("left right", "end")])
    asked: list[str] = []

    def probe(known: Sequence[str], compared: Sequence[str]) -> Answer:
        asked.extend(compared)
        return Answer({name: 9.0 * (name in ("d", "right", "end") and "d" not in known) for name in compared})

    found = Search(both, both, probe).run(Place(frozenset({"x"}), ("right",)))
    assert found is not None and found.targets == ("d",) and found.known == ("b",)
    assert not {"a", "c", "left", "end"} & set(asked)


def test_a_node_that_the_candidate_lost_is_among_the_guilty() -> None:
    reference = graph([("x", "a"), ("a", "relu"), ("relu", "b"), ("relu b", "c"), ("c", "end")])
    candidate = graph([("x", "a"), ("a", "b"), ("a b", "c"), ("c", "end")])

    def probe(known: Sequence[str], compared: Sequence[str]) -> Answer:
        assert "relu" not in compared, "the candidate does not have it"
        return Answer({name: 0.0 if name == "a" or (name == "end" and "c" in known) else 9.0 for name in compared})

    found = Search(reference, candidate, probe).run(Place(frozenset({"x"}), ("end",)))
    assert found is not None
    assert found.nodes == (1, 2) and found.targets == ("b",) and found.known == ("a",)


def test_a_slice_that_does_not_run_counts_as_different() -> None:
    both = chain(16)

    def probe(known: Sequence[str], compared: Sequence[str]) -> Answer:
        first = max((int(name[1:]) for name in known if name != "x"), default=-1) + 1
        if any(first <= 9 <= int(name[1:]) for name in compared):
            return Answer({}, "it does not run")
        return Answer(dict.fromkeys(compared, 0.0))

    found = Search(both, both, probe).run(Place(frozenset({"x"}), ("t15",)))
    assert found is not None and found.nodes == (9,)
