"""Batch norms folded into their convolutions before tracing (DESIGN rule 7).

The exporter's own folding leaves a norm alone whose convolution is called twice, as those are which the router asks too.
"""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from apex_train.model.blocks import ConvNorm


def fold_norms(model: nn.Module) -> None:
    """In place; the model is in evaluation mode and stays a function of the same numbers, to rounding."""
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module[0] = fuse_conv_bn_eval(cast(nn.Conv2d, module[0]), cast(nn.BatchNorm2d, module[1]))
            module[1] = nn.Identity()
