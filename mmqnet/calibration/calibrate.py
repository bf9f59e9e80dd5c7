"""Calibration of a converted model: initial scales and thresholds of all its quantizers."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast, is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn

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
        batches: Training samples, for the inputs' quantizers.
        forward: Runs the model on one batch.
        progress: Wraps the batches, to show how far it is.

    Returns:
        list[str]: Names of the quantizers that were initialised; empty if none was left to be.

    Raises:
        ValueError: If weights or activations are not finite, or an input was never seen.
    """
    pending = {n: q for n, q in quantizers_of(model).items() if not q.is_calibrated}
    if not pending:
        return []
    weights = {n: layer for n, layer in _weights_to_quantize(model).items() if n in pending}
    inputs = {n: q for n, q in pending.items() if n not in weights}
    for name, layer in weights.items():
        _calibrate_weight(name, layer)
    if inputs:
        with _observed(model, inputs) as collectors:
            for batch in progress(batches):
                forward(batch)
        for name, collector in _merge_processes(collectors).items():
            _calibrate_input(name, inputs[name], collector)
    _broadcast(pending)
    return list(pending)


def _weights_to_quantize(model: nn.Module) -> dict[str, QuantizedLayer]:
    return {
        f'{name}.weight_quantizer'.lstrip('.'): layer
        for name, layer in model.named_modules()
        if isinstance(layer, QuantizedLayer) and layer.weight_quantizer is not None
    }


@torch.no_grad()
def _calibrate_weight(name: str, layer: QuantizedLayer) -> None:
    quantizer = layer.weight_quantizer
    assert quantizer is not None
    weight = layer.effective_weight().detach().float()
    if not weight.isfinite().all():
        raise ValueError(f'the weights of `{name}` are not finite: check the float checkpoint')
    scale_shape = quantizer.log_beta.shape
    max_abs = (
        weight.abs().flatten(1).amax(1).view(scale_shape) if scale_shape else weight.abs().max()
    )
    _initialize(name, quantizer, weight, max_abs, signed=True)


@torch.no_grad()
def _calibrate_input(name: str, quantizer: Quantizer, collector: SampleCollector) -> None:
    if not len(collector.values()):
        raise ValueError(
            f'`{name}` has seen no input at calibration: does the model run this layer? '
            'If not, name it in `quantization.exclude`'
        )
    device = quantizer.log_beta.device
    values, max_abs = collector.values().to(device), torch.tensor(collector.max_abs, device=device)
    _initialize(name, quantizer, values, max_abs, signed=collector.minimum < 0)


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
    model: nn.Module, quantizers: dict[str, Quantizer]
) -> Iterator[dict[str, SampleCollector]]:
    """Within the block, the model runs in float evaluation mode and the inputs are collected."""
    collectors = {name: SampleCollector(name, seed=i) for i, name in enumerate(quantizers)}
    training = {module: module.training for module in model.modules()}
    everything = quantizers_of(model).values()
    for quantizer in everything:
        quantizer.observer = _ignore
    for name, quantizer in quantizers.items():
        quantizer.observer = collectors[name]
    model.eval()
    try:
        with torch.no_grad():
            yield collectors
    finally:
        for quantizer in everything:
            quantizer.observer = None
        for module, was_training in training.items():
            module.training = was_training


def _ignore(x: Tensor) -> None:
    """Observer that makes a quantizer let its input pass."""


def _merge_processes(collectors: dict[str, SampleCollector]) -> dict[str, SampleCollector]:
    if not is_distributed():
        return collectors
    first, *others = all_gather_object(collectors)
    for other in others:
        for name, collector in first.items():
            collector.merge(other[name])
    return first


def _broadcast(quantizers: dict[str, Quantizer]) -> None:
    """Makes all processes end with the very bits of the first one."""
    for quantizer in quantizers.values():
        for tensor in (*quantizer.parameters(), *quantizer.buffers()):
            broadcast(tensor.data)
