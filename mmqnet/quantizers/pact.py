"""PACT (Choi et al., 2018, arXiv 1805.06085): activations with a learned clipping level."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmqnet.checks import check_choice, check_number
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.restrictions import check_role, check_unsigned
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.scales import least_squares_step, usable
from mmqnet.quantizers.staircase import Staircase, middles
from mmqnet.quantizers.straight_through import straight_through
from mmqnet.registry import QUANTIZERS

_LEAST = 1e-6  # what a clipping level below it counts as


@dataclass(frozen=True)
class PACTConfig(QuantizerConfig):
    """The keys of PACT beside those of :class:`QuantizerConfig`, for activations.

    Attributes:
        clip_init: How calibration sets the clipping level: ``'mse'`` (default: the least squared
            error), ``'max'`` (the largest value seen) or a number (the paper starts a training from
            scratch at 10).
    """

    clip_init: str | float = 'mse'

    def __post_init__(self) -> None:
        check_role(self, 'activation', "'LSQ' or 'DoReFa'")
        super().__post_init__()
        check_unsigned(self)
        if isinstance(self.clip_init, str):
            check_choice(self.clip_init, ('mse', 'max'), self.name('clip_init'))
        else:
            check_number(self.clip_init, self.name('clip_init'))

    def automatic_signed_sets(self) -> list[tuple[float, ...]]:
        """Return no set: a signed input stays in float."""
        return []


@QUANTIZERS.register_module()
class PACT(Quantizer):
    """Clip to [0, alpha] and round, with a learned alpha.

    ``y = 0.5 * (|x| - |x - alpha| + alpha)``, rounded to k bits:
    ``y_q = round(y * (2^k - 1) / alpha) * alpha / (2^k - 1)`` (eq. 1 and 2 of the paper). Gradients
    pass the rounding: ``dy_q/dx`` is 1 in [0, alpha), else 0; ``dy_q/dalpha`` is 1 for
    ``x >= alpha``, else 0 (eq. 3).

    The paper regularizes alpha by the weight decay of the weights. Quantizers have none unless the
    config names it: ``optim_wrapper.paramwise_cfg=dict(scale=dict(weight_decay=5e-4))`` with
    ``mmqnet.QuantOptimWrapperConstructor``. That is why alpha is not stored as a logarithm, which
    decay would pull to 1; a level below 1e-6 counts as 1e-6.

    It is for inputs that are not negative: a signed one stays in float.

    Args:
        config: Levels that start at 0, such as ``'uint4'``, and the initial level.
        scale_shape: Shape of alpha. Default ``()``.

    Attributes:
        clip (nn.Parameter): alpha.
    """

    config_class: ClassVar[type[QuantizerConfig]] = PACTConfig

    config: PACTConfig

    def __init__(self, config: QuantizerConfig, scale_shape: Sequence[int] = ()) -> None:
        super().__init__(config, scale_shape)
        self.clip = nn.Parameter(torch.ones(self.scale_shape))

    def fit(self, sample: Sample) -> None:
        """Initialise the clipping level as the config says."""
        how = self.config.clip_init
        if how == 'mse':
            clip = least_squares_step(sample, self.levels) * self.levels[-1]
        elif how == 'max':
            clip = usable(sample.max_abs)
        else:
            clip = torch.full_like(sample.max_abs, float(how))
        self.clip.copy_(clip.view(self.scale_shape))

    def learn(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` with the paper's gradients."""
        # `clip` itself where it counts as _LEAST: its gradient must not end there
        is_clipped = x.detach() >= self.clip.detach().clamp(min=_LEAST)
        surrogate = torch.where(is_clipped, self.clip, x.clamp(min=0))
        return straight_through(self.staircase(x), x, surrogate)

    def staircase(self, x: Tensor) -> Staircase:
        """Return the rounding, the same for every ``x``."""
        clip = self.clip.clamp(min=_LEAST)
        top = self.levels[-1]
        return Staircase(self.levels, middles(self.levels), clip / top, top / clip)
