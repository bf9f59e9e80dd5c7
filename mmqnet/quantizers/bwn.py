"""Binary-Weight-Networks (Rastegari et al., ECCV 2016, arXiv 1603.05279, with XNOR-Net)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmqnet.checks import check_choice
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.precision import single_precision
from mmqnet.quantizers.restrictions import check_levels, check_role
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.scales import scaled_mean, values_per_scale
from mmqnet.quantizers.staircase import Staircase, middles
from mmqnet.quantizers.straight_through import straight_through
from mmqnet.registry import QUANTIZERS


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
        hard, wide = self.staircase(x.detach()), single_precision(x)
        count = values_per_scale(wide, self.scale_shape)
        return straight_through(hard, x, wide / count + hard.alpha * wide.clamp(-1, 1))

    def staircase(self, x: Tensor) -> Staircase:
        """Return the hard function of ``x``, all weights of a layer."""
        alpha = scaled_mean(single_precision(x).abs(), self.scale_shape)
        return Staircase(self.levels, middles(self.levels), alpha, 1 / alpha)
