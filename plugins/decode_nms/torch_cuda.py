"""DecodeNMS on CUDA tensors by its kernels, on torch's current stream."""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.decode_nms.launch import Geometry, Settings, launches, workspace_bytes
from apex_plugins.kernels.torch_face import TYPES, run, why_not

OP = "decode_nms"
SCORES = {torch.float32, torch.float16}


def kernel_takes(scores_BAC: Tensor, ltrb_BA4: Tensor, centres_A2: Tensor, strides_A: Tensor) -> bool:
    """Whether these tensors are for the kernel: on a GPU that can run it, scores and coordinates in types that it computes in."""
    if not all(item.is_cuda for item in (scores_BAC, ltrb_BA4, centres_A2, strides_A)) or torch.compiler.is_compiling():
        return False
    # Narrower distances become float32 without loss, as they do in the formula where the centres are float32.
    exact = {centres_A2.dtype, strides_A.dtype} == {torch.float32} and ltrb_BA4.dtype in {*SCORES, torch.bfloat16}
    return exact and scores_BAC.dtype in SCORES and why_not(OP) is None


def decode_nms_kernel(
    scores_BAC: Tensor,
    ltrb_BA4: Tensor,
    centres_A2: Tensor,
    strides_A: Tensor,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """boxes float32 [B,M,4], scores [B,M], labels and candidate ids int64 [B,M] in two launches.

    Raises ValueError for attributes that the kernels cannot serve, KernelError where they cannot run.
    """
    settings = Settings(max_detections, pre_nms, score, iou)
    scores, ltrb = scores_BAC.contiguous(), ltrb_BA4.float().contiguous()
    centres, strides = centres_A2.contiguous(), strides_A.contiguous()
    b, a, c = scores.shape
    flat, device = (b, max_detections), scores.device
    boxes, best = torch.empty((*flat, 4), device=device), torch.empty(flat, dtype=scores.dtype, device=device)
    labels, ids = (torch.empty(flat, dtype=torch.int64, device=device) for _ in range(2))
    workspace = torch.empty(workspace_bytes(b, a), dtype=torch.uint8, device=device)
    what = launches(
        scores.data_ptr(),
        Geometry(ltrb.data_ptr(), centres.data_ptr(), strides.data_ptr()),
        [tensor.data_ptr() for tensor in (boxes, best, labels, ids)],
        workspace.data_ptr(),
        kind=TYPES[scores.dtype],
        shape=(b, a, c),
        settings=settings,
    )
    run(OP, what, device)
    return boxes, best, labels, ids
