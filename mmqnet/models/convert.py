"""Conversion: replaces the layers of a float model by quantized ones, in place."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from mmqnet.layers import (
    QUANTIZED_LAYERS,
    build_input_quantizer,
    quantize_block_input,
    residual_block_types,
)
from mmqnet.models.patterns import check_patterns, matches_any
from mmqnet.models.prediction_layers import prediction_layers
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.models.report import LayerReport, QuantizationReport, describe_levels
from mmqnet.quantizers import (
    ActivationQuantizerConfig,
    WeightQuantizerConfig,
    num_bits,
    quantizers_of,
)


@dataclass(frozen=True)
class _LayerPlan:
    name: str
    layer: nn.Module
    weight: WeightQuantizerConfig | None = None
    activation: ActivationQuantizerConfig | None = None
    reason: str = ''


def convert(model: nn.Module, config: QuantizationConfig) -> QuantizationReport:
    """Converts a float model in place.

    The class of the model and all its checkpoint keys stay as they are; quantizers add keys.

    Args:
        model: Any float model.
        config: What to quantize, and how.

    Returns:
        QuantizationReport: What each layer got, and why others were left in float.

    Raises:
        ValueError: If a pattern matches no layer, no layer is left to quantize, or the model is
            quantized already or a single layer.
    """
    if quantizers_of(model):
        raise ValueError('the model has quantizers already: convert a float model')
    if type(model) in QUANTIZED_LAYERS:
        raise ValueError(
            f'a model that is one {type(model).__name__} cannot be converted in place: use '
            f'{QUANTIZED_LAYERS[type(model)].__name__}.from_float'
        )
    plans = {plan.name: plan for plan in _plan(model, config)}
    report = QuantizationReport(tuple(map(_report_layer, plans.values())))
    if not report.quantized:
        reasons = sorted({layer.reason for layer in report.skipped}) or ['it has no layers']
        raise ValueError(
            f'no layer of {type(model).__name__} can be quantized: {"; ".join(reasons)}; '
            f'layers of the classes {sorted({c.__name__ for c in QUANTIZED_LAYERS})} can'
        )
    blocks = _quantize_blocks(model, plans)
    _replace_layers(model, plans)
    for block, activation in blocks:
        weight = block.get_parameter('conv1.weight')
        quantize_block_input(block, build_input_quantizer(activation, weight))
    return report


def _plan(model: nn.Module, config: QuantizationConfig) -> Iterator[_LayerPlan]:
    layers = dict(_layers_with_weights(model))
    names = [name for name, layer in layers.items() if type(layer) in QUANTIZED_LAYERS]
    if names:
        check_patterns(config.include, names, 'quantization.include')
        check_patterns(config.exclude, list(layers), 'quantization.exclude')
        overridden = [pattern for pattern, _ in config.overrides]
        check_patterns(overridden, names, 'quantization.overrides')
    positions = {'first': set(names[:1]), 'last': prediction_layers(model, names)}
    kept = {name: p for p in config.keep_float for name in positions[p]}
    for name, layer in layers.items():
        reason = _reason_for_float(name, layer, kept, config)
        weight, activation = (None, None) if reason else config.for_layer(name)
        if weight is None and activation is None and not reason:
            reason = 'config gives it neither weight nor activation levels'
        yield _LayerPlan(name, layer, weight, activation, reason)


def _layers_with_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that multiply by a weight matrix, convertible or not; norms and embeddings do not."""
    for name, module in model.named_modules():
        weights = (module._parameters.get(key) for key in ('weight', 'in_proj_weight'))
        has_matrix = any(weight is not None and weight.dim() >= 2 for weight in weights)
        if has_matrix and not isinstance(module, nn.Embedding):
            yield name, module


def _reason_for_float(
    name: str, layer: nn.Module, kept: dict[str, str], config: QuantizationConfig
) -> str:
    if type(layer) not in QUANTIZED_LAYERS:
        return f'class {type(layer).__name__} is not supported'
    if not matches_any(name, config.include):
        return 'not included'
    if matches_any(name, config.exclude):
        return 'excluded'
    if name in kept:
        return f'{kept[name]} layer'
    return ''


def _quantize_blocks(
    model: nn.Module, plans: dict[str, _LayerPlan]
) -> list[tuple[nn.Module, ActivationQuantizerConfig]]:
    """Finds the residual blocks whose input is quantized once, and takes that off their layers."""
    blocks = []
    for name, block in model.named_modules():
        conv1 = plans.get(f'{name}.conv1')
        if not isinstance(block, residual_block_types()) or conv1 is None:
            continue
        readers = [conv1]
        downsample = getattr(block, 'downsample', None)
        if isinstance(downsample, nn.Sequential):  # its first layer may be a pool
            readers += [p for p in plans.values() if p.layer is downsample[0]]
        activation = conv1.activation
        if activation is None or any(reader.activation != activation for reader in readers):
            continue
        for reader in readers:
            plans[reader.name] = replace(reader, activation=None)
        blocks.append((block, activation))
    return blocks


def _replace_layers(model: nn.Module, plans: dict[str, _LayerPlan]) -> None:
    # by identity: heads share one layer among several places
    quantized = {
        plan.layer: QUANTIZED_LAYERS[type(plan.layer)].from_float(
            plan.layer, plan.weight, plan.activation
        )
        for plan in plans.values()
        if not plan.reason
    }
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in quantized:
                parent._modules[name] = quantized[child]


def _report_layer(plan: _LayerPlan) -> LayerReport:
    weights = [p for p in plan.layer.parameters(recurse=False) if p.dim() >= 2]
    return LayerReport(
        name=plan.name,
        kind=type(plan.layer).__name__,
        weight=describe_levels(plan.weight.levels if plan.weight else None),
        activation=describe_levels(plan.activation.levels if plan.activation else None),
        reason=plan.reason,
        num_weights=sum(weight.numel() for weight in weights),
        weight_bits=num_bits(plan.weight.levels) if plan.weight else 32,
    )
