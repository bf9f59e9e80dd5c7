"""Quantizers behind modules: of what is added, and of what several layers read."""

from typing import Any

from torch import Tensor, nn

from mmqnet.layers.owning import add_quantizer
from mmqnet.quantizers import QuantizerConfig


class OutputQuantization:
    """Forward hook that quantizes the output of a module; copies and pickles with the model."""

    def __init__(self, quantizer: nn.Module) -> None:
        self.quantizer = quantizer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Return the quantized output, a tensor that others may write to."""
        out = self.quantizer(output)
        # blocks add in place, which autograd refuses for the view that a quantizer may give; with
        # checkpointing the first pass has no gradients
        return out.clone() if self.quantizer.training or out.requires_grad else out


def quantize_output(module: nn.Module, quantizer: QuantizerConfig) -> None:
    """Give a module an ``output_quantizer`` through which its output passes.

    Args:
        module: A layer, or a ConvModule, which quantizes behind its normalization and activation.
        quantizer: Config of the quantizer.
    """
    add_quantizer(module, 'output_quantizer', quantizer, first_weight(module))
    module.register_forward_hook(OutputQuantization(module.get_submodule('output_quantizer')))


def first_weight(module: nn.Module) -> nn.Parameter:
    """Return weights of a module's layers: they say on which device it is, and whether frozen."""
    return next(parameter for parameter in module.parameters() if parameter.dim() > 1)
