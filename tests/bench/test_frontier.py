"""The frontier measures what its rows say: one engine, paired resamples, and the figures of the common evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import frontier
import numpy as np
import pytest
from click.testing import CliRunner
from dense import densify
from frontier_figures import averaged, summary
from frontier_run import ALL, DENSE, PERIPHERAL, SLICED, Engines, Plan, measure_lines
from frontier_speed import Speed, time_lines
from peripheral_only import without_tiles

from apex_runtime.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from apex_runtime.evaluation.coco_ap import evaluate_predictor
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.figures import interval, resamples, sampled
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget
from apex_runtime.yardsticks.slicing import Slicing
from apex_train.checkpoint import save_checkpoint
from apex_train.predictor import TorchSession

SIZE = (192, 320)


@pytest.fixture(scope="module")
def plan(dataset) -> Plan:
    budgets = (parse_budget(0.25), parse_budget(0.5))
    return Plan(dataset, [0, 2], ("bbox", "segm"), 100, SIZE, budgets, 2, "alone", Slicing(128, size=SIZE), 1)


def torch_engines(trained, plan: Plan) -> SimpleNamespace:
    """The graphs before their export, which a slow test does."""
    side = (plan.slicing.side, plan.slicing.side)
    twins = {"peripheral": without_tiles(trained), "dense": densify(trained)}
    sessions = {name: TorchSession(twin, *plan.size) for name, twin in twins.items()}
    return SimpleNamespace(routed=TorchSession(trained, *plan.size), window=TorchSession(densify(trained), *side), **sessions)


@pytest.fixture(scope="module")
def measured(trained, plan):
    return measure_lines(trained, torch_engines(trained, plan), plan, lambda text: None)


@pytest.fixture(scope="module")
def lines(measured, plan):
    return sampled(measured.matches, resamples(len(plan.indices), 50))


def test_every_line_is_measured_and_spends_its_share_of_the_tiles_that_show_the_image(measured, plan) -> None:
    kinds = {(line.kind, line.budget) for line in measured.matches}
    of_budget = {(kind, budget.asked) for kind in ("router", "random", "oracle", "coverage") for budget in plan.budgets}
    assert kinds == of_budget | {(line.kind, None) for line in (ALL, PERIPHERAL, DENSE, SLICED)}
    shown = measured.tiles[ALL]
    assert shown < 15  # the images are square, the input is not
    for budget in plan.budgets:
        assert measured.tiles[Line("router", budget.asked)] <= budget.value * shown
    assert measured.windows >= 2


def test_the_figures_are_those_of_the_common_evaluation(trained, dataset, plan, lines, measured) -> None:
    whole = replace(plan, indices=list(range(len(dataset))))
    assert len(whole.indices) == 3
    full = sampled(
        measure_lines(trained, torch_engines(trained, whole), replace(whole, budgets=plan.budgets[:1]), print).matches,
        resamples(3, 1),
    )
    for line, session, budget in (
        (ALL, TorchSession(trained, *SIZE), 1.0),
        (Line("router", "0.25"), TorchSession(trained, *SIZE), 0.25),
        (PERIPHERAL, TorchSession(trained, *SIZE, peripheral_only=True), 1.0),
        (DENSE, TorchSession(densify(trained), *SIZE), 1.0),
    ):
        expected = evaluate_predictor(Predictor(session), dataset, budget, max_detections=plan.limit)
        for kind in plan.kinds:
            assert expected[f"mAP_{kind}"] > 0.1
            assert full[line][f"AP50_{kind}"][0] == pytest.approx(expected[f"AP50_{kind}"], abs=1e-6)
            assert full[line][f"AP_{kind}"][0] == pytest.approx(expected[f"mAP_{kind}"], abs=1e-6)


def test_an_engine_that_ignores_the_bonus_is_found_out(trained, plan) -> None:
    class Deaf(TorchSession):
        def run(self, images, tiles, tile_bonus):
            return super().run(images, tiles, np.zeros_like(tile_bonus))

    engines = torch_engines(trained, plan)
    engines.routed = Deaf(trained, *plan.size)
    with pytest.raises(RuntimeError, match="looked at other tiles"):
        measure_lines(trained, engines, plan, lambda text: None)


def test_intervals_are_those_of_the_bootstrap_of_the_evaluation(measured, plan) -> None:
    matches = {line: kinds["segm"] for line, kinds in measured.matches.items() if line in (ALL, SLICED)}
    found = sampled({line: {"segm": each} for line, each in matches.items()}, resamples(len(plan.indices), 80))
    one = bootstrap_interval(matches[ALL], "AP50", samples=80)
    two = paired_bootstrap(matches[SLICED], matches[ALL], samples=80)
    assert interval(found[ALL]["AP50_segm"]) == one
    assert interval(found[ALL]["AP_segm"] - found[SLICED]["AP_segm"]) == two


def test_random_is_the_mean_of_its_seeds_and_checkpoints_are_averaged(lines) -> None:
    name, budget = "AP50_bbox", "0.5"
    seeds = [lines[Line("random", budget, seed)][name] for seed in (0, 1)]
    np.testing.assert_allclose(lines[Line("random", budget)][name], np.mean(seeds, 0))
    other = {line: {key: values + 0.1 for key, values in figures.items()} for line, figures in lines.items()}
    np.testing.assert_allclose(averaged([lines, other])[ALL][name], lines[ALL][name] + 0.05)


def test_the_summary_answers_with_quotients_and_differences_of_paired_resamples() -> None:
    values = {
        Line("router", "0.25"): [0.6, 0.6, 0.5, 0.7],
        Line("random", "0.25"): [0.4, 0.4, 0.4, 0.4],
        Line("oracle", "0.25"): [0.8, 0.8, 0.8, 0.4],  # in the last resample no better than random
        Line("coverage", "0.25"): [0.3, 0.3, 0.3, 0.3],  # never
        ALL: [0.8, 0.8, 0.5, 1.0],
        PERIPHERAL: [0.2, 0.3, 0.1, 0.0],
        DENSE: [0.8, 0.8, 0.5, 1.0],
        SLICED: [0.9, 0.9, 0.6, 1.1],
    }
    lines = {line: {f"{name}_bbox": np.array(v) for name in ("AP50", "AP")} for line, v in values.items()}
    found = summary(lines, ["0.25"], "bbox")
    assert found["kept"]["0.25"]["AP50"]["value"] == pytest.approx(0.75)
    captured = found["captured"]["0.25"]["AP50"]
    assert captured["value"] == pytest.approx(0.5) and captured["undefined"] == pytest.approx(1 / 3)
    assert 0.25 <= captured["low"] < captured["high"] <= 0.5
    assert found["captured of coverage"]["0.25"]["AP"] == {"low": None, "value": None, "high": None, "undefined": 1.0}
    assert found["all tiles minus"]["peripheral"]["AP"]["value"] == pytest.approx(0.6)
    assert found["all tiles minus"]["sliced"]["AP50"]["value"] == pytest.approx(-0.1)
    json.dumps(found, allow_nan=False)


def test_a_budget_is_timed_at_the_tiles_it_gave_and_sliced_at_its_windows(trained, plan) -> None:
    calls: list[tuple[str, int, int]] = []

    def session(name: str) -> SimpleNamespace:
        info = TorchSession(trained, *SIZE).info
        return SimpleNamespace(info=info, run=lambda images, tiles, bonus: calls.append((name, len(images), tiles)))

    engines = SimpleNamespace(**{name: session(name) for name in ("routed", "peripheral", "dense", "window")})
    tiles = {ALL: 11.8, Line("router", "0.25"): 2.6, Line("random", "0.25"): 2.6}
    speed = time_lines(engines, tiles, 5.5, rounds=2, warmup=0)
    assert speed.subject_of[ALL] == "K=12" and speed.subject_of[Line("router", "0.25")] == "K=3"
    assert set(calls) == {("routed", 1, 3), ("routed", 1, 12), ("peripheral", 1, 1), ("dense", 1, 1), ("window", 6, 1)}
    assert {len(values) for values in speed.samples.values()} == {2}


def test_the_time_over_all_tiles_is_paired_within_a_round() -> None:
    speed = Speed({"K=9": [10.0, 20.0, 40.0], "dense": [5.0, 10.0, 20.0]}, {ALL: "K=9", DENSE: "dense"})
    found = speed.of_lines()[DENSE]
    assert found["ms"] == 10.0 and found["over_all_tiles"] == {"low": 0.5, "value": 0.5, "high": 0.5}


@pytest.mark.slow
def test_the_program_writes_table_file_and_picture_of_several_trainings(
    trained, nuclei_fixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "Engines", torch_engines)
    other = densify(trained)
    other.heads[0].one.weight.data.mul_(0.5)
    for name, each in (("a.pt", trained), ("b.pt", other)):
        save_checkpoint(tmp_path / name, each, trained.config)
    words = [str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), "--data", str(nuclei_fixture), "--split", "val", "--images", "2"]
    words += ["--size", "192x320", "--budget", "0.5,1.0", "--seeds", "2", "--rounds", "2", "--warmup", "0", "--samples", "20"]
    done = CliRunner().invoke(
        frontier.main, [*words, "--output", str(tmp_path / "f.json"), "--plot", str(tmp_path / "f.png")], catch_exceptions=False
    )
    assert done.exit_code == 0 and "captured" in done.output and "peripheral" in done.output
    content = json.loads((tmp_path / "f.json").read_text())
    assert len(content["contract"]["checkpoints"]) == 2 and content["contract"]["size"] == [192, 320]
    assert [row["budget"] for row in content["rows"] if row["line"] == "router"] == ["0.5"]  # 1.0 is the line of all tiles
    for place, row in enumerate(content["rows"]):
        each = [rows[place]["AP50_bbox"]["value"] for rows in content["each_checkpoint"]]
        assert row["AP50_bbox"]["value"] == pytest.approx(np.mean(each)) and row["ms"] > 0
    assert len({rows[0]["AP_bbox"]["value"] for rows in content["each_checkpoint"]}) == 2
    picture = cv2.imread(str(tmp_path / "f.png"))
    assert picture is not None and picture.shape[1] > 1000 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("budget", ["1.0", "16", "0.25,8"])
def test_budgets_are_shares_below_all_tiles(trained, nuclei_fixture: Path, tmp_path: Path, budget: str) -> None:
    save_checkpoint(tmp_path / "a.pt", trained, trained.config)
    words = [str(tmp_path / "a.pt"), "--data", str(nuclei_fixture), "--split", "val", "--budget", budget]
    assert "give shares of the tiles" in CliRunner().invoke(frontier.main, words).output


@pytest.mark.slow
def test_the_exported_graphs_give_what_torch_gives(trained, plan) -> None:
    exported, torch_form = Engines(trained, plan), torch_engines(trained, plan)
    for name in ("routed", "peripheral", "dense", "window"):
        engine, session = getattr(exported, name), getattr(torch_form, name)
        size = (engine.info.input.height, engine.info.input.width)
        images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
        feeds = (images, 2, np.zeros((3, engine.info.tiles.count), np.float32))
        np.testing.assert_allclose(engine.run(*feeds)["scores"], session.run(*feeds)["scores"], atol=1e-4, err_msg=name)
