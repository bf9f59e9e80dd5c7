"""Calibration of a converted model: fits its quantizers to weights and to training samples."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast, is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn

from mmqnet.calibration.float_activations import report_float_activations
from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.processes import together
from mmqnet.calibration.samples import SampleCollector
from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import Quantizer, Sample, quantizers_of


def pending_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers that calibration is to initialise, by name.

    Those which have not been calibrated, but for the ones that the present phase of a training
    leaves in float: they are calibrated when their phase begins.
    """
    return {
        name: quantizer
        for name, quantizer in quantizers_of(model).items()
        if not quantizer.is_calibrated and quantizer.is_active
    }


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    progress_bar: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[str]:
    """Initialise all quantizers that have not been calibrated yet.

    A warning names those of signed inputs for which the config gives no levels.

    Arguments and errors are those of :func:`collect_samples`.

    Returns:
        list[str]: Names of the quantizers that were initialised; empty if none was left to be.
    """
    pending = pending_quantizers(model)
    for name, sample in collect_samples(model, batches, forward, progress_bar).items():
        _initialize(name, pending[name], sample)
    broadcast_modules(pending.values())
    report_float_activations(model, among=pending)
    return list(pending)


def collect_samples(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    progress_bar: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Sample]:
    """Collect what the quantizers are fitted to that have not been calibrated yet.

    While activations are observed, quantizers that have been calibrated before act with their hard
    functions, and those that are being calibrated pass their inputs unchanged. On several processes
    each brings batches of its own, and all end with the same values; if one fails, all fail.

    Args:
        model: A converted model, in float as far as it has been trained.
        batches: Training samples, for the inputs' quantizers. Where only weights are quantized,
            the first one is enough: it shows that the model calls their layers.
        forward: Runs the model on one batch.
        progress_bar: Wraps the batches, to show how many are done.

    Returns:
        dict[str, Sample]: By the names of the quantizers.

    Raises:
        ValueError: If weights or activations are not finite, the model has not called a layer
            with quantizers, or an input was empty in all batches.
        RuntimeError: If other processes have other quantizers to calibrate.
    """
    pending = pending_quantizers(model)
    check_same_on_processes(pending)
    if not pending:
        return {}
    weights = {n: layers for n, layers in _weights_to_quantize(model).items() if n in pending}
    inputs = {n: q for n, q in pending.items() if n not in weights}
    with together('calibration'):
        samples = {n: weight_sample(n, pending[n], layers) for n, layers in weights.items()}
        with _observed(model, pending, inputs) as (collectors, called):
            for batch in progress_bar(batches if inputs else itertools.islice(batches, 1)):
                forward(batch)
    collectors, called = _merge_processes(collectors, called)
    _check_called(model, called)
    samples.update((n, _input_sample(n, inputs[n], c)) for n, c in collectors.items())
    return samples


def _weights_to_quantize(model: nn.Module) -> dict[str, dict[str, QuantizedLayer]]:
    """Return for each weight quantizer by name the layers that it is of, by name."""
    names = {id(quantizer): name for name, quantizer in quantizers_of(model).items()}
    found: dict[str, dict[str, QuantizedLayer]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLayer) and layer.weight_quantizer is not None:
            found.setdefault(names[id(layer.weight_quantizer)], {})[name] = layer
    return found


@torch.no_grad()
def weight_sample(name: str, quantizer: Quantizer, layers: Mapping[str, QuantizedLayer]) -> Sample:
    """Return what the quantizer of the weights of some layers is fitted to.

    Args:
        name: Name of the quantizer.
        quantizer: It.
        layers: By name, one or, if they share the quantizer, more.

    Raises:
        ValueError: If weights are not finite.
    """
    weights = [_finite_weight(*item) for item in layers.items()]
    axis = next(iter(layers.values())).channel_axis
    if len(weights) > 1:  # that share a function
        collector = SampleCollector(name)
        for weight in weights:
            collector(weight)
        return collector.sample(weights[0].device)._replace(signed=True)
    by_channel = bool(quantizer.scale_shape)
    rows = weights[0].movedim(axis, 0).flatten(1) if by_channel else weights[0].reshape(1, -1)
    return Sample(rows, rows.abs().amax(1), signed=True)


def _finite_weight(name: str, layer: QuantizedLayer) -> Tensor:
    weight = layer.effective_weight().detach().float()
    if not weight.isfinite().all():
        key = f'{name}.weight'.lstrip('.')
        raise ValueError(f'the weights `{key}` are not finite: check the float checkpoint')
    return weight


def _input_sample(name: str, quantizer: Quantizer, collector: SampleCollector) -> Sample:
    if not len(collector.values()):
        raise ValueError(
            f'`{name}` has seen no input at calibration, or empty ones only: more samples may '
            'help; if the layer has nothing to do, name it in `quantization.exclude`'
        )
    sample = collector.sample(quantizer.levels.device)
    if sample.signed and quantizer.config.is_shared:
        _check_signed(name, quantizer)
    return sample


def _check_signed(name: str, quantizer: Quantizer) -> None:
    config = quantizer.config
    if not config.level_sets(signed=True):
        raise ValueError(
            f'some of the inputs that share `{name}` are signed, and {config.type_name} with '
            f'`signed_levels={config.signed_levels!r}` would leave all in float: name the layers '
            'with signed inputs in `quantization.exclude`'
        )


def _initialize(name: str, quantizer: Quantizer, sample: Sample) -> None:
    low, high = sample.values.aminmax()
    if low == high:
        print_log(
            f'all values of `{name}` are {low.item():g}: its scales and thresholds mean little',
            logger='current',
            level=logging.WARNING,
        )
    quantizer.initialize(sample)
    if quantizer.config.is_shared and quantizer.levels[0] < quantizer.config.levels[0]:
        print_log(
            f'some of the inputs that share `{name}` are signed: all get signed levels',
            logger='current',
            level=logging.WARNING,
        )


@contextmanager
def _observed(
    model: nn.Module, pending: Mapping[str, Quantizer], inputs: Mapping[str, Quantizer]
) -> Iterator[tuple[dict[str, SampleCollector], set[str]]]:
    """Run the model in evaluation mode and watch it, within the block.

    Args:
        model: The converted model.
        pending: The quantizers that pass their inputs unchanged, by name.
        inputs: Those of them whose inputs are collected.

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
    observers = {q: collectors.get(name, pass_unchanged) for name, q in pending.items()}
    try:
        with observed_by(observers), modes_kept(model), torch.no_grad():
            model.eval()
            yield collectors, called
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def observed_by(observers: Mapping[Quantizer, Callable[[Tensor], None]]) -> Iterator[None]:
    """Give quantizers their observers within the block, in which they pass their inputs."""
    for quantizer, observer in observers.items():
        quantizer.observer = observer
    try:
        yield
    finally:
        for quantizer in observers:
            quantizer.observer = None


def pass_unchanged(x: Tensor) -> None:
    """Observe nothing; while it has an observer, a quantizer passes its input."""


def _note_call(called: set[str], name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
    called.add(name)


def _quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLayer)}


def _check_called(model: nn.Module, called: set[str]) -> None:
    """Refuse converted layers that the model does not call: their quantizers would be idle."""
    idle = [name for name in _quantized_layers(model) if name not in called]
    if called and idle:
        names = ', '.join(f'`{name}`' for name in idle[:8]) + (', ...' if len(idle) > 8 else '')
        raise ValueError(
            f'the model never called {len(idle)} of its quantized layers at calibration: '
            f'{names}. Either other code reads their weights, which would bypass the quantizers, '
            'or they have no part in inference: name them in `quantization.exclude`'
        )


def check_same_on_processes(pending: Iterable[str]) -> None:
    """Check that all processes have the same quantizers to calibrate.

    Args:
        pending: Their names on this process.

    Raises:
        RuntimeError: On all processes, if they differ: they would wait for each other without end.
    """
    if not is_distributed():
        return
    of_processes = [set(names) for names in all_gather_object(list(pending))]
    differing = sorted(set.union(*of_processes) - set.intersection(*of_processes))
    if differing:
        raise RuntimeError(
            f'only some of the processes are to calibrate {len(differing)} of the quantizers, '
            f'`{differing[0]}` first: all should have loaded the same checkpoint'
        )


def _merge_processes(
    collectors: dict[str, SampleCollector], called: set[str]
) -> tuple[dict[str, SampleCollector], set[str]]:
    """Put together what all processes have seen.

    Args:
        collectors: Those of inputs, by name, the same names on every process.
        called: Names of the layers that the model has called.
    """
    if not is_distributed():
        return collectors, called
    merged = {}
    # One by one: a collector holds up to 4 MiB, those of a whole model and of all processes GiB.
    # They are sent as they are: one that selects before merging has values of equal keys in another
    # order, which changes the last bits of means.
    for name, collector in collectors.items():
        merged[name], *others = all_gather_object(collector)
        for other in others:
            merged[name].merge(other)
    return merged, set.union(*all_gather_object(called))


def broadcast_modules(modules: Iterable[nn.Module]) -> None:
    """Give quantizers, or layers with theirs, the very bits of the first process on all."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data)
        for quantizer in quantizers_of(module).values():
            quantizer.refresh()
