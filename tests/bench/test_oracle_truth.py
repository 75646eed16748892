"""The fast truth of a tile is the slow one: forward passes of the whole network with the choice forced, and their losses."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import router_oracle
import torch
from click.testing import CliRunner
from measured import letterboxed, same_classes, spread
from scipy.stats import spearmanr

from apex_runtime.errors import UsageError
from apex_runtime.routing.grid import content_tiles, padding_bonus
from apex_train.checkpoint import save_checkpoint
from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.engine.evaluate import whole_pictures
from apex_train.engine.schedule import FORCE
from apex_train.engine.tile_truth import TileTruth
from apex_train.losses.compute import Matcher, detection_terms
from apex_train.model.detector import ApexDetector, HeadOutputs
from apex_train.model.info import model_info

SIZE = (192, 320)
COUNT = 15
ALL = np.ones(COUNT, bool)


@torch.inference_mode()
def slow_loss(model: ApexDetector, batch: Batch, config: LossConfig, choice: Collection[int]) -> float:
    matcher = Matcher(forward(model, batch, range(COUNT)), batch, config)
    return float(detection_terms(forward(model, batch, choice), batch, matcher, config).loss_B) / max(1, batch.objects)


def forward(model: ApexDetector, batch: Batch, choice: Collection[int]) -> HeadOutputs:
    bonus = torch.full((1, COUNT), -FORCE)
    bonus[0, list(choice)] = FORCE
    outputs = model(batch.images, max(1, len(choice)), bonus, with_peripheral=True)
    assert outputs.peripheral is not None
    return outputs.heads if choice else outputs.peripheral


@pytest.mark.parametrize(
    "config",
    [LossConfig(), LossConfig(mask_lovasz=1.0, mask_boundary=1.0, mask_multiscale=1.0, box_kind="giou", top_many=3)],
    ids=["default", "all mask terms"],
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_state_has_the_loss_of_a_whole_forward_pass(model, dataset, config: LossConfig, index: int) -> None:
    batch, _ = letterboxed(dataset, index, SIZE)
    truth = TileTruth(model, batch, config, ALL)
    choices = [(), (7,), (0, 4, 9), (14, 3, 8), tuple(range(15))]
    expected = np.array([slow_loss(model, batch, config, choice) for choice in choices])
    assert len(set(expected.round(4))) == len(choices)  # the states differ by more than the tolerance
    np.testing.assert_allclose(truth.losses(choices), expected, rtol=1e-5, atol=1e-4)


def test_a_gain_is_loss_without_minus_loss_with(model, dataset) -> None:
    batch, _ = letterboxed(dataset, 0, SIZE)
    truth = TileTruth(model, batch, LossConfig(), ALL)
    found = truth.gains({2, 6}, [2, 5])
    lost = {choice: slow_loss(model, batch, LossConfig(), choice) for choice in [(2, 6), (6,), (2, 5, 6)]}
    assert np.flatnonzero(np.isfinite(found)).tolist() == [2, 5]
    assert found[2] == pytest.approx(lost[(6,)] - lost[(2, 6)], abs=1e-4)
    assert found[5] == pytest.approx(lost[(2, 6)] - lost[(2, 5, 6)], abs=1e-4)


def test_objects_that_are_only_boxes_and_images_without_any(model, dataset) -> None:
    batch, _ = letterboxed(dataset, 0, SIZE)
    boxes_only = Batch(**(vars(batch) | {"has_mask": torch.zeros_like(batch.has_mask)}))
    empty = Batch(**(vars(boxes_only) | {"labels": torch.full_like(batch.labels, -1)}))
    for each in (boxes_only, empty):
        got = TileTruth(model, each, LossConfig(), ALL).losses([(1, 2)])[0]
        assert got == pytest.approx(slow_loss(model, each, LossConfig(), (1, 2)), abs=1e-4)


def test_the_routers_choice_is_that_of_the_network_and_leaves_padding_out(model, dataset) -> None:
    batch, box = letterboxed(dataset, 0, SIZE)
    content = content_tiles(box, model_info(model, *SIZE).tiles)
    assert 0 < content.sum() < len(content)
    with torch.inference_mode():
        ids = model(batch.images, 5, torch.from_numpy(padding_bonus(content))[None]).tile_ids[0].tolist()
    choice = TileTruth(model, batch, LossConfig(), content).router_choice(5)
    assert choice == ids and content[choice].all()


def test_a_letterboxed_image_has_the_objects_that_training_measures(dataset) -> None:
    for index in range(len(dataset)):
        mine, theirs = letterboxed(dataset, index, (256, 256))[0], whole_pictures(dataset, range(index, index + 1), (256, 256))
        assert torch.equal(mine.labels, theirs.labels) and torch.equal(mine.masks, theirs.masks)
        torch.testing.assert_close(mine.boxes, theirs.boxes, atol=1.0, rtol=0)  # sides may round to another whole pixel


def test_classes_in_another_order_are_refused(dataset) -> None:
    same_classes(dataset.categories, dataset)
    with pytest.raises(UsageError, match="are not those of the checkpoint"):
        same_classes((dataset.categories[0].model_copy(update={"name": "cell"}),), dataset)


def test_images_are_spread_over_the_list() -> None:
    assert spread(list(range(10)), 4) == [0, 3, 6, 9] and spread([5, 7], 4) == [5, 7] and spread([5, 7], None) == [5, 7]


def test_the_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 9, 30).astype(float), rng.normal(size=30)
        assert router_oracle.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_the_ratio_to_the_ceiling_is_one_of_means_and_its_interval_shrinks_with_images() -> None:
    rng = np.random.default_rng(0)
    rows = [{"router": float(r), "ceiling": float(r + 0.4), "mean_brightness": 0.0} for r in rng.normal(0.3, 0.2, 200)] + [
        {"router": float("nan"), "ceiling": 1.0, "mean_brightness": 0.0}
    ]
    few, many = (router_oracle.summary(part)["router over ceiling"] for part in (rows[:20], rows))
    good = [row for row in rows if np.isfinite(row["router"])]
    ratio = np.mean([row["router"] for row in good]) / np.mean([row["ceiling"] for row in good])
    assert many.value == pytest.approx(ratio) and many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low


def test_the_program_runs_on_an_oblong_input(model, nuclei_fixture: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", model, model.config)
    words = [
        str(tmp_path / "a.pt"),
        str(nuclei_fixture),
        "--images",
        "2",
        "--size",
        "192x320",
        "--output",
        str(tmp_path / "o.json"),
    ]
    done = CliRunner().invoke(router_oracle.main, words, catch_exceptions=False)
    assert done.exit_code == 0 and "router over ceiling" in done.output and (tmp_path / "o.json").is_file()
