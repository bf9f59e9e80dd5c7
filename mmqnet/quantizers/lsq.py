"""Learned Step Size Quantization (Esser et al., ICLR 2020, arXiv 1902.08153)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmqnet.checks import check_choice
from mmqnet.ops import straight_through_backward
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.precision import single_precision
from mmqnet.quantizers.restrictions import check_positive_top
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.scales import least_squares_step, usable
from mmqnet.quantizers.staircase import Staircase, middles
from mmqnet.registry import QUANTIZERS

# Of several steps in a layer, one below this share of the largest counts as this share where the
# gradient is divided by it: the logarithm of a dead channel's step would make leaps.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class LSQConfig(QuantizerConfig):
    """The key of LSQ beside those of :class:`QuantizerConfig`.

    Attributes:
        step_init: How calibration sets the step: ``'mean'`` (default, the paper's:
            ``2 * mean|x| / sqrt(Q_P)``) or ``'mse'`` (the least squared error).
    """

    step_init: str = 'mean'

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.step_init, ('mean', 'mse'), self.name('step_init'))
        check_positive_top(self)


@QUANTIZERS.register_module()
class LSQ(Quantizer):
    """Round to multiples of a learned step: ``y = s * round(clip(x / s, -Q_N, Q_P))``.

    Gradients are those of the paper, eq. 3 and 5, with ``q = round(x / s)``:

    - ``dy/dx`` is 1 within the clipping range ``[-Q_N * s, Q_P * s]``, else 0.
    - ``dy/ds`` is ``q - x / s`` within it, else ``-Q_N`` or ``Q_P``, summed over all values and
      multiplied by ``g = 1 / sqrt(N * Q_P)``. N is the number of weights that share the step, or
      of the values of one sample of the batch.

    The step is stored as a logarithm, like the scales of all methods, so it stays positive. Its
    gradient is ``g / s * dL/ds``: a step of SGD then changes s as it would in the paper to first
    order, ``s * exp(-lr * g / s * dL/ds) = s - lr * g * dL/ds + ...``. The plain chain rule would
    multiply by s instead of dividing, and small steps would hardly learn. Of several steps in a
    layer, one below 1% of the largest counts as this share in the division, and moves less than in
    the paper: the step of a dead channel would make leaps.

    -Q_N and Q_P are the outermost levels, and each value gets the nearest level: the paper's
    integers, or any other set. Binary weights get the clipped sign, with gradients in [-s, s].

    Args:
        config: Levels and the initial step.
        scale_shape: Shape of the step, broadcastable to the input. Default ``()``.

    Attributes:
        log_step (nn.Parameter): Logarithm of s.
    """

    config_class: ClassVar[type[QuantizerConfig]] = LSQConfig

    config: LSQConfig

    def __init__(self, config: QuantizerConfig, scale_shape: Sequence[int] = ()) -> None:
        super().__init__(config, scale_shape)
        self.log_step = nn.Parameter(torch.zeros(self.scale_shape))

    def fit(self, sample: Sample) -> None:
        """Initialise the step as the config says."""
        if self.config.step_init == 'mse':
            step = least_squares_step(sample, self.levels)
        else:
            step = 2 * usable(sample.values.abs().mean(1)) / self.levels[-1].sqrt()
        self.log_step.copy_(step.log().view(self.scale_shape))

    def learn(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` with the paper's gradients."""
        return round_to_step(x, self.log_step, None, self.levels, self.config.is_of_weights)

    def staircase(self, x: Tensor) -> Staircase:
        """Return the rounding, the same for every ``x``."""
        return rounding(self.levels, self.log_step, None)

    def scalars(self) -> dict[str, Tensor]:
        """Return the step; where there is one a channel, their geometric mean."""
        return dict(step=self.log_step.mean().exp())


def rounding(levels: Tensor, log_step: Tensor, offset: Tensor | None) -> Staircase:
    """Return the staircase ``s * Y + o`` that takes the nearest level.

    Args:
        levels: (n + 1,), Y.
        log_step: Logarithm of s.
        offset: 0-d, o, or None for 0.
    """
    step = log_step.exp()
    if offset is not None:
        levels = levels + offset / step
    return Staircase(levels, middles(levels), step, 1 / step)


def round_to_step(
    x: Tensor, log_step: Tensor, offset: Tensor | None, levels: Tensor, of_weights: bool
) -> Tensor:
    """Return :func:`rounding` of ``x`` with the gradients of LSQ, and of LSQ+ for the offset."""
    count = x.numel() // log_step.numel()
    if not of_weights and x.dim() > 1 and x.shape[0]:
        count = count // x.shape[0]
    return _Rounded.apply(x, log_step, offset, levels, max(1, count))


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_step: Tensor, offset: Tensor | None, levels: Tensor, count: int
    ) -> Tensor:
        staircase = rounding(levels, log_step, offset)
        y = staircase.quantize(x)
        ctx.save_for_backward(x, y, offset, levels[-1], *staircase)
        ctx.count = count
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, offset, top, *function = ctx.saved_tensors
        staircase = Staircase(*function)
        wide = single_precision(x)
        if y.dtype is not wide.dtype:  # rounded: what 8 bits leave of x would be lost
            y = staircase.quantize(wide)
        step = staircase.alpha
        grad_x, by_log, clipped = straight_through_backward(grad, wide, y, staircase.levels, step)
        factor = (top * ctx.count).rsqrt()
        by_offset = None
        if offset is not None:
            by_log = by_log - offset * clipped
            by_offset = factor * clipped
        by_step = factor * by_log / step / _counted(step)
        return grad_x.to(x), by_step, by_offset, None, None


def _counted(step: Tensor) -> Tensor:
    """Return the steps as they count where a gradient is divided by them."""
    return step if step.dim() == 0 else step.clamp(min=_LEAST_SHARE * step.max())
