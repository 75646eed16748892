"""Every line looks at the tiles it says, and the clock stands around what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apex_runtime.backends.session import Tiles, in_all
from apex_runtime.bundle.load import open_engine
from apex_runtime.data.coco.dataset import CocoDataset
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.contenders import ALL, DENSE, PERIPHERAL, SLICED, EngineContender, Wanted
from apex_runtime.frontier.measure import WARM_UP, find, time_all, view_of
from apex_runtime.routing.budget import parse_budget

WANTED = Wanted((parse_budget(0.25), parse_budget(0.5)), seeds=2, min_score=0.001, limit=100)


class Watched:
    """A session that keeps the tiles that it was asked for."""

    def __init__(self, session: object) -> None:
        self._session = session
        self.calls: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append((len(images), in_all(tiles)))
        return self._session.run(images, tiles, tile_bonus)  # type: ignore[attr-defined]


@pytest.fixture
def engine(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "model.onnx"


@pytest.fixture
def dataset(nuclei_fixture: Path) -> CocoDataset:
    return open_fixture(nuclei_fixture)


def open_fixture(folder: Path) -> CocoDataset:
    from apex_runtime.data.open import open_dataset

    return open_dataset(folder, "val", "coco")


def test_lines_spend_the_router_s_tiles_and_choose_what_they_say(engine: Path, dataset) -> None:
    opened = open_engine(engine, threads=1)
    contender = EngineContender(engine.name, engine, opened, {}, sliced=False)
    view = view_of(dataset, 0)
    seen = dict(contender.look(view, WANTED))
    assert set(seen) == set(contender.lines(WANTED))
    for budget in WANTED.budgets:
        lines = [
            Line("router", budget.asked),
            Line("random", budget.asked, 0),
            Line("random", budget.asked, 1),
            Line("coverage", budget.asked),
        ]
        chosen = [frozenset(seen[line].tile_ids.tolist()) for line in lines]
        assert len({len(each) for each in chosen}) == 1 and len(chosen[0]) == contender.tiles[lines[0]][0]
        assert len(set(chosen)) >= 3, "ways to choose differ"
    few, more = (frozenset(seen[Line("random", budget.asked, 0)].tile_ids.tolist()) for budget in WANTED.budgets)
    assert few < more, "nested"
    # the tiles with most objects have more centres of objects than the same number of random ones
    tiles = opened.session.info.tiles
    box = seen[ALL].letterbox
    centres = (view.boxes[:, :2] + view.boxes[:, 2:]) / 2 * np.array(box.scales[::-1])
    of_tile = (centres[:, 1] // tiles.tile * tiles.cols + centres[:, 0] // tiles.tile).astype(int)
    hit = {
        kind: np.isin(of_tile, seen[Line(kind, "0.25", seed)].tile_ids).sum()
        for kind, seed in (("coverage", None), ("random", 0))
    }
    assert hit["coverage"] > hit["random"]


def test_twins_and_windows_are_lines_of_their_own_and_never_the_engine_s_time(engine: Path, dataset) -> None:
    opened = open_engine(engine, threads=1)
    twin, other = Watched(opened.session), Watched(opened.session)
    twins = {PERIPHERAL: replace(opened, session=twin), DENSE: replace(opened, session=other)}
    contender = EngineContender(engine.name, engine, opened, twins, sliced=True)
    view = view_of(dataset, 0)
    seen = dict(contender.look(view, Wanted((), 0, 0.001, 100)))
    assert set(seen) == {ALL, PERIPHERAL, DENSE, SLICED} and len(twin.calls) == len(other.calls) == 1
    found, graph = contender.once(SLICED, view.image_HW3, parse_budget(1.0), WANTED)
    assert len(found) == 1 and graph > 0 and len(twin.calls) == 1
    contender.once(PERIPHERAL, view.image_HW3, parse_budget(1.0), WANTED)
    assert len(twin.calls) == 2 and len(other.calls) == 1


def test_results_are_in_the_classes_of_the_data(engine: Path, dataset) -> None:
    contender = EngineContender(engine.name, engine, open_engine(engine, threads=1), {}, sliced=False)
    done: list[int] = []
    indices = [0, 1]
    results = find(contender, dataset, indices, Wanted((parse_budget(0.25),), 0, 0.3, 100), lambda: done.append(1))
    assert len(done) == 2
    ids = {category.id for category in dataset.categories}
    for entries in results.values():
        assert {entry["image_id"] for entry in entries} <= {dataset.records[index].image_id for index in indices}
        assert entries and {entry["category_id"] for entry in entries} <= ids


def test_every_timed_line_has_its_turn_on_the_same_image(engine: Path, dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    contender = EngineContender(engine.name, engine, open_engine(engine, threads=1), {}, sliced=False)
    seen: list[tuple[str, int]] = []
    real: Callable = contender.once

    def once(line: Line, image: np.ndarray, budget: object, wanted: Wanted) -> object:
        seen.append((str(line), int(image.astype(np.int64).sum())))
        return real(line, image, budget, wanted)

    monkeypatch.setattr(contender, "once", once)
    wanted, turns = Wanted((parse_budget("1"),), 0, 0.3, 100), []
    (times,) = time_all([contender], dataset, [0, 1], wanted, 3, lambda: turns.append(1))
    rounds = 3 + WARM_UP
    assert len(turns) == 2 * rounds and [name for name, _ in seen] == ["router 1", "router 1", "all tiles", "all tiles"] * rounds
    images = [image for _, image in seen]
    assert all(len(set(images[4 * r : 4 * r + 4])) == 1 for r in range(rounds)), "one image a round"
    assert len(set(images)) == 2 and images[0] == images[8] != images[4]
    for each in times.values():
        assert len(each.image) == len(each.graph) == 3 and all(0 < g < i for g, i in zip(each.graph, each.image, strict=True))
