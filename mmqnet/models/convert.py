"""Conversion: replaces the layers of a float model by quantized ones, in place."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from mmcv.cnn import ConvModule
from torch import nn

from mmqnet.layers import (
    QUANTIZED_LAYERS,
    QuantizedLayer,
    quantize_block_input,
    quantize_output,
    reads_its_input_once,
)
from mmqnet.models.inventory import expose_layers, own_weights
from mmqnet.models.packed_weights import unpack_when_loading
from mmqnet.models.plan import LayerPlan, plan_layers
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.models.report import LayerReport, QuantizationReport, describe_quantizer
from mmqnet.models.shared_functions import add_shared_quantizers
from mmqnet.models.sums import plan_sums, quantize_sums
from mmqnet.quantizers import Quantizer, QuantizerConfig, num_bits, quantizers_of


def convert(model: nn.Module, config: QuantizationConfig) -> QuantizationReport:
    """Convert a float model in place.

    The class of the model and all its checkpoint keys stay as they are; quantizers add keys.

    Args:
        model: Any float model.
        config: What to quantize, and how.

    Returns:
        QuantizationReport: What each layer got, and why others were left in float.

    Raises:
        ValueError: If a pattern matches no layer that can be quantized, an override has no
            effect, no layer is left to quantize, the model is quantized already or a single layer,
            or layers cannot share a quantizer: those of a plain sequence, or of checkpointed blocks
            on several processes.
    """
    if quantizers_of(model):
        raise ValueError('the model has quantizers already: convert a float model')
    if type(model) in QUANTIZED_LAYERS:
        raise ValueError(
            f'a model that is one {type(model).__name__} cannot be converted in place: use '
            f'{QUANTIZED_LAYERS[type(model)].__name__}.from_float'
        )
    expose_layers(model)
    plans = {plan.name: plan for plan in plan_layers(model, config)}
    report = QuantizationReport(tuple(map(_report_layer, plans.values())))
    if not report.quantized:
        reasons = sorted({layer.reason for layer in report.skipped}) or ['it has no layers']
        raise ValueError(
            f'no layer of {type(model).__name__} can be quantized: {"; ".join(reasons)}; '
            f'layers of the classes {sorted({c.__name__ for c in QUANTIZED_LAYERS})} can'
        )
    quantized = [plan for plan in plans.values() if not plan.reason]
    shared = add_shared_quantizers(
        model,
        dict(
            weight=[(plan.weight, plan.layer) for plan in quantized],
            activation=[(plan.activation, plan.layer) for plan in quantized],
        ),
    )
    in_float = [name for name, plan in plans.items() if plan.activation is None]
    blocks = _find_blocks(model, plans, config.quantize_identity)
    sums = plan_sums(model, plans, list(blocks), in_float, config.sums) if config.sums else []
    _replace_layers(model, plans, shared)
    for block, activation in blocks.items():
        quantize_block_input(block, shared.get(activation, activation))
    _quantize_outputs(model, plans.values())
    _refuse_reparameterization(model)
    unpack_when_loading(model)
    return replace(report, sums=tuple(map(quantize_sums, sums)))


def _find_blocks(
    model: nn.Module, plans: dict[str, LayerPlan], quantize_identity: bool
) -> dict[nn.Module, QuantizerConfig]:
    """Find the residual blocks whose input is quantized once, and remove it from their layers."""
    blocks = {}
    for name, block in model.named_modules():
        conv1 = plans.get(f'{name}.conv1')
        if conv1 is None or not reads_its_input_once(block):
            continue
        readers = [conv1]
        downsample = getattr(block, 'downsample', None)
        if downsample is None and not quantize_identity:
            continue
        if isinstance(downsample, nn.Sequential):  # its first layer may be a pool
            readers += [p for p in plans.values() if p.layer is downsample[0]]
        activation = conv1.activation
        if activation is None or any(reader.activation != activation for reader in readers):
            continue
        for reader in readers:
            plans[reader.name] = replace(reader, activation=None)
        blocks[block] = activation
    return blocks


def _replace_layers(
    model: nn.Module,
    plans: dict[str, LayerPlan],
    shared: dict[QuantizerConfig | None, Quantizer],
) -> None:
    # by identity: heads share one layer among several places
    quantized = {
        plan.layer: QUANTIZED_LAYERS[type(plan.layer)].from_float(
            plan.layer,
            shared.get(plan.weight, plan.weight),
            shared.get(plan.activation, plan.activation),
        )
        for plan in plans.values()
        if not plan.reason
    }
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in quantized:
                parent._modules[name] = quantized[child]


def _quantize_outputs(model: nn.Module, plans: Iterable[LayerPlan]) -> None:
    """Quantize behind the layers, and behind the ConvModules that hold them."""
    holders: dict[nn.Module, list[nn.Module]] = {}
    for module in model.modules():
        if isinstance(module, ConvModule):
            holders.setdefault(module.conv, []).append(module)
    for plan in plans:
        if plan.output is not None:
            layer = model.get_submodule(plan.name)
            for module in holders.get(layer, [layer]):
                quantize_output(module, plan.output)


def _refuse_reparameterization(model: nn.Module) -> None:
    """Replace methods that would merge the float weights of several layers into one."""
    for module in model.modules():
        merges = callable(getattr(module, 'switch_to_deploy', None))
        if merges and any(isinstance(layer, QuantizedLayer) for layer in module.modules()):
            module.__dict__['switch_to_deploy'] = partial(_cannot_switch, type(module).__name__)


def _cannot_switch(kind: str) -> NoReturn:
    raise RuntimeError(
        f'{kind}.switch_to_deploy() would merge float weights and lose the quantizers: '
        're-parameterize the float model, then quantize a config with its `deploy=True`'
    )


def _report_layer(plan: LayerPlan) -> LayerReport:
    return LayerReport(
        name=plan.name,
        kind=type(plan.layer).__name__,
        weight=describe_quantizer(plan.weight),
        activation=describe_quantizer(plan.activation),
        output=describe_quantizer(plan.output),
        reason=plan.reason,
        num_weights=sum(weight.numel() for weight in own_weights(plan.layer)),
        weight_bits=num_bits(plan.weight.levels) if plan.weight else 32,
    )
