"""Quantized fully connected layer."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmqnet.layers.quantized_layer import QuantizedLayer
from mmqnet.registry import MODELS


@MODELS.register_module()
class QuantLinear(QuantizedLayer, nn.Linear):
    """Linear with quantized weights and input; arguments as for ``nn.Linear`` and the mixin."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``input`` (..., in_features) to (..., out_features)."""
        return F.linear(self.quantized_input(input), self.quantized_weight(), self.bias)
