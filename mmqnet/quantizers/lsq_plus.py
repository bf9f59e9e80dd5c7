"""LSQ+ (Bhalgat et al., CVPR workshops 2020, arXiv 2004.09576): a learned step and offset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.lsq import round_to_step, rounding
from mmqnet.quantizers.restrictions import check_positive_top, check_role
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.scales import least_squares_step
from mmqnet.quantizers.staircase import Staircase
from mmqnet.registry import QUANTIZERS

_CANDIDATES = 33  # lower ends of the range that are tried


@dataclass(frozen=True)
class LSQPlusConfig(QuantizerConfig):
    """The keys of :class:`QuantizerConfig`, for activations.

    ``signed_levels='auto'`` (default) gives signed inputs the same levels as others: the offset
    moves them. ``'symmetric'`` is refused, unless ``levels`` start below 0 and replace it.
    """

    def __post_init__(self) -> None:
        check_role(self, 'activation', "'LSQ', which LSQ+ is for weights")
        super().__post_init__()
        check_positive_top(self)
        if self.signed_levels == 'symmetric':
            raise ValueError(
                f"`{self.name('signed_levels')}` should be 'auto', which gives a signed input the "
                "same levels since LSQ+ has an offset, a set or None, but got 'symmetric'"
            )

    def automatic_signed_sets(self) -> list[tuple[float, ...]]:
        """Return the levels themselves."""
        return [self.levels]


@QUANTIZERS.register_module()
class LSQPlus(Quantizer):
    """Round to a grid with learned step and offset, for inputs that are not symmetric.

    ``y = s * round(clip((x - o) / s, -Q_N, Q_P)) + o`` (section 3.1 of the paper), for the
    outputs of SiLU, leaky ReLU and their like. Gradients as in :class:`LSQ`, with ``x - o`` for x;
    ``dy/do`` is 0 within the clipping range and 1 outside, and is multiplied by the same ``g`` as
    ``dy/ds``, since it is a sum of as many terms.

    Calibration takes step and offset of the least squared error, as the paper does.

    The offset is a real number, as in the paper. So 0 is on the grid only by chance, while a
    convolution pads its quantized input with zeros: with hardly any offset can integers represent
    both, and ``staircase(x).integer_form()`` is None. With the offset 0, which calibration tries,
    they can, until training moves it. To run on integers take :class:`LSQ`.

    Args:
        config: Levels; ``'uint2'`` for two bits, whatever the signs of the input.
        scale_shape: ``()``; the levels of a staircase have one offset.

    Attributes:
        log_step (nn.Parameter): Logarithm of s, 0-d.
        offset (nn.Parameter): o, 0-d.
    """

    config_class: ClassVar[type[QuantizerConfig]] = LSQPlusConfig

    def __init__(self, config: QuantizerConfig, scale_shape: Sequence[int] = ()) -> None:
        super().__init__(config, scale_shape)
        self.log_step = nn.Parameter(torch.zeros(self.scale_shape))
        self.offset = nn.Parameter(torch.zeros(self.scale_shape))

    def fit(self, sample: Sample) -> None:
        """Initialise step and offset by the least squared error."""
        values = sample.values
        low, mean = values.min(), values.mean()
        shares = torch.linspace(0, 1, _CANDIDATES).to(values)
        ends, errors = [values.new_zeros(()), *(low + (mean - low) * shares)], []
        for end in ends:
            self._fit_step(sample, end)
            errors.append((self.staircase(values).quantize(values) - values).square().sum())
        self._fit_step(sample, ends[int(torch.stack(errors).argmin())])

    def _fit_step(self, sample: Sample, end: Tensor) -> None:
        """Fit a grid whose lowest level stands at ``end``."""
        moved = sample.values - end
        step = least_squares_step(
            Sample(moved, moved.abs().amax(1), sample.signed), self.levels - self.levels[0]
        )
        self.log_step.copy_(step.log().view(self.scale_shape))
        self.offset.copy_(end - step.view(self.scale_shape) * self.levels[0])

    def learn(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` with the paper's gradients."""
        return round_to_step(x, self.log_step, self.offset, self.levels, of_weights=False)

    def staircase(self, x: Tensor) -> Staircase:
        """Return the rounding, the same for every ``x``; its levels are ``Y + o / s``."""
        return rounding(self.levels, self.log_step, self.offset)

    def scalars(self) -> dict[str, Tensor]:
        """Return step and offset."""
        return dict(step=self.log_step.exp().mean(), offset=self.offset.mean())
