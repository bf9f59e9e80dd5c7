"""What pictures of a layer are drawn from: its quantizer and the values that pass it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmqnet.calibration import SampleCollector, modes_kept
from mmqnet.checks import did_you_mean
from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import Quantizer


@dataclass(frozen=True)
class LayerValues:
    """A quantizer and what it quantizes.

    Attributes:
        layer: Dotted name of the layer, or of the residual block.
        kind: ``'weight'`` or ``'input'``.
        quantizer: Its quantizer, which has been calibrated.
        values: The weights, in their shape, or a sample of the inputs; float32.
    """

    layer: str
    kind: str
    quantizer: Quantizer
    values: Tensor


def weight_names(model: nn.Module) -> list[str]:
    """Return the names of the layers with quantized weights.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> weight, activation = dict(levels='pm4'), dict(levels='uint4')
        >>> model = torch.nn.Sequential(QuantLinear(
        ...     8, 4, weight_quantizer=weight, input_quantizer=activation))
        >>> weight_names(model)
        ['0']
    """
    return _names(model, 'weight_quantizer')


def input_names(model: nn.Module) -> list[str]:
    """Return the names of the layers and residual blocks that quantize their input.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> weight, activation = dict(levels='pm4'), dict(levels='uint4')
        >>> model = torch.nn.Sequential(QuantLinear(
        ...     8, 4, weight_quantizer=weight, input_quantizer=activation))
        >>> input_names(model)
        ['0']
    """
    return _names(model, 'input_quantizer')


def _names(model: nn.Module, quantizer: str) -> list[str]:
    """Return the names of the modules with a quantizer, their own or a shared one."""
    return [
        n for n, m in model.named_modules() if isinstance(getattr(m, quantizer, None), Quantizer)
    ]


def weight_values(model: nn.Module, layer: str) -> LayerValues:
    """Return the weights of a layer and their quantizer.

    Raises:
        ValueError: If there is no such layer, its weights are in float, or it is not calibrated.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> weight, activation = dict(levels='pm4'), dict(levels='uint4')
        >>> model = torch.nn.Sequential(QuantLinear(
        ...     8, 4, weight_quantizer=weight, input_quantizer=activation))
        >>> batches = [torch.rand(2, 8), torch.rand(2, 8)]
        >>> _ = calibrate(model, batches, model)
        >>> weight_values(model, '0').values.shape
        torch.Size([4, 8])
    """
    check_layer(model, layer, 'weight')
    module = model.get_submodule(layer)
    assert isinstance(module, QuantizedLayer)
    quantizer = _calibrated(module.weight_quantizer, layer)
    return LayerValues(layer, 'weight', quantizer, module.effective_weight().detach().float())


def collect_inputs(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
) -> dict[str, LayerValues]:
    """Collect random samples of the inputs of quantized layers or residual blocks.

    Args:
        model: The quantized model; it runs in evaluation mode.
        layers: Names of the layers or blocks.
        batches: What to run the model on.
        forward: Runs the model on one batch.

    Returns:
        dict[str, LayerValues]: From the names to the samples and their quantizers.

    Raises:
        ValueError: If there is no such layer, its input is in float, it is not calibrated, or no
            batch reaches it.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> weight, activation = dict(levels='pm4'), dict(levels='uint4')
        >>> model = torch.nn.Sequential(QuantLinear(
        ...     8, 4, weight_quantizer=weight, input_quantizer=activation))
        >>> batches = [torch.rand(2, 8), torch.rand(2, 8)]
        >>> _ = calibrate(model, batches, model)
        >>> collect_inputs(model, ['0'], batches, model)['0'].values.shape
        torch.Size([32])
    """
    quantizers = {}
    for layer in layers:
        check_layer(model, layer, 'input')
        quantizers[layer] = _calibrated(model.get_submodule(layer).input_quantizer, layer)
    collectors = {layer: SampleCollector(layer, seed=i) for i, layer in enumerate(layers)}
    # of the layers, since they may share a quantizer; before the hook by which a block quantizes
    hooks = [
        model.get_submodule(layer).register_forward_pre_hook(
            lambda _, args, keep=collector: keep(args[0]), prepend=True
        )
        for layer, collector in collectors.items()
    ]
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            for batch in batches:
                forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, collector in collectors.items():
        if not len(collector.values()):
            raise ValueError(f'no input has reached {layer!r}: are there pictures, and is it used?')
    return {
        layer: LayerValues(layer, 'input', quantizer, collectors[layer].values())
        for layer, quantizer in quantizers.items()
    }


def check_layer(model: nn.Module, layer: str, kind: str) -> None:
    """Check that a layer has a quantizer of this kind.

    Args:
        model: The quantized model.
        layer: Name of a layer.
        kind: ``'weight'`` or ``'input'``.

    Raises:
        ValueError: If the layer is unknown or in float.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> weight, activation = dict(levels='pm4'), dict(levels='uint4')
        >>> model = torch.nn.Sequential(QuantLinear(
        ...     8, 4, weight_quantizer=weight, input_quantizer=activation))
        >>> check_layer(model, '1', 'weight')
        Traceback (most recent call last):
            ...
        ValueError: the model has no layer '1'; layers with quantized weights are '0'
    """
    names = dict(weight=weight_names, input=input_names)[kind](model)
    if layer in names:
        return
    what = f'quantized {kind}s'
    if not names:
        raise ValueError(f'the model has no {what}: see its `quantization` config')
    known = dict(model.named_modules())
    if layer not in known:
        near = did_you_mean(layer, names, count=3)
        hint = f'.{near}' if near else f'; layers with {what} are {_shorten(names)}'
        raise ValueError(f'the model has no layer {layer!r}{hint}')
    inside = [name for name in names if name.startswith(f'{layer}.')]
    around = [name for name in names if layer.startswith(f'{name}.')]
    if kind == 'input' and around:
        hint = f'the residual block {around[-1]!r} quantizes it'
    elif inside:
        hint = f'inside it are {_shorten(inside)}'
    else:
        hint = f'layers with {what} are {_shorten(names)}'
    raise ValueError(
        f'{layer!r} ({type(known[layer]).__name__}) does not quantize its {kind}; {hint}'
    )


def _shorten(names: list[str], count: int = 6) -> str:
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(map(repr, names[:count])) + more


def _calibrated(quantizer: object, layer: str) -> Quantizer:
    assert isinstance(quantizer, Quantizer)
    if not quantizer.is_calibrated:
        raise ValueError(
            f'the quantizers of {layer!r} are not calibrated: load a checkpoint of the quantized '
            'model, or calibrate it'
        )
    return quantizer
