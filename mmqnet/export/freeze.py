"""A copy of a model whose quantizers are constants: what is exported, and compared with."""

import copy

import torch
from torch import Tensor, nn

from mmqnet.export.reader import hard_function
from mmqnet.layers import QuantizedLayer
from mmqnet.ops import hard_quantize
from mmqnet.quantizers import Quantizer, Staircase


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
def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of a model in which active quantizers are :class:`FrozenQuantizer`.

    Each layer and block gets one of its own, also where several shared a quantizer, so that the
    name says whose it is.

    Raises:
        RuntimeError: If a quantizer has not been calibrated.
        ValueError: If the model, or a part of it, is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError('the model to export should be in evaluation mode: call `model.eval()`')
    clone = copy.deepcopy(model)
    for module in list(clone.modules()):
        for name, quantizer in _quantizers_of(module).items():
            weight = None
            if name == 'weight_quantizer' and isinstance(module, QuantizedLayer):
                weight = module.effective_weight()
            setattr(module, name, FrozenQuantizer(hard_function(quantizer, weight), weight))
    clone.eval()  # SSDVGG's does not return the model
    return clone


def _quantizers_of(module: nn.Module) -> dict[str, Quantizer]:
    """Return the active quantizers that a layer or block uses, by the names of the attributes."""
    if isinstance(module, Quantizer):
        return {}
    attributes = {**module.__dict__, **module._modules}
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, Quantizer) and value.is_active
    }
