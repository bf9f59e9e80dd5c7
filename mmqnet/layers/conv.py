"""Quantized convolutions, one for each class that MMCV's ConvModule builds.

Each names its float class, and ``nn.Conv2d``, as a direct base: MMEngine's weight initialisation
selects layers by the names of their class and its direct bases.
"""

import math
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from torch import Tensor, nn

from mmqnet.layers.quantized_layer import QuantizedLayer
from mmqnet.registry import MODELS


class _QuantizedConv(QuantizedLayer):
    _conv_forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``input`` (N, C, H, W)."""
        return self._conv_forward(self.quantized_input(input), self.quantized_weight(), self.bias)


@MODELS.register_module()
class QuantConv2d(_QuantizedConv, nn.Conv2d):
    """Conv2d with quantized weights and input; arguments as for ``nn.Conv2d`` and the mixin."""


@MODELS.register_module()
class QuantConv2dAdaptivePadding(QuantConv2d, nn.Conv2d):
    """Quantized counterpart of MMCV's ``Conv2dAdaptivePadding`` (TensorFlow's "same" padding)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.padding = (0, 0)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Pad and convolve the quantized input: the padding is 0 as in other convolutions."""
        pads: list[int] = []
        for axis in (1, 0):  # F.pad wants the last dimension first
            extent = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            size, stride = input.shape[2 + axis], self.stride[axis]
            total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
            pads += [total // 2, total - total // 2]
        padded = F.pad(input, pads) if any(pads) else input
        return nn.Conv2d._conv_forward(self, padded, weight, bias)


@MODELS.register_module()
class QuantConvTranspose2d(QuantizedLayer, nn.ConvTranspose2d):
    """ConvTranspose2d with quantized weights and input.

    With groups, ``granularity='channel'`` is one scale for the output channels that have the same
    place in their groups: the weights are (in, out / groups, kH, kW).
    """

    channel_axis = 1

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve ``input`` (N, C, H, W); ``output_size`` as for ``nn.ConvTranspose2d``."""
        geometry: Any = self.stride, self.padding, self.kernel_size, 2, self.dilation
        more = self._output_padding(input, output_size, *geometry)
        x, weight = self.quantized_input(input), self.quantized_weight()
        stride, padding, *_, dilation = geometry
        return F.conv_transpose2d(
            x, weight, self.bias, stride, padding, more, self.groups, dilation
        )


@MODELS.register_module()
class QuantConvWS2d(_QuantizedConv, ConvWS2d, nn.Conv2d):
    """Quantized counterpart of MMCV's ``ConvWS2d``: quantizes the standardized weights."""

    eps: float

    def effective_weight(self) -> Tensor:
        """Return the standardized weights, (out, in, kH, kW)."""
        flat = self.weight.flatten(1)
        # not std_mean: its last bits differ
        mean, std = (v.view(-1, 1, 1, 1) for v in (flat.mean(dim=1), flat.std(dim=1)))
        return (self.weight - mean) / (std + self.eps)


@MODELS.register_module()
class QuantConvAWS2d(_QuantizedConv, ConvAWS2d, nn.Conv2d):
    """Quantized counterpart of MMCV's ``ConvAWS2d``: quantizes the standardized weights."""

    _get_weight: Callable[[Tensor], Tensor]

    def effective_weight(self) -> Tensor:
        """Return the standardized weights, (out, in, kH, kW)."""
        return self._get_weight(self.weight)
