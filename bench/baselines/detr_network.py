"""Mask2Former (Cheng et al. 2022, arXiv:2112.01527) of ``transformers``: built or loaded, fed with our batches, made a graph.

Legend: B images, Q queries, C classes, h and w cells of 4 x 4 pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

from apex_train.data.loader import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as its published weights want it
STAGES = ["stage1", "stage2", "stage3", "stage4"]
_OUTPUTS = ["boxes", "scores", "masks"]


def build(network: dict[str, Any], classes: tuple[str, ...], weights: str | None) -> Mask2FormerForUniversalSegmentation:
    """With random weights as ``network`` says, or with ``weights``, a folder or a name for ``from_pretrained``.

    With weights everything but the classes is as they say. Raises OSError when they cannot be read or fetched.
    """
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    if weights is not None:
        return Mask2FormerForUniversalSegmentation.from_pretrained(weights, ignore_mismatched_sizes=True, **names)
    rest = {key: value for key, value in network.items() if key != "backbone"}
    backbone = ResNetConfig(**network["backbone"], out_features=STAGES)
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=backbone, **rest, **names))


def loss_of(network: Mask2FormerForUniversalSegmentation, batch: Batch) -> Tensor:
    """Its own loss, a number. Objects without a mask are left out: it learns from masks alone."""
    known_BG = (batch.labels >= 0) & batch.has_mask
    masks = [each[known].float() / 255 for each, known in zip(batch.masks, known_BG, strict=True)]
    labels = [each[known] for each, known in zip(batch.labels, known_BG, strict=True)]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    pixels_B3HW = (batch.images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return network(pixel_values=pixels_B3HW, mask_labels=masks, class_labels=labels).loss


class Answering(nn.Module):
    """The graph that is exported: pixels [1,3,H,W] -> boxes [1,Q,4] xyxy over the input, scores [1,Q,C], masks [1,Q,h,w].

    A score is the probability of the class times the mean of the mask where it is above a half, as in its own post-processing;
    a box is that of the cells in the mask. A query with an empty mask has the score 0.
    """

    def __init__(self, network: Mask2FormerForUniversalSegmentation) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores, masks (logits)."""
        found = self.network(pixel_values=pixels)
        masks = found.masks_queries_logits
        inside = (masks > 0).to(masks.dtype)
        quality = (masks.sigmoid() * inside).sum((2, 3)) / (inside.sum((2, 3)) + 1e-6)
        scores = found.class_queries_logits.softmax(-1)[..., :-1] * quality[..., None]
        return boxes_of(inside), scores, masks


def boxes_of(inside_BQhw: Tensor) -> Tensor:
    """The smallest boxes around the ones, float [B,Q,4] xyxy over width and height."""
    sides = []
    for axis in (2, 3):  # columns, rows
        any_BQn = inside_BQhw.amax(axis)
        count = any_BQn.shape[-1]
        place_n = torch.arange(count, dtype=any_BQn.dtype)
        low = torch.where(any_BQn > 0, place_n, float(count)).amin(-1)
        high = torch.where(any_BQn > 0, place_n + 1, 0.0).amax(-1)
        sides.append((low / count, torch.maximum(low, high) / count))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], -1)


def write_graph(network: Mask2FormerForUniversalSegmentation, size: int, path: str) -> float:
    """Export to ONNX, and return by how much the scores of torch and ONNX Runtime differ at most on an image of noise."""
    import onnxruntime

    graph, pixels = Answering(network).eval(), torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.onnx.export(graph, (pixels,), path, input_names=["pixels"], output_names=_OUTPUTS, dynamo=True, external_data=False)
        expected = graph(pixels)[1].numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return float(abs(session.run(["scores"], {"pixels": pixels.numpy()})[0] - expected).max())
