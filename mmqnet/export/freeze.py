"""A copy of a model whose quantizers are constants: what is exported, and compared with."""

import copy

import torch
from torch import Tensor, nn

from mmqnet.layers import QuantizedLayer, weight_quantizers
from mmqnet.ops import hard_quantize
from mmqnet.quantizers import Quantizer, Staircase, quantizers_of


class FrozenQuantizer(nn.Module):
    """The hard function of a quantizer, without anything that is learned.

    Args:
        function: The function.
        weight: The weights that it is for. Default: None, for activations.
    """

    levels: Tensor
    thresholds: Tensor
    alpha: Tensor
    beta: Tensor
    weight: Tensor | None

    def __init__(self, function: Staircase, weight: Tensor | None = None) -> None:
        super().__init__()
        self.observer = None
        self.evaluate_soft = False
        for name, value in function._asdict().items():
            self.register_buffer(name, value.clone())
        self.register_buffer('weight', None if weight is None else weight.detach().clone())

    @property
    def function(self) -> Staircase:
        """The function."""
        return Staircase(self.levels, self.thresholds, self.alpha, self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Quantize the weights, or ``x`` of any shape."""
        x = x if self.weight is None else self.weight
        return hard_quantize(x, self.levels, self.thresholds, self.alpha, self.beta)


@torch.no_grad()
def hard_function(quantizer: Quantizer, values: Tensor | None = None) -> Staircase:
    """Return the hard function of a quantizer, detached.

    Args:
        quantizer: An active, calibrated quantizer.
        values: The weights. Default: None, for one of activations, whose function is constant.

    Raises:
        RuntimeError: If it has not been calibrated.
    """
    if not quantizer.is_calibrated:
        raise RuntimeError(
            'a quantizer has not been calibrated: load a checkpoint of the quantized model'
        )
    function = quantizer.staircase(quantizer.levels.new_zeros(1) if values is None else values)
    return Staircase(*(tensor.detach() for tensor in function))


@torch.no_grad()
def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of a model in which active quantizers are :class:`FrozenQuantizer`.

    Each layer gets one of its own for its weights, which it holds, also where layers shared one.

    Raises:
        RuntimeError: If a quantizer has not been calibrated.
        ValueError: If the model, or a part of it, is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError('the model to export should be in evaluation mode: call `model.eval()`')
    clone = copy.deepcopy(model)
    for layer in list(clone.modules()):
        quantizer = layer.weight_quantizer if isinstance(layer, QuantizedLayer) else None
        if quantizer is not None and quantizer.is_active:
            weight = layer.effective_weight()  # type: ignore[operator]
            layer.weight_quantizer = FrozenQuantizer(hard_function(quantizer, weight), weight)
    of_weights = {id(q) for q in weight_quantizers(clone).values()}
    for quantizer in quantizers_of(clone).values():
        if quantizer.is_active and id(quantizer) not in of_weights:
            _freeze(quantizer)
    clone.eval()  # SSDVGG's does not return the model
    return clone


def _freeze(quantizer: Quantizer) -> None:
    """Turn a quantizer of activations into a frozen one, the same object: hooks refer to it."""
    made = FrozenQuantizer(hard_function(quantizer))
    quantizer.__class__ = FrozenQuantizer  # type: ignore[assignment]
    quantizer.__dict__ = made.__dict__
