"""Binary-Weight-Networks (Rastegari et al., ECCV 2016, arXiv 1603.05279, with XNOR-Net)."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmqnet.checks import check_choice
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.restrictions import check_levels, check_role
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.staircase import Staircase
from mmqnet.quantizers.straight_through import middles, single_precision, straight_through
from mmqnet.registry import QUANTIZERS

_LEAST = 1e-20  # what a smaller mean counts as


@dataclass(frozen=True)
class BWNConfig(QuantizerConfig):
    """The keys of :class:`QuantizerConfig`, for binary weights; the paper's are by channel."""

    def __post_init__(self) -> None:
        check_role(self, 'weight', "'LSQ' or 'PACT'")
        super().__post_init__()
        check_levels(self, (-1, 1), "'binary'")
        # scales come from the tensor: layers have none to share
        check_choice(self.granularity, ('layer', 'channel'), self.name('granularity'))

    @property
    def mark(self) -> str:
        """Return the name of the method."""
        return 'bwn'


@QUANTIZERS.register_module()
class BWN(Quantizer):
    """Binary weights with the mean magnitude as their scale; nothing else is learned.

    ``w_q = alpha * sign(w)``, ``alpha = mean|w|`` (section 3.1 of the paper), over the n weights of
    an output channel (``granularity='channel'``, as in the paper) or of the layer. The sign of 0
    is 1. Gradients as the paper has them: ``dL/dw = dL/dw_q * (1 / n + alpha * [|w| <= 1])``.

    Args:
        config: ``levels='binary'``.
        scale_shape: Shape of alpha, broadcastable to the weights. Default ``()``.
    """

    config_class: ClassVar[type[QuantizerConfig]] = BWNConfig

    def fit(self, sample: Sample) -> None:
        """Do nothing: there is nothing to fit."""

    def learn(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` with the paper's gradients."""
        wide = single_precision(x)
        alpha = scaled_mean(wide.detach().abs(), self.scale_shape)
        count = _per_scale(wide, self.scale_shape)
        return straight_through(self, x, wide / count + alpha * wide.clamp(-1, 1))

    def staircase(self, x: Tensor) -> Staircase:
        """Return the hard function of ``x``, all weights of a layer."""
        alpha = scaled_mean(single_precision(x).abs(), self.scale_shape)
        return Staircase(self.levels, middles(self.levels), alpha, 1 / alpha)


def scaled_mean(values: Tensor, shape: tuple[int, ...], among: Tensor | None = None) -> Tensor:
    """Return the means of values that share a scale.

    Args:
        values: Not negative, any shape.
        shape: Of the scales, broadcastable to the values.
        among: Which values count, bool, of the shape of ``values``. Default None, for all.

    Returns:
        Tensor: Of the shape ``shape``, positive.
    """
    # in float64, so that the mean of equal values is that very value: the weights of a packed
    # checkpoint have one magnitude, and must give the same scale again
    wide = values.double()
    if among is None:
        mean = wide.sum_to_size(shape) / _per_scale(values, shape)
    else:
        counted = among.to(wide)
        mean = (wide * counted).sum_to_size(shape) / counted.sum_to_size(shape).clamp(min=1)
    return mean.clamp(min=_LEAST).to(values)


def _per_scale(values: Tensor, shape: tuple[int, ...]) -> int:
    return max(1, values.numel() // math.prod(shape))
