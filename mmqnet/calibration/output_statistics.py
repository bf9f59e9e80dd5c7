"""Outputs of quantized layers with the mean and the standard deviation that they had in float."""

import copy
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce_params, broadcast, is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn

from mmqnet.calibration.calibrate import pass_unchanged, weight_sample
from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.processes import together
from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import Quantizer, quantizers_of

# A channel that hardly varies over the samples says nothing of the size of its weights.
_MAX_GAIN = 4.0


@torch.no_grad()
def match_outputs(
    model: nn.Module,
    names: Collection[str],
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    progress_bar: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[str]:
    """Give quantized layers the mean and the standard deviation of their outputs in float.

    Weights at the levels of the least squared error are smaller than the float ones, so that the
    outputs shrink layer by layer, and their means move. Batch normalization takes that back; for
    layers without it, the weights of each channel are multiplied by the ratio of the standard
    deviations, their quantizer is fitted again, and the difference of the means is added to the
    bias, in frozen layers too. It is the correction of Nagel et al. (ICCV 2019, section 4.2), for
    both moments as in Banner et al. (NeurIPS 2019, section 4), and measured at the outputs.

    Each batch runs twice: with the new quantizers in float, and with hard functions. The second
    time, the output of a layer gets the moments of the first time before the next layer reads it,
    so that one pass corrects all layers; its result is the average over the batches. Where a
    weights' quantizer has one scale, all its channels share the ratio.

    Args:
        model: A converted model, calibrated.
        names: Quantizers that have just been fitted; the reference is the model in which they pass
            their inputs.
        batches: Training samples. On several processes each brings batches of its own, and all end
            with the same bits.
        forward: Runs the model on one batch.
        progress_bar: Wraps the batches, to show how many are done.

    Returns:
        list[str]: Names of the layers whose outputs match now; empty if none of their weights'
        quantizers is among ``names``.

    Raises:
        ValueError: As :func:`matchable_layers`; if the quantized weights of no layer grow with the
            weights (DoReFa's do not), no batch reaches a layer, or outputs are not finite. The
            model is then as it was before.
    """
    new = [quantizer for name, quantizer in quantizers_of(model).items() if name in names]
    with modes_kept(model):
        model.eval()
        fitted = {
            name: layer
            for name, layer in matchable_layers(model).items()
            if layer.weight_quantizer in new
        }
        layers = {name: layer for name, layer in fitted.items() if _follows_size(name, layer)}
        if not layers:
            if fitted:
                raise ValueError(
                    'outputs cannot be matched: in no layer do the quantized weights grow with the '
                    'weights'
                )
            return []
        watched = {name: _Outputs(name, layer) for name, layer in layers.items()}
        with together('the matching of outputs'), _watching(watched.values()):
            for batch in progress_bar(batches):
                with _in_float(new):
                    forward(batch)
                forward(batch)
                for outputs in watched.values():
                    outputs.end_batch()
        _merge_processes(watched)
        matched = [name for name, outputs in watched.items() if outputs.found.count]
        if not matched:
            raise ValueError(
                'no training sample has reached a layer whose outputs are to be matched'
            )
        for name in matched:
            watched[name].correct()
    print_log(f'Matched the outputs of {len(matched)} of {len(fitted)} layers', logger='current')
    return matched


def matchable_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return by name the layers whose outputs can be matched.

    They have a bias, and neither it, their weights nor the weights' quantizer belong to other
    layers, too.

    Raises:
        ValueError: If there is none.
    """
    modules = dict(model.named_modules())
    owners = Counter(id(p) for m in modules.values() for p in m._parameters.values())
    layers = {name: m for name, m in modules.items() if isinstance(m, QuantizedLayer)}
    owners.update(id(layer.weight_quantizer) for layer in layers.values())
    found = {
        name: layer
        for name, layer in layers.items()
        if layer.weight_quantizer is not None
        and owners[id(layer.weight_quantizer)] == 1
        and all(
            layer._parameters.get(key) is not None and owners[id(layer._parameters[key])] == 1
            for key in ('weight', 'bias')
        )
    }
    if not found:
        raise ValueError(
            f'no quantized layer of {type(model).__name__} has a bias and a function of its own, '
            'so outputs cannot be matched: for layers with batch normalization, re-estimate its '
            'statistics instead'
        )
    return found


def _follows_size(name: str, layer: QuantizedLayer) -> bool:
    """Return whether half the weights are quantized to half the values."""
    assert layer.weight_quantizer is not None
    weight, state = layer.weight.clone(), copy.deepcopy(layer.weight_quantizer.state_dict())
    before = layer.quantized_weight().clone()
    try:
        _scale_weights(name, layer, torch.tensor(0.5))
        difference = 2 * layer.quantized_weight() - before
    finally:
        layer.weight.copy_(weight)
        layer.weight_quantizer.load_state_dict(state)
    # not exactly: rounding takes a weight that is at a threshold to another level
    return bool(difference.norm() <= 0.1 * before.norm())


def _scale_weights(name: str, layer: QuantizedLayer, factor: Tensor) -> None:
    quantizer = layer.weight_quantizer
    assert quantizer is not None
    layer.weight.mul_(factor)
    quantizer.initialize(weight_sample(name, quantizer, {name: layer}))


class _Moments:
    """Mean and variance of the channels over calls."""

    def __init__(self, channels: Tensor) -> None:
        self.total = torch.zeros_like(channels, dtype=torch.float64)
        self.squares = torch.zeros_like(self.total)
        self.count = torch.zeros_like(self.total[0])

    @classmethod
    def of(cls, output: Tensor, axis: int) -> '_Moments':
        axes = [i for i in range(output.dim()) if i != axis % output.dim()]
        variance, mean = (m.double() for m in torch.var_mean(output.float(), axes, correction=0))
        moments = cls(mean)
        moments.count.fill_(output.numel() // len(mean))
        moments.total.copy_(mean * moments.count)
        moments.squares.copy_((variance + mean.square()) * moments.count)
        return moments

    @property
    def sums(self) -> list[Tensor]:
        return [self.count, self.total, self.squares]

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        return (self.squares / self.count - self.mean.square()).clamp(min=0)

    def add(self, other: '_Moments') -> None:
        for own, more in zip(self.sums, other.sums, strict=True):
            own += more


class _Outputs:
    """Moments of a layer's outputs: in float, and quantized behind corrected layers.

    Args:
        name: Name of the layer.
        layer: The layer.

    Attributes:
        reference (_Moments): In float.
        found (_Moments): Quantized.
    """

    def __init__(self, name: str, layer: QuantizedLayer) -> None:
        quantizer = layer.weight_quantizer
        assert quantizer is not None
        self.name, self.layer, self._quantizer = name, layer, quantizer
        self._axis = -1 if isinstance(layer, nn.Linear) else -3
        self._scales = math.prod(quantizer.scale_shape)
        self._of_batch: deque[_Moments | None] = deque()  # in float, call by call
        self.reference, self.found = _Moments(layer.bias), _Moments(layer.bias)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Take in an output; return it with the moments of the float one."""
        moments = _Moments.of(output, self._axis) if output.numel() else None
        if moments and not moments.squares.isfinite().all():
            raise ValueError(
                f'the output of `{self.name}` holds NaN or infinite values when outputs are '
                'matched: check the float checkpoint and the data'
            )
        if self._quantizer.observer is not None:
            self._of_batch.append(moments)
            return None
        # in float, the model may have called it less often
        reference = self._of_batch.popleft() if self._of_batch else None
        if not moments or not reference:
            return None
        self.reference.add(reference)
        self.found.add(moments)
        gain, shift = self._correction(reference, moments)
        shape = [1] * output.dim()
        shape[self._axis] = -1
        return (output * gain.view(shape) + shift.view(shape)).to(output.dtype)

    def end_batch(self) -> None:
        """Forget the calls that the quantized model has not made."""
        self._of_batch.clear()

    def correct(self) -> None:
        """Correct the layer's weights and bias by the moments of all batches."""
        layer = self.layer
        gain, shift = self._correction(self.reference, self.found)
        layer.bias.copy_(gain * layer.bias + shift)
        gain = gain[: self._scales].view(self._quantizer.scale_shape)
        _scale_weights(self.name, layer, gain)
        for tensor in layer.state_dict().values():
            broadcast(tensor)
        self._quantizer.refresh()

    def _correction(self, reference: _Moments, found: _Moments) -> tuple[Tensor, Tensor]:
        """Return factor and summand of the outputs, (C,) each."""
        wanted, given = (m.variance.view(-1, self._scales).sum(0) for m in (reference, found))
        ratio = (wanted / given).sqrt().clamp(1 / _MAX_GAIN, _MAX_GAIN)
        ratio = torch.where((wanted > 0) & (given > 0), ratio, 1.0)
        gain = ratio.repeat(len(reference.total) // self._scales)
        return gain.float(), (reference.mean - gain * found.mean).float()


@contextmanager
def _in_float(quantizers: Iterable[Quantizer]) -> Iterator[None]:
    """Let quantizers pass their inputs unchanged, within the block."""
    for quantizer in quantizers:
        quantizer.observer = pass_unchanged
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.observer = None


@contextmanager
def _watching(outputs: Iterable[_Outputs]) -> Iterator[None]:
    # before the hook of an output's quantizer
    hooks = [watched.layer.register_forward_hook(watched, prepend=True) for watched in outputs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _merge_processes(watched: Mapping[str, _Outputs]) -> None:
    if is_distributed():
        moments = [m for outputs in watched.values() for m in (outputs.reference, outputs.found)]
        all_reduce_params([value for m in moments for value in m.sums])
