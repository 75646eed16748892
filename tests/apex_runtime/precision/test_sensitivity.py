"""Regions are taken by what they buy, never beyond what may be lost, and every decision has a reason that holds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.errors import UsageError
from apex_runtime.precision.pinned import PINNED
from apex_runtime.precision.plan import plan_for
from apex_runtime.precision.sensitivity import Choice, Cost, candidates, choose

NAMES = ("boxes", "context", "foveal", "glance", "neck", "peripheral")


class World:
    """Regions of which one makes another worse or better; ``asked``: the sets that were measured, in turn."""

    def __init__(self, drops: dict[str, float], ratios: dict[str, float] | None, clash: float = 0.0) -> None:
        self.drops, self.ratios, self.clash = drops, ratios, clash
        self.asked: list[frozenset[str]] = []

    def __call__(self, regions: frozenset[str]) -> Cost:
        self.asked.append(regions)
        return self.cost(regions)

    def cost(self, regions: frozenset[str]) -> Cost:
        drop = math.fsum(self.drops[name] for name in regions) + self.clash * (len(regions) - 1)
        ratio = None if self.ratios is None else 1 - math.fsum(1 - self.ratios[name] for name in regions) / 2
        return Cost(drop_points=drop, time_ratio=ratio, tile_overlap=0.98)


def worlds(timed: bool) -> st.SearchStrategy[World]:
    drops = st.dictionaries(st.sampled_from(NAMES), st.floats(-0.3, 1.2).map(lambda value: round(value, 4)), max_size=6)

    def with_times(found: dict[str, float]) -> st.SearchStrategy[dict[str, float] | None]:
        return st.fixed_dictionaries({name: st.floats(0.6, 1.3) for name in found}) if timed else st.none()

    return drops.flatmap(lambda found: st.builds(World, st.just(found), with_times(found), st.floats(-0.1, 0.1)))


def chosen(world: World, max_drop: float, products: dict[str, int] | None = None) -> Choice:
    return choose(products or {name: 1 + len(name) % 4 for name in world.drops}, world, max_drop)


LIMITS = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@pytest.mark.parametrize("timed", [True, False])
def test_never_beyond_the_limit_and_never_slower(timed: bool) -> None:
    @given(worlds(timed), LIMITS)
    def check(world: World, max_drop: float) -> None:
        found = chosen(world, max_drop)
        if found.chosen:
            cost = world.cost(found.chosen)
            assert cost == found.cost and cost.drop_points <= max_drop
            assert cost.time_ratio is None or cost.time_ratio < 0.99
        else:
            assert found.cost is None

    check()


@pytest.mark.parametrize("timed", [True, False])
def test_each_set_is_measured_once_and_few_are(timed: bool) -> None:
    @given(worlds(timed), LIMITS)
    def check(world: World, max_drop: float) -> None:
        chosen(world, max_drop)
        assert len(world.asked) == len(set(world.asked)) <= max(2 * len(world.drops) - 1, 0)

    check()


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (-0.26, "gains 0.26 points by itself, 0 are allowed"),
        (-0.004, "loses 0.00 points by itself, 0 are allowed"),
        (0.004, "loses 0.0040 points by itself, 0 are allowed"),
        (0.13, "loses 0.13 points by itself, 0 are allowed"),
    ],
)
def test_a_sentence_agrees_with_its_decision(drop: float, words: str) -> None:
    (step,) = chosen(World({NAMES[0]: drop}, None, 0.0), 0.0).steps
    assert step.why == words and step.taken == (drop <= 0)


@given(worlds(timed=True), st.permutations(NAMES), LIMITS)
def test_the_order_of_the_regions_does_not_matter(world: World, order: list[str], max_drop: float) -> None:
    products = {name: len(name) for name in world.drops}
    shuffled = {name: products[name] for name in order if name in products}
    assert chosen(world, max_drop, shuffled) == chosen(world, max_drop, products)


@pytest.mark.parametrize("timed", [True, False])
def test_every_reason_holds(timed: bool) -> None:
    """The decisions are made again from the rows, by hand."""

    @given(worlds(timed), LIMITS)
    def check(world: World, max_drop: float) -> None:
        found = chosen(world, max_drop)
        assert [row.region for row in found.rows] == [step.region for step in found.steps]
        assert {row.region for row in found.rows} == set(world.drops)
        taken: set[str] = set()
        for row, step in zip(found.rows, found.steps, strict=True):
            alone, joint = world.cost(frozenset({row.region})), world.cost(frozenset({*taken, row.region}))
            before = world.cost(frozenset(taken)).time_ratio if taken else 1.0
            lost = [cost for cost in (alone, joint) if cost.drop_points > max_drop]
            slow = [
                cost
                for cost, was in ((alone, 1.0), (joint, before))
                if cost.time_ratio is not None and was is not None and cost.time_ratio >= was * 0.99
            ]
            assert step.taken == (not lost and not slow)
            assert step.taken or ("loses" if lost and (alone in lost or alone not in slow) else "no faster") in step.why
            if step.taken:
                taken.add(row.region)
        assert found.chosen == taken

    check()


@given(worlds(timed=False))
def test_without_times_the_smallest_drop_goes_first(world: World) -> None:
    drops = [max(row.drop_points, 0.05) for row in chosen(world, 0.5).rows]
    assert all(first <= second for first, second in pairwise(drops))


def test_without_times_more_products_break_a_tie() -> None:
    world = World({"boxes": 0.01, "neck": -0.2, "foveal": 0.04, "context": 0.06}, None)
    found = chosen(world, 0.5, {"boxes": 4, "neck": 1, "foveal": 11, "context": 50})
    assert [row.region for row in found.rows] == ["foveal", "boxes", "neck", "context"]


def test_time_saved_per_point_goes_first() -> None:
    """foveal saves most, but neck and boxes together save more for the same points."""
    drops = {"foveal": 0.5, "neck": 0.2, "boxes": 0.25}
    found = chosen(World(drops, {"foveal": 0.7, "neck": 0.8, "boxes": 0.8}), 0.5)
    assert [row.region for row in found.rows] == ["neck", "boxes", "foveal"]
    assert found.chosen == {"neck", "boxes"}
    assert found.steps[2].why == "loses 0.95 points with neck and boxes, 0.5 are allowed"


def test_what_costs_too_much_alone_is_not_tried_with_others() -> None:
    world = World({"foveal": 0.7, "neck": 0.1}, None, clash=-0.5)
    found = chosen(world, 0.5)
    assert found.chosen == {"neck"} and world.asked == [{"foveal"}, {"neck"}]
    assert found.steps[1].why == "loses 0.70 points by itself, 0.5 are allowed" and found.steps[1].together is None


def test_what_is_no_faster_is_left_and_the_record_says_why() -> None:
    found = chosen(World({"glance": -0.1, "neck": 0.2}, {"glance": 1.04, "neck": 0.99}), 0.5)
    reasons = {step.region: step.why for step in found.steps}
    assert reasons["glance"] == "makes the graph no faster by itself: 1.02x the time of fp32"
    assert "no faster" in reasons["neck"], "half of a hundredth is not faster"
    assert found.chosen == frozenset() and found.cost is None


def test_the_record_is_the_same_in_every_process() -> None:
    found = chosen(World(dict.fromkeys(NAMES, 0.01), None), 0.5)
    assert found.model_dump(mode="json")["chosen"] == sorted(NAMES)
    assert Choice.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("precision", "backend"), [("int8", "ort-cpu"), ("int8", "tensorrt"), ("fp8", "tensorrt")])
def test_candidates_are_what_rounds_something(shipped: OnnxFile, precision: str, backend: str) -> None:
    plan = plan_for(precision, backend)  # type: ignore[arg-type]
    assert plan is not None
    found = candidates(shipped.model, plan)
    assert {"peripheral", "foveal", "neck"} <= set(found) and not set(found) & set(PINNED)
    for region, conversion in found.items():
        assert conversion.placement.products
        assert {conversion.regions[name] for name in conversion.placement.products} == {region}
    assert ("context" in found) == (backend == "tensorrt"), "its results are read in full by the scan"


def test_pins_are_respected(shipped: OnnxFile) -> None:
    plan = plan_for("int8", "tensorrt", pins=("fovea", r"detector\.heads"))
    assert plan is not None
    found = candidates(shipped.model, plan)
    assert "peripheral" in found and not {"foveal", "boxes", "coefficients"} & set(found)
    with pytest.raises(UsageError, match="no region and no module"):
        wrong = plan_for("int8", "tensorrt", pins=("fovael",))
        assert wrong is not None
        candidates(shipped.model, wrong)
