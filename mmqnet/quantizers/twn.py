"""Ternary Weight Networks (Li et al., 2016, arXiv 1605.04711)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmqnet.checks import check_choice
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.precision import single_precision
from mmqnet.quantizers.restrictions import check_levels, check_role
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.scales import scaled_mean
from mmqnet.quantizers.staircase import Staircase
from mmqnet.quantizers.straight_through import straight_through
from mmqnet.registry import QUANTIZERS

_SHARE = 0.7  # of the mean magnitude, below which a weight becomes 0


@dataclass(frozen=True)
class TWNConfig(QuantizerConfig):
    """The keys of :class:`QuantizerConfig`, for ternary weights; the paper's are by layer."""

    def __post_init__(self) -> None:
        check_role(self, 'weight', "'LSQ' or 'PACT'")
        super().__post_init__()
        check_levels(self, (-1, 0, 1), "'ternary'")
        # scales come from the tensor: layers have none to share
        check_choice(self.granularity, ('layer', 'channel'), self.name('granularity'))

    @property
    def mark(self) -> str:
        """Return the name of the method."""
        return 'twn'


@QUANTIZERS.register_module()
class TWN(Quantizer):
    """Ternary weights with a threshold and a scale from the tensor; nothing else is learned.

    ``w_q = alpha * t`` with t = 1 above Delta, -1 below -Delta and 0 between (section 2 of the
    paper); ``Delta = 0.7 * mean|w|``, and alpha the mean of ``|w|`` where it is above Delta, over a
    layer or an output channel. The gradient of the ternary weights is that of the weights.

    Args:
        config: ``levels='ternary'``.
        scale_shape: Shape of alpha and Delta, broadcastable to the weights. Default ``()``.
    """

    config_class: ClassVar[type[QuantizerConfig]] = TWNConfig

    def fit(self, sample: Sample) -> None:
        """Do nothing: there is nothing to fit."""

    def learn(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` with the paper's gradients."""
        return straight_through(self.staircase(x.detach()), x, x)

    def staircase(self, x: Tensor) -> Staircase:
        """Return the hard function of ``x``, all weights of a layer; thresholds -1 and 1."""
        magnitudes = single_precision(x).abs()
        delta = _SHARE * scaled_mean(magnitudes, self.scale_shape)
        alpha = scaled_mean(magnitudes, self.scale_shape, among=magnitudes > delta)
        return Staircase(self.levels, self.levels[::2].contiguous(), alpha, 1 / delta)
