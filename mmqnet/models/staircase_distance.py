"""How far the soft functions of a model's weights are from the hard ones."""

import math

import torch
from torch import nn

from mmqnet.layers import QuantizedLayer


@torch.no_grad()
def staircase_distance(model: nn.Module) -> float:
    """Return the distance between soft and hard weights, as a share of the hard ones' norm.

    It falls with the root of the temperature, and is larger for fewer levels: for normal weights at
    T = 10 about 0.09 with the levels ``'pm4'``, 0.2 with ``'ternary'``, 0.25 with ``'binary'``.

    Args:
        model: A model whose quantizers have been calibrated.

    Returns:
        float: Root mean square over all weights with calibrated quantizers; 0 if there are none.

    Example:
        >>> from mmqnet.layers import QuantLinear
        >>> layer = QuantLinear(8, 4, weight_quantizer=dict(levels='pm4'))
        >>> staircase_distance(layer)  # not calibrated
        0.0
    """
    difference = norm = 0.0
    for layer in model.modules():
        quantizer = getattr(layer, 'weight_quantizer', None)
        if not isinstance(layer, QuantizedLayer) or quantizer is None:
            continue
        if quantizer.is_calibrated:
            weight = layer.effective_weight()
            hard = quantizer.staircase(weight).quantize(weight)
            difference += float((quantizer.learn(weight) - hard).square().sum())
            norm += float(hard.square().sum())
    return math.sqrt(difference / norm) if norm else 0.0
