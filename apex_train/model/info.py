"""The passport of a network at one input size (DESIGN section 5): what is written into every exported file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from apex_runtime.model_info import Decode, Gflops, InputInfo, MaskInfo, ModelInfo, Preprocessing, TileInfo
from apex_train.model.config import MASK_STRIDE, STRIDES
from apex_train.model.detector import PIXEL_MEAN, PIXEL_STD, ApexDetector


def model_info(
    model: ApexDetector,
    height: int,
    width: int,
    checkpoint_sha256: str = "",
    tools: dict[str, str] | None = None,
    decode: Decode = "topk",
) -> ModelInfo:
    """Describe ``model`` for inputs of height x width, decoded by ``decode``.

    Raises ValueError when the sides are not multiples of the tile.
    """
    config = model.config
    rows, cols = config.grid(height, width)
    return ModelInfo(
        classes=config.classes,
        input=InputInfo(height=height, width=width),
        preprocessing=Preprocessing(mean=PIXEL_MEAN, std=PIXEL_STD),
        tiles=TileInfo(tile=config.tile, halo=config.halo, rows=rows, cols=cols, depth=config.depth, ratio=config.ratio),
        mask=MaskInfo(channels=config.prototypes, stride=MASK_STRIDE),
        max_detections=min(config.max_detections, sum((height // s) * (width // s) for s in STRIDES)),
        decode=decode,
        gflops=count_gflops(model, height, width),
        model=config.model_dump(mode="json"),
        checkpoint_sha256=checkpoint_sha256,
        tools=tools or {},
    )


def count_gflops(model: ApexDetector, height: int, width: int) -> Gflops:
    """Counted on one real pass with one tile and one with two: the difference is a tile, the rest is the base.

    A tile costs the same on every level, for it is seen at the same size; where there are several the second is a child.
    """
    if sum(model.config.counts(height, width)) == 1:
        return Gflops(base=_pass_gflops(model, height, width, [1]), per_tile=0.0)
    rest = [0] * (model.config.depth - 2)
    pair = ([1, 0, *rest], [1, 1, *rest]) if model.config.depth > 1 else ([1], [2])
    one, two = (_pass_gflops(model, height, width, tiles) for tiles in pair)
    return Gflops(base=2 * one - two, per_tile=two - one)


@torch.inference_mode()
def _pass_gflops(model: ApexDetector, height: int, width: int, tiles: int | Sequence[int]) -> float:
    device = model.pixel_mean.device
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        image = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
        model(image, tiles, torch.zeros(1, sum(model.config.counts(height, width)), device=device))
    model.train(was_training)
    return counter.get_total_flops() / 1e9
