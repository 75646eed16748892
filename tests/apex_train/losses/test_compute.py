"""The losses contract: every key, finite, differentiable without objects, independent of how the batch is cut, nothing
repaired."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from apex_train.config import LossConfig, ModelSection
from apex_train.data.loader import Batch
from apex_train.losses import mask_terms as mask_module
from apex_train.losses.budget import BudgetPrice, TileCost
from apex_train.losses.compute import KEYS, Matcher, class_loss, compute_training_losses, ignored_anchors
from apex_train.losses.mask_terms import MASK_KEYS
from apex_train.losses.oracle import OracleLabels
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector, HeadOutputs, Outputs

TILE = ModelSection().tile


def targets(objects: int, images: int = 2, side: int = 128) -> Batch:
    rng = np.random.default_rng(objects)
    count = max(1, objects)
    boxes = torch.zeros(images, count, 4)
    masks = torch.zeros(images, count, side // 4, side // 4, dtype=torch.uint8)
    for b in range(images):
        for g in range(objects):
            x, y = (4 * int(v) for v in rng.integers(0, side // 4 - 8, 2))
            boxes[b, g] = torch.tensor([x, y, x + 32, y + 24])
            masks[b, g, y // 4 : y // 4 + 6, x // 4 : x // 4 + 8] = 255
    labels = torch.full((images, count), 0 if objects else -1)
    pictures = torch.from_numpy(rng.integers(0, 255, (images, side, side, 3), dtype=np.uint8))
    ignore = torch.zeros(images, side // 4, side // 4, dtype=torch.uint8)
    return Batch(pictures, boxes, labels, masks, labels >= 0, ignore, list(range(images)))


@pytest.fixture(scope="module")
def model() -> ApexDetector:
    torch.manual_seed(0)
    return ApexDetector(ModelConfig(mask_quality=True)).train()


MASK_LOSSES = {"mask_lovasz": 0.5, "mask_boundary": 0.7, "mask_multiscale": 0.9, "mask_quality": 1.1}  # off by default
ALL = LossConfig(**MASK_LOSSES, budget=0.3)
PRICE = BudgetPrice(mu=2.0, share=0.25, cost=TileCost(1.0))
LABELS = OracleLabels(
    torch.arange(2), torch.tensor([[0, 2, 3], [3, 1, 0]]), torch.tensor([[0.5, 0.0, -0.1], [2.0, 0.1, 0.0]]), 1.0
)


def forward(model: ApexDetector, batch: Batch, tiles: int = 4, peripheral: bool = True) -> Outputs:
    return model(batch.images, tiles, torch.zeros(len(batch.images), 4), with_peripheral=peripheral)


@pytest.mark.parametrize("objects", [0, 1, 5])
@pytest.mark.gate
def test_every_key_is_there_finite_and_differentiable(model: ApexDetector, objects: int) -> None:
    batch = targets(objects)
    total, terms = compute_training_losses(forward(model, batch), batch, ALL, labels=(LABELS,))
    assert tuple(terms) == KEYS and all(torch.isfinite(term) for term in terms.values())
    assert all(terms[key].requires_grad and (float(terms[key].detach()) > 0) == (objects > 0) for key in MASK_KEYS)
    assert float(total.detach()) == pytest.approx(sum(float(v.detach()) for k, v in terms.items() if k != "total"), rel=1e-6)
    model.zero_grad()
    total.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    assert (float(terms["box"].detach()) > 0) == (objects > 0)


def test_terms_without_a_weight_are_zero_and_not_computed(model: ApexDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = targets(3)
    config = LossConfig(cls=0, cls_one=0, box=0, mask_bce=0, mask_dice=0, oracle=0)
    monkeypatch.setattr(mask_module, "choose_instances", None)  # calling it would fail
    total, terms = compute_training_losses(forward(model, batch), batch, config)
    assert float(total.detach()) == 0 and all(float(term.detach()) == 0 for term in terms.values())


@pytest.mark.parametrize("field", sorted(set(LossConfig.model_fields) - {"box_kind", "pcgrad"}))
def test_every_key_is_read(model: ApexDetector, field: str) -> None:
    batch, outputs = targets(4), None
    model.eval()  # the same numbers twice
    with torch.no_grad():
        outputs = forward(model, batch)
        base = LossConfig()
        other = "wide" if field == "mask_region" else type(getattr(base, field))(2 * getattr(base, field) + 1)
        changed = base.model_copy(update={field: other})
        torch.manual_seed(1)
        before = compute_training_losses(outputs, batch, base, price=PRICE, labels=(LABELS,))[0]
        torch.manual_seed(1)
        after = compute_training_losses(outputs, batch, changed, price=PRICE, labels=(LABELS,))[0]
    model.train()
    assert float(before) != float(after)


def cut_image(batch: Batch, outputs: Outputs, b: int) -> tuple[Batch, Outputs]:
    one = Batch(*(getattr(batch, f.name)[b : b + 1] for f in fields(Batch)[:6]), image_ids=[b])
    part = lambda heads: HeadOutputs(*(getattr(heads, f.name)[b : b + 1] for f in fields(HeadOutputs)))  # noqa: E731
    names = ("utilities", "tile_ids", "alpha")
    off = None if outputs.peripheral is None else part(outputs.peripheral)
    return one, Outputs(part(outputs.heads), *(getattr(outputs, n)[b : b + 1] for n in names), peripheral=off)


def of_image(b: int) -> OracleLabels:
    return OracleLabels(torch.tensor([0]), LABELS.ids[b : b + 1], LABELS.gains[b : b + 1], 0.5)


@pytest.mark.parametrize("peripheral", [False, True])
def test_cutting_the_batch_changes_nothing(model: ApexDetector, peripheral: bool) -> None:
    """Sums are divided by the objects of the effective batch, means over images weighted by their share: every term adds up."""
    batch = targets(3)
    batch.labels[1, 1:] = -1  # the images differ in what they hold
    batch = replace(batch, has_mask=batch.labels >= 0)
    with torch.no_grad():
        outputs = forward(model, batch, peripheral=peripheral)
        _, whole = compute_training_losses(outputs, batch, ALL, price=PRICE, labels=(LABELS,))
        parts = [
            compute_training_losses(o, t, ALL, objects=batch.objects, share=0.5, price=PRICE, labels=(of_image(b),))[1]
            for b, (t, o) in enumerate(cut_image(batch, outputs, b) for b in (0, 1))
        ]
    assert all(float(whole[key]) > 0 for key in (*MASK_KEYS, "budget", "oracle"))
    for key in KEYS:
        assert sum(float(terms[key]) for terms in parts) == pytest.approx(float(whole[key]), rel=1e-5), key


def test_nothing_is_repaired(model: ApexDetector) -> None:
    batch = targets(2)
    with torch.no_grad():
        outputs = forward(model, batch)
    outputs.heads.one[0, 5, 0] = float("nan")
    _, terms = compute_training_losses(outputs, batch, LossConfig())
    assert torch.isnan(terms["cls"]) and torch.isnan(terms["total"]) and torch.isfinite(terms["box"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["prototypes", "coefficients", "quality"])
def test_no_mask_term_hides_what_is_not_finite(model: ApexDetector, field: str, value: float) -> None:
    """A saturated sigmoid or a hinge would: each of the terms alone must still show it."""
    batch = targets(2)
    with torch.no_grad():
        outputs = replace(forward(model, batch), peripheral=None)
    getattr(outputs.heads, field).view(-1)[7] = value
    _, terms = compute_training_losses(outputs, batch, ALL)
    assert not any(torch.isfinite(terms[key]) for key in (*MASK_KEYS, "total"))
    assert torch.isfinite(terms["box"]) and torch.isfinite(terms["cls"])


def test_the_losses_are_float32_under_autocast(model: ApexDetector) -> None:
    batch = targets(3)
    with torch.no_grad():
        outputs = forward(model, batch)
        _, plain = compute_training_losses(outputs, batch, ALL)
        with torch.autocast("cpu", torch.bfloat16):
            _, cast = compute_training_losses(outputs, batch, ALL)
            _, half = compute_training_losses(forward(model, batch), batch, ALL)  # bf16 from the network on
    for key in KEYS:
        assert cast[key].dtype == torch.float32 and float(cast[key]) == float(plain[key])
        assert float(half[key]) == pytest.approx(float(plain[key]), rel=0.1, abs=0.02), key


def test_the_quality_head_learns_alone(model: ApexDetector) -> None:
    batch = targets(3)
    _, terms = compute_training_losses(forward(model, batch, peripheral=False), batch, ALL)
    model.zero_grad()
    terms["mask_quality"].backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert moved and all(".quality." in name for name in moved)


def test_without_its_head_the_quality_is_zero(model: ApexDetector) -> None:
    batch = targets(3)
    with torch.no_grad():
        outputs = replace(forward(model, batch), peripheral=None)
    plain = replace(outputs, heads=replace(outputs.heads, quality=None))
    assert float(compute_training_losses(plain, batch, ALL)[1]["mask_quality"]) == 0


def test_an_ignore_region_is_neither_object_nor_background(model: ApexDetector) -> None:
    """Confident nonsense inside of the region costs nothing, the same outside costs; objects in the region still teach."""
    batch = targets(3)
    with torch.no_grad():
        outputs = replace(forward(model, batch), peripheral=None)
        matcher = Matcher(outputs.heads, batch, LossConfig())
        background_BA = ~(matcher.many.positive_BA | matcher.one.positive_BA)
        left_BA = (matcher.centres_A2[:, 0] < 64)[None].expand_as(background_BA)
        region = replace(batch, ignore=batch.ignore.clone())
        region.ignore[:, :, :16] = 1
        matcher = Matcher(outputs.heads, region, LossConfig())
        plain, spared = (
            class_loss(outputs.heads, batch_, Matcher(outputs.heads, batch_, LossConfig()), LossConfig())
            for batch_ in (batch, region)
        )
    assert (background_BA & left_BA).any() and (~background_BA & left_BA).any()
    assert (spared[background_BA & left_BA] == 0).all() and (plain[background_BA & left_BA] > 0).all()
    same = ~(background_BA & left_BA)
    torch.testing.assert_close(spared[same & ~left_BA], plain[same & ~left_BA])
    positive_in_both = matcher.many.positive_BA & matcher.one.positive_BA & left_BA
    torch.testing.assert_close(spared[positive_in_both], plain[positive_in_both])


def test_ignore_cells_meet_the_anchors_whose_centre_they_hold() -> None:
    ignore = torch.zeros(1, 8, 8, dtype=torch.uint8)
    ignore[0, 2, 5] = 1  # pixels x 20..23, y 8..11
    centres = torch.tensor([[20.0, 8.0], [23.9, 11.9], [19.9, 8.0], [24.0, 8.0], [20.0, 12.0]])
    assert ignored_anchors(ignore, centres).tolist() == [[True, True, False, False, False]]
