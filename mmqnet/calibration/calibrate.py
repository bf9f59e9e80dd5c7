"""Calibration of a converted model: initial scales and thresholds of all its quantizers."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast, is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn

from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.samples import SampleCollector
from mmqnet.calibration.scales import fit_scales, initial_beta
from mmqnet.calibration.thresholds import initial_thresholds
from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import Quantizer, quantizers_of


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[str]:
    """Initialises all quantizers that have not been calibrated yet.

    On several processes each brings batches of its own, and all end with the same values.

    Args:
        model: A converted model, in float as far as it has been trained.
        batches: Training samples, for the inputs' quantizers. Where only weights are quantized,
            the first one is enough: it shows that the model calls their layers.
        forward: Runs the model on one batch.
        progress: Wraps the batches, to show how far it is.

    Returns:
        list[str]: Names of the quantizers that were initialised; empty if none was left to be.

    Raises:
        ValueError: If weights or activations are not finite, the model has not called a layer
            with quantizers, or an input was empty in all batches.
    """
    pending = {n: q for n, q in quantizers_of(model).items() if not q.is_calibrated}
    if not pending:
        return []
    weights = {n: layers for n, layers in _weights_to_quantize(model).items() if n in pending}
    inputs = {n: q for n, q in pending.items() if n not in weights}
    for name, layers in weights.items():
        _calibrate_weight(name, pending[name], layers)
    with _observed(model, inputs) as (collectors, called):
        for batch in progress(batches if inputs else itertools.islice(batches, 1)):
            forward(batch)
    collectors, called = _merge_processes(collectors, called)
    _check_called(model, called)
    for name, collector in collectors.items():
        _calibrate_input(name, inputs[name], collector)
    _broadcast(pending)
    return list(pending)


def _weights_to_quantize(model: nn.Module) -> dict[str, dict[str, QuantizedLayer]]:
    """For each weight quantizer by name, the layers that it is of, by name."""
    names = {id(quantizer): name for name, quantizer in quantizers_of(model).items()}
    found: dict[str, dict[str, QuantizedLayer]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLayer) and layer.weight_quantizer is not None:
            found.setdefault(names[id(layer.weight_quantizer)], {})[name] = layer
    return found


@torch.no_grad()
def _calibrate_weight(name: str, quantizer: Quantizer, layers: dict[str, QuantizedLayer]) -> None:
    weights = (_finite_weight(*item) for item in layers.items())
    if quantizer.config.is_shared:
        collector = SampleCollector(name)
        for weight in weights:
            collector(weight)
        values, max_abs = _collected(collector, quantizer)
    else:
        (values,), shape = weights, quantizer.log_beta.shape
        max_abs = values.abs().flatten(1).amax(1).view(shape) if shape else values.abs().max()
    _initialize(name, quantizer, values, max_abs, signed=True)


def _finite_weight(name: str, layer: QuantizedLayer) -> Tensor:
    weight = layer.effective_weight().detach().float()
    if not weight.isfinite().all():
        key = f'{name}.weight'.lstrip('.')
        raise ValueError(f'the weights `{key}` are not finite: check the float checkpoint')
    return weight


def _collected(collector: SampleCollector, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """The sample and the largest absolute value, where the quantizer is."""
    device = quantizer.log_beta.device
    return collector.values().to(device), torch.tensor(collector.max_abs, device=device)


@torch.no_grad()
def _calibrate_input(name: str, quantizer: Quantizer, collector: SampleCollector) -> None:
    if not len(collector.values()):
        raise ValueError(
            f'`{name}` has seen no input at calibration, or empty ones only: more samples may '
            'help; if the layer has nothing to do, name it in `quantization.exclude`'
        )
    signed = collector.minimum < 0
    if signed and quantizer.config.is_shared:
        _tell_signed(name, quantizer)
    values, max_abs = _collected(collector, quantizer)
    _initialize(name, quantizer, values, max_abs, signed)


def _tell_signed(name: str, quantizer: Quantizer) -> None:
    """All inputs that share a function count as one: a single signed one makes it signed."""
    levels = quantizer.config.levels_for(signed=True)
    if levels is None:
        raise ValueError(
            f'some of the inputs that share `{name}` are signed, and `signed_levels=None` would '
            'leave all in float: name the layers with signed inputs in `quantization.exclude`'
        )
    if levels != quantizer.config.levels:
        print_log(
            f'some of the inputs that share `{name}` are signed: all get the levels '
            f'{levels[0]:g}..{levels[-1]:g}',
            logger='current',
            level=logging.WARNING,
        )


def _initialize(
    name: str, quantizer: Quantizer, values: Tensor, max_abs: Tensor, signed: bool
) -> None:
    config = quantizer.config
    levels = config.levels_for(signed) or config.levels
    beta = initial_beta(levels, max_abs)
    scaled = (beta * values).flatten()
    method = config.thresholds
    if method == 'kmeans' and scaled.min() == scaled.max():
        print_log(
            f'all values of `{name}` are {values.flatten()[0].item():g}: uniform thresholds',
            logger='current',
            level=logging.WARNING,
        )
        method = 'uniform'
    thresholds = initial_thresholds(scaled, levels, method, config.zero_threshold)
    alpha = 1 / beta
    if config.scale_init == 'mse':
        rows, shape = values.reshape(beta.numel(), -1), beta.shape
        fitted = fit_scales(rows, levels, thresholds, beta.flatten(), method != 'kmeans')
        alpha, beta = (scale.view(shape) for scale in fitted)
    quantizer.initialize(signed, alpha, beta, thresholds)


@contextmanager
def _observed(
    model: nn.Module, inputs: dict[str, Quantizer]
) -> Iterator[tuple[dict[str, SampleCollector], set[str]]]:
    """Within the block, the model runs in float evaluation mode and is watched.

    Args:
        model: The converted model.
        inputs: The quantizers whose inputs are collected, by their names.

    Yields:
        The collectors of the inputs, and the set to which the name of each quantized layer is
        added that the model calls.
    """
    collectors = {name: SampleCollector(name, seed=i) for i, name in enumerate(inputs)}
    called: set[str] = set()
    hooks = [
        layer.register_forward_pre_hook(functools.partial(_note_call, called, name))
        for name, layer in _quantized_layers(model).items()
    ]
    everything = quantizers_of(model)
    for name, quantizer in everything.items():
        quantizer.observer = collectors.get(name, _ignore)
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            yield collectors, called
    finally:
        for hook in hooks:
            hook.remove()
        for quantizer in everything.values():
            quantizer.observer = None


def _ignore(x: Tensor) -> None:
    """Observer that makes a quantizer let its input pass."""


def _note_call(called: set[str], name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
    called.add(name)


def _quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLayer)}


def _check_called(model: nn.Module, called: set[str]) -> None:
    """Refuses converted layers that the model does not call: their quantizers would be idle."""
    idle = [name for name in _quantized_layers(model) if name not in called]
    if called and idle:
        names = ', '.join(f'`{name}`' for name in idle[:8]) + (', ...' if len(idle) > 8 else '')
        raise ValueError(
            f'the model never called {len(idle)} of its quantized layers at calibration: '
            f'{names}. Either other code reads their weights, which would pass by the quantizers, '
            'or they have no part in inference: name them in `quantization.exclude`'
        )


def _merge_processes(
    collectors: dict[str, SampleCollector], called: set[str]
) -> tuple[dict[str, SampleCollector], set[str]]:
    if not is_distributed():
        return collectors, called
    (first, _), *others = all_gather_object((collectors, called))
    for other, also_called in others:
        called = called | also_called
        for name, collector in first.items():
            collector.merge(other[name])
    return first, called


def _broadcast(quantizers: dict[str, Quantizer]) -> None:
    """Makes all processes end with the very bits of the first one."""
    for quantizer in quantizers.values():
        for tensor in (*quantizer.parameters(), *quantizer.buffers()):
            broadcast(tensor.data)
