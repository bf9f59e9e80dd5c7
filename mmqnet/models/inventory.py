"""The layers of a float model that multiply by weights: which can be quantized, and why not."""

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from mmqnet.layers import (
    QUANTIZED_LAYERS,
    AttentionProjection,
    QuantMultiheadAttention,
    can_expose_projections,
    expose_projections,
    unsupported_option,
    weight_parameter,
)
from mmqnet.models.forward_code import products_in, weights_read_by

_LOOKS_UP = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm)  # matrices that multiply nothing


@dataclass(frozen=True)
class FoundLayer:
    """A layer with weights, or a module that multiplies activations by each other.

    Attributes:
        name: Dotted module name; the first one, if the layer has several.
        module: The float layer.
        obstacle: Why it cannot be quantized; empty if it can.
    """

    name: str
    module: nn.Module
    obstacle: str


def expose_layers(model: nn.Module) -> None:
    """Make the projections within ``nn.MultiheadAttention`` layers that can be found, in place.

    Not where others than the attention read its weights (``nn.TransformerEncoderLayer`` does).
    """
    read_elsewhere = _weights_read_elsewhere(model)
    for module in list(model.modules()):
        if can_expose_projections(module) and module not in read_elsewhere:
            expose_projections(module)


def find_layers(model: nn.Module) -> list[FoundLayer]:
    """Find the layers of a float model, in the order of registration."""
    read_elsewhere = _weights_read_elsewhere(model)
    owners = Counter(
        id(weight) for module in model.modules() for weight in module._parameters.values()
    )
    found: list[FoundLayer] = []
    unsupported: FoundLayer | None = None  # the last one that may hold others
    for name, module in model.named_modules():
        kind: type = type(module)
        inside = unsupported and name.startswith(f'{unsupported.name}.')
        if not _multiplies_by_weights(module):
            products = products_in(kind) if name else ()
            if products and any(map(_multiplies_by_weights, module.modules())):
                reason = f'products of activations stay in float ({", ".join(sorted(products))})'
                found.append(FoundLayer(name, module, reason))
            continue
        obstacle = _obstacle(module)
        if unsupported and inside:
            obstacle = f'part of a {type(unsupported.module).__name__}, which is not supported'
        elif module in read_elsewhere:
            obstacle = f'{read_elsewhere[module]} reads its weights itself'
        elif not obstacle and owners[id(weight_parameter(module))] > 1:
            obstacle = 'shares its weights with another layer'
        found.append(FoundLayer(name, module, obstacle))
        if obstacle and not inside:
            unsupported = found[-1]
    return found


def own_weights(module: nn.Module) -> list[Tensor]:
    """Return the weights that a layer multiplies by, of two dimensions or more; norms have none."""
    if isinstance(module, AttentionProjection):
        return [module.weight]
    if isinstance(module, QuantMultiheadAttention):
        return []  # its projections have them
    return [
        parameter
        for name, parameter in module._parameters.items()
        if parameter is not None
        and 'weight' in name
        and not is_lazy(parameter)
        and parameter.dim() >= 2
        and not isinstance(module, _LOOKS_UP)
    ]


def _multiplies_by_weights(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd | nn.Linear) or bool(own_weights(module))


def _obstacle(module: nn.Module) -> str:
    """Return why a layer cannot be quantized, as far as the layer itself shows it."""
    if isinstance(module, LazyModuleMixin):
        return 'built at its first input only'
    if nn.utils.parametrize.is_parametrized(module):
        return 'its weights are parametrized'
    if isinstance(module, nn.MultiheadAttention) and unsupported_option(module):
        return f'`{unsupported_option(module)}` is not supported'
    if type(module) not in QUANTIZED_LAYERS:
        return f'class {type(module).__name__} is not supported'
    if isinstance(module, AttentionProjection):
        return ''
    if module._parameters.get('weight') is None:
        return 'its weights are computed from others, as by weight_norm'
    if 'forward' in module.__dict__:
        return 'its forward has been replaced'
    return ''


def _weights_read_elsewhere(model: nn.Module) -> dict[nn.Module, str]:
    """Map layers to the module whose forward reads their weights."""
    readers: dict[nn.Module, str] = {}
    for module in model.modules():
        kind: type = type(module)
        for name in weights_read_by(kind) if module._modules else ():
            layer = _submodule(module, name)
            if layer is not None:
                readers[layer] = f'{kind.__name__}.forward'
    return readers


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None  # an option of the class has left it out
