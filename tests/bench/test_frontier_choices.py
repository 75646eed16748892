"""A line of the frontier looks at the tiles it says, and at nothing else."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from frontier_choices import Oracle, planned
from measured import letterboxed
from peripheral_only import without_tiles

from apex_runtime.backends.ort import OrtSession
from apex_runtime.frontier.choices import Line, by_coverage, forced, random_tiles
from apex_runtime.model_info import TileInfo
from apex_runtime.pipeline.predictor import Filter, Predictor
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_train.config import LossConfig
from apex_train.engine.tile_truth import TileTruth
from apex_train.model.info import model_info
from apex_train.predictor import TorchSession

SIZE = (192, 320)


def test_the_deployed_engine_spends_exactly_the_forced_tiles(repo_root: Path, dataset) -> None:
    predictor = Predictor(OrtSession(repo_root / "engines" / "nuclei-nano" / "model.onnx", threads=1))
    own = predictor.prepare(dataset.read_image(0), parse_budget(0.25))
    last = own.n_content - 1  # padding aside, the tiles the router is least likely to agree with are as good as any
    for choice in ([last], [3, 1, last], list(range(0, last, 2))):
        asked = forced(own, choice)
        found = predictor.finish(predictor.run([asked])[0], asked, Filter())
        assert sorted(found.tile_ids.tolist()) == sorted(choice)


def test_random_tiles_differ_by_seed_and_image_are_nested_and_leave_padding_out(dataset, model) -> None:
    _, box = letterboxed(dataset, 0, SIZE)
    content = content_tiles(box, model_info(model, *SIZE).tiles)
    shown = np.flatnonzero(content)
    assert len(shown) < len(content)
    draws = [random_tiles(shown, 4, seed, image) for seed in range(5) for image in (1, 2)]
    assert all(content[draw].all() and len(set(draw)) == 4 for draw in draws)
    assert len({tuple(sorted(draw)) for draw in draws}) > 6
    assert random_tiles(shown, 4, 3, 7) == random_tiles(shown, 4, 3, 7) == random_tiles(shown, 6, 3, 7)[:4]


def test_coverage_counts_centres_then_area_and_only_what_is_shown() -> None:
    tiles = TileInfo(tile=10, halo=0, rows=2, cols=3)
    boxes = np.array([[1, 1, 3, 3], [5, 5, 9, 9], [11, 1, 13, 3], [11, 11, 29, 13], [0, 0, 0, 0]], np.float32)[:4]
    # Centres: tile 0 two, tile 1 one (4 px), tile 5 one (9 px of the long box); tile 4 none, but 9 * 2 px of it.
    assert by_coverage(boxes, np.arange(6), tiles)[:5] == [0, 5, 1, 4, 2]
    assert by_coverage(boxes, np.array([1, 2, 4]), tiles) == [1, 4, 2]
    assert by_coverage(boxes[:0], np.arange(6), tiles) == list(range(6))


@pytest.mark.parametrize("ranking", ["background", "alone"])
def test_the_oracle_takes_the_tiles_of_the_largest_gains(model, dataset, ranking) -> None:
    batch, box = letterboxed(dataset, 1, SIZE)
    content = content_tiles(box, model_info(model, *SIZE).tiles)
    truth = TileTruth(model, batch, LossConfig(), content)
    for tiles in (2, 5):
        background = truth.router_choice(tiles) if ranking == "background" else []
        gains = truth.gains(background, np.flatnonzero(content).tolist())
        chosen = Oracle(truth, content, ranking).choose(tiles)
        assert len(chosen) == tiles and content[chosen].all()
        assert gains[chosen].min() >= np.nanmax(np.delete(gains, chosen))


class Covering:
    """A truth whose gains shrink: a choice covers points, the loss is what stays uncovered."""

    def __init__(self, tiles: int) -> None:
        rng = np.random.default_rng(tiles)
        self.covers = [set(rng.choice(60, 12, replace=False).tolist()) for _ in range(tiles)]
        self.asked = 0

    def loss(self, choice) -> float:
        return -float(len(set().union(*(self.covers[tile] for tile in choice))))

    def gains(self, background, candidates) -> np.ndarray:
        self.asked += len(candidates)
        found = np.full(len(self.covers), np.nan)
        for tile in candidates:
            found[tile] = self.loss(background) - self.loss([*background, tile])
        return found


def test_the_greedy_oracle_is_greedy_and_lazy() -> None:
    truth, expected = Covering(40), []
    for _ in range(12):
        rest = [tile for tile in range(40) if tile not in expected]
        expected.append(min(rest, key=lambda tile: (truth.loss([*expected, tile]), tile)))
    oracle = Oracle(truth, np.ones(40, bool), "greedy")
    assert oracle.choose(4) == expected[:4]
    assert [truth.loss(oracle.choose(k)) for k in (8, 12)] == [truth.loss(expected[:k]) for k in (8, 12)]
    assert truth.asked < 12 * 40 / 2


def test_every_budget_has_its_lines_once() -> None:
    lines = planned([parse_budget(0.25), parse_budget(0.5)], seeds=2)
    assert len(set(lines)) == len(lines) == 8
    assert [str(line) for line in lines[:4]] == ["random 0.25 0", "random 0.25 1", "oracle 0.25", "coverage 0.25"]
    assert all(a != b for a, b in combinations(map(str, [*lines, Line("dense")]), 2))


def test_the_peripheral_twin_is_the_line_without_tiles(model, dataset) -> None:
    batch, _ = letterboxed(dataset, 0, SIZE)
    images, bonus = batch.images.numpy(), np.zeros((1, 15), np.float32)
    today = TorchSession(model, *SIZE, peripheral_only=True).run(images, 3, bonus)
    twin = TorchSession(without_tiles(model), *SIZE).run(images, 3, bonus)
    looked = TorchSession(model, *SIZE).run(images, 3, bonus)
    for name in ("boxes", "scores", "mask_prototypes"):
        np.testing.assert_array_equal(today[name], twin[name])
        assert not np.array_equal(looked[name], twin[name])
    assert torch.equal(torch.from_numpy(looked["tile_ids"]), torch.from_numpy(twin["tile_ids"]))
