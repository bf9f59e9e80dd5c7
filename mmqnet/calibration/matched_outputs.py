"""Outputs of quantized layers that are as near to those in float as two numbers bring them."""

import copy
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn

from mmqnet.calibration.calibrate import (
    broadcast_modules,
    observed_by,
    pass_unchanged,
    weight_sample,
)
from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.processes import together
from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import quantizers_of

# A channel that hardly varies over the samples says nothing of the size of its weights.
_MAX_GAIN = 4.0
# Heads read regions that the model proposes: in float and quantized these are different ones. With
# 2-bit weights a layer deep in VGG16 has 0.33.
_MIN_CORRELATION = 0.2
# Of a mean square: less is what rounding leaves of a constant, not its variance.
_ROUNDING = 1e-10


@torch.no_grad()
def match_outputs(
    model: nn.Module,
    names: Collection[str],
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    progress_bar: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[str]:
    """Bring the outputs of quantized layers back to those in float, with a factor and a summand.

    The scales of the least squared error are those of the weights, not of the outputs: where the
    inputs of a layer depend on each other, its outputs shrink, and their means move. Batch
    normalization takes that back. For layers without it, a regression of the float outputs on the
    quantized ones says what does: the weights of each channel are multiplied by its factor and
    quantized again, and the bias is moved, in frozen layers too. The means alone are the correction
    of Nagel et al. (ICCV 2019, section 4.2); Banner et al. (NeurIPS 2019, section 4) correct mean
    and size of the weights.

    Each batch runs twice: with the new quantizers in float, and with hard functions. The second
    time, the output of a layer is corrected before the next layer reads it, so that one pass does
    for all layers; its result is the regression over all batches. Where a weights' quantizer has
    one scale, all its channels share the factor. The float outputs of one batch are kept meanwhile,
    about as much as a training step keeps.

    Args:
        model: A converted model, calibrated.
        names: Quantizers that have just been fitted; the model is in float where they pass their
            inputs.
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
        watched = [_Outputs(name, layer) for name, layer in layers.items()]
        with together('the matching of outputs'), _watching(watched):
            for batch in progress_bar(batches):
                with observed_by(dict.fromkeys(new, pass_unchanged)):
                    forward(batch)
                forward(batch)
                for outputs in watched:
                    outputs.end_batch()
        _merge_processes(watched)
        if not any(outputs.regression.count for outputs in watched):
            raise ValueError(
                'no training sample has reached a layer whose outputs are to be matched'
            )
        matched = [outputs.name for outputs in watched if outputs.correct()]
    left_out = ', '.join(f'`{name}`' for name in fitted if name not in matched)
    print_log(
        f'Matched the outputs of {len(matched)} of {len(fitted)} layers'
        + (f', not of {left_out}' if left_out else ''),
        logger='current',
    )
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


class _Regression:
    """Sums over pairs of values, of which one is to be told from the other; by channel."""

    def __init__(self, channels: Tensor) -> None:
        self.x, self.y, self.xx, self.xy, self.yy = (
            torch.zeros_like(channels, dtype=torch.float64) for _ in range(5)
        )
        self.count = torch.zeros_like(self.x[0])

    @classmethod
    def of(cls, given: Tensor, wanted: Tensor, axis: int) -> '_Regression':
        """Return the sums of two tensors of one shape whose channels are in dimension ``axis``."""
        rows = [x.movedim(axis, 0).flatten(1).float() for x in (given, wanted)]
        x, y = (row.mean(1).double() for row in rows)
        dx, dy = (row - row.mean(1, keepdim=True) for row in rows)
        found, count = cls(x), rows[0].shape[1]
        found.count.fill_(count)
        found.x, found.y = count * x, count * y
        products = ((dx, dx, x * x), (dx, dy, x * y), (dy, dy, y * y))
        found.xx, found.xy, found.yy = (
            count * ((a * b).mean(1).double() + of_means) for a, b, of_means in products
        )
        return found

    @property
    def sums(self) -> list[Tensor]:
        return [self.count, self.x, self.y, self.xx, self.xy, self.yy]

    def add(self, other: '_Regression') -> None:
        for own, more in zip(self.sums, other.sums, strict=True):
            own += more

    def solve(self, scales: int) -> tuple[Tensor, Tensor] | None:
        """Return factors and summands of the least squared error, (C,) each.

        Args:
            scales: How many factors there may be; channels share one in turn.

        Returns:
            None if there is no pair, or both have too little to do with each other.
        """
        if not self.count:
            return None
        x, y = self.x / self.count, self.y / self.count
        xx, xy, yy = (
            s / self.count - product
            for s, product in ((self.xx, x * x), (self.xy, x * y), (self.yy, y * y))
        )
        varies = [s > _ROUNDING * of_means for s, of_means in ((xx, x * x), (yy, y * y))]
        kept = ((xx, varies[0]), (xy, varies[0] & varies[1]), (yy, varies[1]))
        xx, xy, yy = (torch.where(known, s, 0.0).view(-1, scales).sum(0) for s, known in kept)
        # the pairs of constants tell nothing; the other ones should belong together
        if xy.sum() < _MIN_CORRELATION * (xx.sum() * yy.sum()).sqrt():
            return None
        ratio = torch.where((xx > 0) & (xy > 0), xy / xx, 1.0).clamp(1 / _MAX_GAIN, _MAX_GAIN)
        gain = ratio.repeat(len(x) // scales)
        return gain.float(), (y - gain * x).float()


class _Outputs:
    """Outputs of a layer: quantized behind corrected layers, and in float.

    Args:
        name: Name of the layer.
        layer: The layer.

    Attributes:
        regression (_Regression): Of the float ones on the quantized ones.
    """

    def __init__(self, name: str, layer: QuantizedLayer) -> None:
        quantizer = layer.weight_quantizer
        assert quantizer is not None
        self.name, self.layer, self._quantizer = name, layer, quantizer
        self._axis = -1 if isinstance(layer, nn.Linear) else -3
        self._scales = math.prod(quantizer.scale_shape)
        self._of_batch: deque[Tensor] = deque()  # in float, call by call
        self.regression = _Regression(layer.bias)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Take in an output; return it as near to the float one as a correction brings it."""
        if not output.isfinite().all():
            raise ValueError(
                f'the output of `{self.name}` holds NaN or infinite values when outputs are '
                'matched: check the float checkpoint and the data'
            )
        if self._quantizer.observer is not None:
            self._of_batch.append(output.clone())  # what follows may write to it
            return None
        # in float, the model may have called it less often, or with other regions
        wanted = self._of_batch.popleft() if self._of_batch else None
        if wanted is None or wanted.shape != output.shape or not output.numel():
            return None
        found = _Regression.of(output, wanted, self._axis)
        self.regression.add(found)
        correction = found.solve(self._scales)
        if correction is None:
            return None
        shape = [1] * output.dim()
        shape[self._axis] = -1
        gain, shift = (x.view(shape) for x in correction)
        return (output * gain + shift).to(output.dtype)

    def end_batch(self) -> None:
        """Forget the calls that the quantized model has not made."""
        self._of_batch.clear()

    def correct(self) -> bool:
        """Correct the layer's weights and bias by all batches, and return whether they can be."""
        correction = self.regression.solve(self._scales)
        if correction is None:
            return False
        layer, (gain, shift) = self.layer, correction
        layer.bias.copy_(gain * layer.bias + shift)
        gain = gain[: self._scales].view(self._quantizer.scale_shape)
        _scale_weights(self.name, layer, gain)
        broadcast_modules([layer])
        return True


@contextmanager
def _watching(outputs: Iterable[_Outputs]) -> Iterator[None]:
    # before the hook of an output's quantizer
    hooks = [watched.layer.register_forward_hook(watched, prepend=True) for watched in outputs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _merge_processes(watched: Iterable[_Outputs]) -> None:
    if is_distributed():
        all_reduce_params([value for outputs in watched for value in outputs.regression.sums])
