"""What exporters read of a quantized model: one walk over its layers."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import Quantizer, Staircase

_UINT8_LEVELS = 256  # as many as uint8 has codes for


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """A quantized layer as an exporter sees it.

    Attributes:
        name: Dotted module name.
        layer: The layer.
        weight_codes: Level indices of its weights, in their shape, uint8 or, for more than 256
            levels, int32; None for float weights.
        weight: Function of the weights; None for float weights.
        input_name: Name of the quantizer of its input; None for a float input.
        input: Function of the input, its own or the residual block's; None for a float input.
        bias: (O,) or None.
        norm: Name of the batch normalization behind it, where it is the next module of the same
            parent, else None.
    """

    name: str
    layer: QuantizedLayer
    weight_codes: Tensor | None
    weight: Staircase | None
    input_name: str | None
    input: Staircase | None
    bias: Tensor | None
    norm: str | None


@torch.no_grad()
def read_layers(model: nn.Module) -> list[LayerRecord]:
    """Return the quantized layers of a model in the order of registration.

    Quantizers that are left in float, or in a phase that is, count as none.

    Raises:
        RuntimeError: If a quantizer has not been calibrated.

    Example:
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> model = nn.Sequential(QuantLinear(8, 4, weight_quantizer=dict(levels='ternary')))
        >>> _ = calibrate(model, [torch.rand(2, 8)], model)
        >>> record, = read_layers(model)
        >>> record.name, record.weight_codes.shape, record.input
        ('0', torch.Size([4, 8]), None)
    """
    inputs = _input_quantizers(model)
    norms = dict(_norms_behind(model))
    return [
        _read(name, module, inputs.get(module), norms.get(module))
        for name, module in model.named_modules()
        if isinstance(module, QuantizedLayer)
    ]


def _read(
    name: str, layer: QuantizedLayer, given: tuple[str, Quantizer] | None, norm: str | None
) -> LayerRecord:
    codes = weight = None
    if layer.weight_quantizer is not None and layer.weight_quantizer.is_active:
        values = layer.effective_weight()
        weight = hard_function(layer.weight_quantizer, values)
        codes = weight.codes(values)
        if len(weight.levels) <= _UINT8_LEVELS:
            codes = codes.to(torch.uint8)
    input_name, function = None, None
    if given is not None and given[1].is_active:
        input_name, function = given[0], hard_function(given[1])
    return LayerRecord(name, layer, codes, weight, input_name, function, layer.bias, norm)


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


def _input_quantizers(model: nn.Module) -> dict[nn.Module, tuple[str, Quantizer]]:
    """Return the quantizer of the input of each layer, by the layer: its own or its block's."""
    found: dict[nn.Module, tuple[str, Quantizer]] = {}
    for name, module in model.named_modules():
        quantizer = getattr(module, 'input_quantizer', None)
        if not isinstance(quantizer, Quantizer):
            continue
        prefix = f'{name}.' if name else ''
        for reader in [module] if isinstance(module, QuantizedLayer) else _readers(module):
            found.setdefault(reader, (f'{prefix}input_quantizer', quantizer))
    return found


def _readers(block: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers that read the quantized input of a residual block."""
    yield block.get_submodule('conv1')
    downsample = getattr(block, 'downsample', None)
    if isinstance(downsample, nn.Sequential) and isinstance(downsample[0], QuantizedLayer):
        yield downsample[0]


def _norms_behind(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for name, parent in model.named_modules():
        prefix = f'{name}.' if name else ''
        children = list(parent.named_children())
        for (_, layer), (key, norm) in itertools.pairwise(children):
            if isinstance(layer, QuantizedLayer) and isinstance(norm, _BatchNorm | _NormBase):
                yield layer, prefix + key
