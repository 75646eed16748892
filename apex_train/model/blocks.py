"""The convolution blocks that every stream is made of.

ReLU rather than SiLU on purpose: ONNX Runtime's CPU kernels fuse it into the convolution, a SiLU costs two more passes.
Batch norm is the only norm, so export folds every one into its convolution (DESIGN rule 7).
"""

from __future__ import annotations

from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and (optionally) ReLU: [B,inputs,h,w] -> [B,outputs,h/stride,w/stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, relu: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
        ]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two dense 3x3 convolutions around a shortcut, [B,C,h,w] -> [B,C,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.second(self.first(x)))


class DepthwiseBlock(nn.Module):
    """5x5 depthwise then 1x1 convolution, [B,C,h,w] -> [B,C,h,w]: a wide look for little, used on whole-image maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(channels, channels, kernel=5, groups=channels, relu=False)
        self.pointwise = ConvNorm(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))
