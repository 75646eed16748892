"""What a step tells about the routing, against its formulas in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from apex_train.config import load_config
from apex_train.engine.routing import RoutingFigures
from apex_train.losses.oracle import OracleLabels
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector, HeadOutputs, Outputs
from apex_train.model.info import count_gflops

NOTHING = HeadOutputs(*(torch.zeros(0) for _ in range(5)))
UTILITIES = torch.tensor([[3.0, -1.0, 0.5, -4.0], [0.0, -2.0, -0.1, 100.0]])


@pytest.fixture(scope="module")
def model() -> ApexDetector:
    return ApexDetector(ModelConfig())


def outputs(tiles: int) -> Outputs:
    ids = torch.arange(tiles).expand(2, tiles)
    return Outputs(NOTHING, UTILITIES, ids, torch.full((2, tiles, 1, 8, 8), 0.75))


def test_the_figures_are_their_formulas(model: ApexDetector) -> None:
    config = load_config(None, {"train.crop": 128, "routing.share": 0.5})
    figures = RoutingFigures(model, config)
    labels = OracleLabels(torch.tensor([1]), torch.tensor([[0, 1, 3]]), torch.tensor([[0.1, 0.2, 5.0]]), 1.0)
    found = dict(zip(figures.names, figures.of(outputs(3), 1.0, (labels,)).tolist(), strict=True))
    gflops = count_gflops(model, 128, 128)
    p = [1 / (1 + math.exp(-u)) for u in UTILITIES.flatten().tolist()]
    bits = [-sum(q * math.log2(q) for q in (x, 1 - x) if q > 0) for x in p]
    assert found["alpha"] == 0.75 and found["utilisation"] == 3 / 8
    assert found["entropy"] == pytest.approx(sum(bits) / 8, rel=1e-5)
    assert found["expected_gflops"] == pytest.approx(gflops.base + gflops.per_tile * sum(p) / 2, rel=1e-5)
    assert found["spent_gflops"] == pytest.approx(gflops.base + 3 * gflops.per_tile, rel=1e-5)
    assert found["budget_excess"] == pytest.approx(sum(p) / 2 / 2 - 1, rel=1e-5)
    assert found["oracle_rank"] == pytest.approx(0.5)  # utilities 0, -2, 100: ranks 2, 1, 3 against 1, 2, 3


def test_parts_add_up_and_a_constant_knows_nothing(model: ApexDetector) -> None:
    figures = RoutingFigures(model, load_config(None, {"train.crop": 128}))
    ids, gains = torch.tensor([[0, 1, 3], [0, 1, 2]]), torch.tensor([[0.1, 0.1, 0.1], [3.0, 0.2, 1.0]])
    whole = figures.of(outputs(2), 1.0, (OracleLabels(torch.arange(2), ids, gains, 1.0),))
    parts = [
        figures.of(outputs(2), 0.5, (OracleLabels(torch.tensor([b]), ids[b : b + 1], gains[b : b + 1], 0.5),)) for b in (0, 1)
    ]
    assert torch.allclose(parts[0] + parts[1], whole)
    assert float(parts[0][-1]) == 0 and float(parts[1][-1]) == pytest.approx(0.5 * 1.0)


def test_without_an_oracle_there_is_no_correlation(model: ApexDetector) -> None:
    assert "oracle_rank" not in RoutingFigures(model, load_config(None, {"train.crop": 128, "loss.oracle": 0})).names
