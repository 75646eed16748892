"""The torch formulas teach: analytic gradients against float64 numerical ones, on tiny shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from apex_plugins.decode_nms.torch_op import decode_boxes
from apex_plugins.tile_pack.torch_op import tile_pack
from apex_plugins.tile_ssm_scan.torch_op import tile_ssm_scan
from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def test_tile_pack_teaches_the_image_where_halos_overlap():
    ids = torch.tensor([[0, 1, 3], [2, 0, 1]])
    assert torch.autograd.gradcheck(lambda image: tile_pack(image, ids, torch.zeros_like(ids), 8, 8), random(2, 1, 16, 16))


@pytest.mark.parametrize("reverse", [False, True])
def test_tile_ssm_scan_teaches_every_input(reverse):
    x, a, b, c, d = random(2, 4, 2, 3), random(2), random(2, 4, 3), random(2, 4, 3), random(2)
    dt = torch.rand(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: tile_ssm_scan(*args, reverse), (x, dt, a, b, c, d))


def test_tile_ssm_scan_gradient_stays_finite_where_the_unmasked_form_overflows():
    x, dt = torch.ones(1, 64, 1, 1, requires_grad=True), torch.full((1, 64, 1), 50.0, requires_grad=True)
    one, ones = torch.zeros(1, requires_grad=True), torch.ones(1, 64, 1, requires_grad=True)
    tile_ssm_scan(x, dt, one, ones, ones, torch.ones(1), False).sum().backward()
    for tensor in (x, dt, one, ones):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()


def test_tile_ssm_scan_computes_in_float32_under_autocast():
    args = [random(1, 8, 2, 4).float(), torch.rand(1, 8, 2), random(2).float(), random(1, 8, 3).float(), random(1, 8, 3).float()]
    expected = tile_ssm_scan(*args, torch.ones(2), False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tile_ssm_scan(*args, torch.ones(2), False), expected)


def test_tile_unpack_fusion_teaches_base_tiles_and_alpha():
    ids = torch.tensor([[3, 0], [1, 2]])
    inputs = (random(2, 2, 4, 4), random(2, 2, 2, 2, 2), random(2, 2, 1, 2, 2))
    assert torch.autograd.gradcheck(lambda base, tiles, alpha: tile_unpack_fusion(base, tiles, ids, ids * 0, alpha, 16), inputs)


def test_tile_unpack_fusion_leaves_the_rest_of_the_map_untouched():
    base, ids = random(1, 2, 4, 6).float(), torch.tensor([[1]])
    merged = tile_unpack_fusion(base, torch.full((1, 1, 2, 2, 2), 9.0), ids, ids * 0, torch.ones(1, 1, 1, 2, 2), 16)
    assert torch.equal(merged[..., 2:4][:, :, :2], torch.full((1, 2, 2, 2), 9.0))
    assert torch.equal(merged[..., :2], base[..., :2]) and torch.equal(merged[:, :, 2:], base[:, :, 2:])


def test_decode_boxes_teaches_the_distances_and_goes_outwards():
    centres, strides = torch.tensor([[8.0, 4.0], [16.0, 16.0]]).double(), torch.tensor([8.0, 32.0]).double()
    assert torch.autograd.gradcheck(lambda ltrb: decode_boxes(ltrb, centres, strides), random(2, 2, 4))
    assert decode_boxes(torch.tensor([[[1.0, 0.5, 2.0, 0.0]]]).double(), centres[:1], strides[:1]).tolist() == [
        [[0.0, 0.0, 24.0, 4.0]]
    ]
