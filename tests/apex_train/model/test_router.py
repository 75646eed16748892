"""What the router knows: the evidence that the heads find from afar, and nothing that flows back into them."""

from __future__ import annotations

import pytest
import torch

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.compute import compute_training_losses
from apex_train.losses.oracle import OracleLabels
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector
from apex_train.model.router import Router, evidence_map


def picture(images: int = 2, side: int = 128) -> torch.Tensor:
    return torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_evidence_against_a_loop() -> None:
    torch.manual_seed(0)
    logits = [torch.randn(1, 3, 8 >> n, 4 >> n) for n in range(3)]
    found = evidence_map(logits)
    for row in range(8):
        for column in range(4):
            p = [float(item[0, :, row >> n, column >> n].max().sigmoid()) for n, item in enumerate(logits)]
            expected = sum(x / 4**n for n, x in enumerate(p))
            doubt = sum(x * (1 - x) / 4**n for n, x in enumerate(p))
            assert found[0, :, row, column].tolist() == pytest.approx([expected, max(p), doubt], rel=1e-5)


def test_the_evidence_of_a_picture_adds_up_to_what_all_cells_expect() -> None:
    logits = [torch.randn(2, 1, 16 >> n, 16 >> n) for n in range(3)]
    total = sum(item.sigmoid().sum() for item in logits)
    assert float(evidence_map(logits)[:, 0].sum()) == pytest.approx(float(total), rel=1e-5)


def test_a_tile_is_scored_by_its_own_cells_alone() -> None:
    torch.manual_seed(0)
    router, evidence = Router(cells=4).eval(), torch.rand(1, 3, 8, 12)
    before = router(evidence)
    changed = evidence.clone()
    changed[:, :, 4:, 4:8] += 0.3  # tile 4 of 2 x 3
    assert torch.nonzero((router(changed) - before).abs() > 1e-6)[:, 1].tolist() == [4]


def test_utilities_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    router, evidence = Router(cells=4), torch.rand(1, 3, 8, 8)
    plain = router(evidence)
    with torch.autocast("cpu", torch.bfloat16):
        cast = router(evidence)
    assert cast.dtype == torch.float32 and torch.equal(cast, plain)
    assert torch.equal(router(evidence.bfloat16().float()), router(evidence.bfloat16()))


def test_looking_for_evidence_changes_no_statistics_and_no_mode() -> None:
    torch.manual_seed(0)
    model = ApexDetector(ModelConfig()).train()
    model.heads[1].eval()
    modes = [module.training for module in model.modules()]
    levels = model.peripheral(model.normalise(picture()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.evidence(*levels)
    assert not found.requires_grad and [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(found, model.eval().evidence(*levels))


def test_what_the_oracle_teaches_stays_in_the_router() -> None:
    torch.manual_seed(0)
    model = ApexDetector(ModelConfig()).train()
    images = picture()
    nothing = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels = torch.full((2, 1), -1)
    batch = Batch(images, torch.zeros(2, 1, 4), labels, nothing[:, None], labels >= 0, nothing, [0, 1])
    outputs = model(images, 4, torch.zeros(2, 4))
    taught = OracleLabels(torch.arange(2), torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1.0, 0.0], [0.2, 3.0]]), 1.0)
    _, terms = compute_training_losses(outputs, batch, LossConfig(), labels=[taught])
    terms["oracle"].backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert moved and all(name.startswith("router.") for name in moved)
