"""DoReFa-Net (Zhou et al., 2016, arXiv 1606.06160): weights by tanh, activations in [0, 1]."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from mmqnet.checks import check_bool, check_choice
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import QuantizerConfig, of_role
from mmqnet.quantizers.precision import single_precision
from mmqnet.quantizers.restrictions import check_unsigned
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.staircase import Staircase, middles
from mmqnet.quantizers.straight_through import straight_through
from mmqnet.registry import QUANTIZERS

_LEAST = 1e-20  # what smaller magnitudes count as
_TOLERANCE = 1e-5  # of evenly spaced levels, as a share of their distance


@dataclass(frozen=True)
class DoReFaConfig(QuantizerConfig):
    """The key of DoReFa beside those of :class:`QuantizerConfig`.

    Attributes:
        rescale: Weights only: whether the quantized weights are multiplied by the factor that
            brings them nearest to the weights. The paper's have the range [-1, 1], which changes
            the size of what a layer puts out: that does not matter where batch normalization in
            training mode follows, and ruins a float model otherwise. Default False. Binary weights
            always have their factor, as in the paper.
    """

    has_odd_levels: ClassVar[bool] = True

    rescale: bool = of_role('weight', False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool(self.rescale, self.name('rescale'))
        self._check_spacing()
        if self.is_of_weights:
            check_choice(self.granularity, ('layer',), self.name('granularity'))
        else:
            check_unsigned(self)

    @property
    def mark(self) -> str:
        """Return the name of the method, with ``rescale`` where it has an effect."""
        return 'dorefa_rescaled' if self.rescale and len(self.levels) > 2 else 'dorefa'

    def automatic_signed_sets(self) -> list[tuple[float, ...]]:
        """Return no set: a signed input stays in float."""
        return []

    def _check_spacing(self) -> None:
        gaps = [high - low for low, high in pairwise(self.levels)]
        even = max(gaps) - min(gaps) <= _TOLERANCE * max(gaps)
        symmetric = abs(self.levels[0] + self.levels[-1]) <= _TOLERANCE * max(gaps)
        if not even or (self.is_of_weights and not symmetric):
            right = 'evenly spaced' + (' and symmetric' if self.is_of_weights else '')
            raise ValueError(
                f'`{self.name("levels")}` should be {right} for DoReFa, such as '
                f'{"[-3, -1, 1, 3]" if self.is_of_weights else "[0, 1, 2, 3]"}, '
                f'but got {list(self.levels)}'
            )


@QUANTIZERS.register_module()
class DoReFa(Quantizer):
    """Uniform levels of a normalized tensor; nothing but the weights is learned.

    With ``quantize_k(r) = round((2^k - 1) * r) / (2^k - 1)`` (eq. 5 of the paper):

    - weights: ``w_q = 2 * quantize_k(tanh(w) / (2 * max|tanh(w)|) + 1/2) - 1`` (eq. 9), the maximum
      over all weights of the layer; gradients pass the rounding, tanh and the maximum.
    - binary weights: ``w_q = E|w| * sign(w)``, the mean over the layer; gradients pass unchanged.
    - activations: ``quantize_k(clip(x, 0, 1))`` (eq. 11); gradients pass within [0, 1].

    Two bits of weights are the levels -1, -1/3, 1/3, 1, as a list of any size:
    ``[-3, -1, 1, 3]``. Other symmetric, evenly spaced sets, such as ``'ternary'``, are rounded to
    likewise. The weights' hard function depends on the tensor: its thresholds are
    ``atanh(b * max|tanh(w)|)``, b halfway between levels.

    Args:
        config: Evenly spaced levels: symmetric ones for weights, from 0 for activations.
        scale_shape: ``()``.
    """

    config_class: ClassVar[type[QuantizerConfig]] = DoReFaConfig

    config: DoReFaConfig

    def fit(self, sample: Sample) -> None:
        """Do nothing: there is nothing to fit."""

    def learn(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` with the paper's gradients."""
        hard = self.staircase(x.detach())
        if not self.config.is_of_weights:
            return straight_through(hard, x, x.clamp(0, 1))
        if self._is_binary:
            return straight_through(hard, x, x)
        squashed = single_precision(x).tanh()
        factor = hard.alpha * self.levels[-1]
        return straight_through(hard, x, factor * squashed / self._largest(squashed))

    def staircase(self, x: Tensor) -> Staircase:
        """Return the hard function; for weights it depends on ``x``, all weights of a layer."""
        top = self.levels[-1]
        thresholds = middles(self.levels)
        if not self.config.is_of_weights:
            return Staircase(self.levels, thresholds, 1 / top, top)
        wide = single_precision(x)
        one = torch.ones_like(top)
        thresholds = (thresholds / top * self._largest(wide.tanh())).atanh()
        unscaled = Staircase(self.levels, thresholds, one, one)
        if not (self.config.rescale or self._is_binary):
            return unscaled._replace(alpha=1 / top)
        # in float64, so that weights that are levels give the same factor again, as in a packed
        # checkpoint
        quantized = unscaled.quantize(wide).double()
        alpha = (wide * quantized).sum() / quantized.square().sum().clamp(min=_LEAST)
        return unscaled._replace(alpha=alpha.clamp(min=_LEAST).to(top))

    @property
    def _is_binary(self) -> bool:
        return len(self.config.levels) == 2

    def _largest(self, squashed: Tensor) -> Tensor:
        """Return the largest magnitude, 0-d, by which weights are divided.

        If that is nearly 0, or the tensor is empty, it counts as what weights are multiplied by
        then: 1, or with ``rescale`` the least factor. Else gradients would explode, or vanish.
        """
        instead = _LEAST if self.config.rescale else 1.0
        if not squashed.numel():
            return squashed.new_full((), instead)
        largest = squashed.abs().amax()
        return torch.where(largest < _LEAST, instead, largest)
