"""Roles in a converted model: quantizers by what they quantize, parameters by their part."""

from torch import nn

from mmqnet.layers.projection import weight_parameter
from mmqnet.layers.quantized_layer import QuantizedLayer
from mmqnet.quantizers import Mode, Quantizer, quantizers_of


def weight_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers of weights, by their module names."""
    owners = (m.weight_quantizer for m in model.modules() if isinstance(m, QuantizedLayer))
    owned = {id(quantizer) for quantizer in owners}
    return {name: q for name, q in quantizers_of(model).items() if id(q) in owned}


def activation_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers of the inputs of layers and residual blocks, by their module names."""
    of_weights = weight_quantizers(model)
    return {name: q for name, q in quantizers_of(model).items() if name not in of_weights}


def parameter_roles(model: nn.Module) -> dict[str, str]:
    """Return the part that each parameter plays in quantization.

    Returns:
        dict[str, str]: From parameter name to ``'quantized'`` (weights behind a quantizer),
        ``'scale'`` (what a quantizer learns) or ``'other'``.
    """
    roles = {name: 'other' for name, _ in model.named_parameters()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        if isinstance(module, QuantizedLayer) and module.weight_quantizer is not None:
            roles[names[id(weight_parameter(module))]] = 'quantized'
        if isinstance(module, Quantizer):
            roles.update((f'{prefix}{key}', 'scale') for key, _ in module.named_parameters())
    return roles


def frozen_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return parameters that the present phase does not train, though the autograd graph has them.

    Those of quantizers that do not learn, and the weights behind one whose levels are fixed; with
    the projection of an attention the others that are in one parameter with it.
    """
    frozen: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, Quantizer) and int(module.mode) != Mode.LEARNED:
            frozen += module.parameters()
        quantizer = module.weight_quantizer if isinstance(module, QuantizedLayer) else None
        if quantizer is not None and int(quantizer.mode) == Mode.FIXED:
            frozen.append(weight_parameter(module))
    return frozen
