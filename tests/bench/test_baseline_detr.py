"""The DETR-like baseline with a tiny network: boxes of masks, a loss to learn from, an export that answers the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra baselines is not installed")

from baselines.answers import write_yardstick
from baselines.detr import description
from baselines.detr_network import MEAN, STD, Answering, boxes_of, build, loss_of, write_graph
from baselines.detr_program import rate_at
from measured import letterboxed

from apex_runtime.data.open import open_dataset
from apex_runtime.yardsticks.yardstick import Yardstick

TINY = {
    "backbone": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32),
    **dict.fromkeys(("encoder_feedforward_dim", "dim_feedforward"), 32),
    **{"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 20, "train_num_points": 128},
}


def test_boxes_are_around_the_ones() -> None:
    masks = torch.zeros(1, 2, 8, 16)
    masks[0, 0, 2:5, 4:12] = 1
    boxes = boxes_of(masks)
    assert boxes[0, 0].tolist() == [4 / 16, 2 / 8, 12 / 16, 5 / 8]
    left, top, right, bottom = boxes[0, 1].tolist()
    assert right - left <= 0 and bottom - top <= 0, "of nothing"


def test_the_rate_rises_and_is_at_its_end_when_the_limit_is() -> None:
    learning = {"warmup": 0.1, "final_rate": 0.01}
    assert rate_at(0.05, learning) == pytest.approx(0.5) and rate_at(0.1, learning) == pytest.approx(1)
    assert rate_at(1.0, learning) == rate_at(1.2, learning) == pytest.approx(0.01)


def test_the_description_knows_what_the_network_was_taught_with() -> None:
    assert (tuple(description(["a"])["input"]["mean"]), tuple(description(["a"])["input"]["std"])) == (MEAN, STD)


def test_it_learns_from_our_batches(nuclei_fixture: Path) -> None:
    torch.manual_seed(0)
    batch, _ = letterboxed(open_dataset(nuclei_fixture, "train"), 0, (128, 128))
    network = build(TINY, ("nucleus",), None).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = loss_of(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert torch.isfinite(loss_of(network, batch.pick(torch.tensor([0])))), "one image"


def test_the_export_answers_as_the_network_does(nuclei_fixture: Path, tmp_path: Path) -> None:
    """Through the yardstick: letterbox, mean and deviation, scores and masks are where the network has them."""
    torch.manual_seed(0)
    dataset = open_dataset(nuclei_fixture, "val")
    network = build(TINY, ("nucleus",), None).eval()
    assert write_graph(network, 128, str(tmp_path / "model.onnx")) < 1e-4
    network.save_pretrained(tmp_path / "weights")
    again = build({}, ("nucleus",), str(tmp_path / "weights")).eval()
    yardstick = Yardstick(write_yardstick(tmp_path, description(["nucleus"]), None), threads=1)
    (found,) = yardstick.predict([dataset.read_image(0)], min_score=0.0)
    batch, box = letterboxed(dataset, 0, (128, 128))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        boxes, scores, _ = Answering(again)((batch.images.permute(0, 3, 1, 2).float() / 255 - mean) / std)
    order = scores[0, :, 0].argsort(descending=True)
    np.testing.assert_allclose(found.scores, scores[0, order, 0], atol=0.02)
    height, width = dataset.records[0].height, dataset.records[0].width
    vertical, horizontal = box.scales
    expected = boxes[0, order[0]].numpy() * 128 / np.array([horizontal, vertical] * 2)
    np.testing.assert_allclose(found.boxes[0], expected.clip(0, [width, height] * 2), atol=4 / min(box.scales) + 1)
