"""Figures about the quantizers of a model, for its report."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmqnet.calibration import SampleCollector, modes_kept
from mmqnet.layers import activation_quantizers
from mmqnet.models.report import describe_quantizer
from mmqnet.visualization.function import code_shares, drawn_function, relative_error, spread
from mmqnet.visualization.report.thumbnails import thumbnail
from mmqnet.visualization.sources import LayerValues, weight_names, weight_values

_CAPACITY = 2**16  # values of an activation that are kept


@dataclass(frozen=True)
class QuantizerFacts:
    """A quantizer on the values that pass it.

    Attributes:
        name: Dotted name of the layer, or of the quantizer of an activation.
        levels: A short text, for example ``'7: -4..4'``.
        bits: Bits of one code; 32 while it is switched off.
        alpha: Lowest, middle and highest output scale.
        beta: The same of the input scale.
        below: Share of the values below the lowest number that it can give.
        above: Share of those above the highest one.
        used: Share of the levels that at least one value takes.
        error: RMS error as a share of the RMS of the values.
        picture: Thumbnail of the function over the histogram of the values, SVG.
    """

    name: str
    levels: str
    bits: int
    alpha: tuple[float, float, float]
    beta: tuple[float, float, float]
    below: float
    above: float
    used: float
    error: float
    picture: str


def weight_facts(model: nn.Module) -> dict[str, QuantizerFacts]:
    """Return the facts about all quantized weights, by the names of their layers.

    Args:
        model: A calibrated quantized model.

    Example:
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> model = nn.Sequential(QuantLinear(8, 4, weight_quantizer=dict(levels='pm4')))
        >>> _ = calibrate(model, [torch.rand(2, 8)], model)
        >>> weight_facts(model)['0'].bits
        3
    """
    return {name: _facts(weight_values(model, name)) for name in weight_names(model)}


def activation_facts(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]
) -> dict[str, QuantizerFacts]:
    """Run the model and return the facts about all quantizers of activations, by their names.

    Among them are those of inputs, of outputs and of the operands of sums.

    Args:
        model: A calibrated quantized model; it runs in evaluation mode.
        batches: What to run it on.
        forward: Runs it on one batch.

    Example:
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> layer = QuantLinear(8, 4, input_quantizer=dict(levels='uint4'))
        >>> model, batch = nn.Sequential(layer), torch.rand(2, 8)
        >>> _ = calibrate(model, [batch], model)
        >>> list(activation_facts(model, [batch], model))
        ['0.input_quantizer']
    """
    quantizers = activation_quantizers(model)
    names = list(quantizers)
    collectors = [SampleCollector(name, _CAPACITY, seed=i) for i, name in enumerate(names)]
    with _watching(model, dict(zip(names, collectors, strict=True))):
        for batch in batches:
            forward(batch)
    return {
        name: _facts(LayerValues(name, 'input', quantizers[name], collector.values()))
        for name, collector in zip(names, collectors, strict=True)
        if len(collector.values())
    }


@contextmanager
def _watching(model: nn.Module, collectors: dict[str, SampleCollector]) -> Iterator[None]:
    """Evaluate without gradients, and hand what reaches the modules to their collectors."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, keep=collector: keep(args[0])
        )
        for name, collector in collectors.items()
    ]
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _facts(source: LayerValues) -> QuantizerFacts:
    quantizer, x = source.quantizer, source.values
    staircase = quantizer.staircase(x)
    low, high = staircase.alpha * staircase.levels[0], staircase.alpha * staircase.levels[-1]
    shares = code_shares(source)
    return QuantizerFacts(
        name=source.layer,
        levels=describe_quantizer(quantizer.config, quantizer.levels.tolist()),
        bits=quantizer.num_bits if quantizer.is_active else 32,
        alpha=spread(staircase.alpha),
        beta=spread(staircase.beta),
        below=float((x < low).float().mean()),
        above=float((x > high).float().mean()),
        used=float((shares > 0).float().mean()),
        error=relative_error(source),
        picture=thumbnail(drawn_function(source)),
    )
