"""The hard function of a quantizer as one value, whatever method it comes from."""

import math
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mmqnet.ops import hard_codes, hard_quantize

_TOLERANCE = 1e-6  # as a share of the distance of two levels
_MOST_INTEGER = 2**15 - 1


def middles(levels: Tensor) -> Tensor:
    """Return the thresholds (n,) at which each value gets the nearest of the levels (n + 1,)."""
    return (levels[1:] + levels[:-1]) / 2


class IntegerForm(NamedTuple):
    """Levels as integers: ``alpha * Y = scale * (integers - zero_point)``.

    Attributes:
        scale: Of the shape of alpha.
        zero_point: The integer that stands for 0.
        integers: The n + 1 levels, increasing.
    """

    scale: Tensor
    zero_point: int
    integers: tuple[int, ...]

    def shifted(self, zero_point: int) -> 'IntegerForm':
        """Return the same function with another zero point."""
        offset = zero_point - self.zero_point
        return IntegerForm(self.scale, zero_point, tuple(i + offset for i in self.integers))


class Staircase(NamedTuple):
    """``alpha * (Y_0 + sum_i s_i * [beta * x >= b_i])``, eq. 5 and 12 of the paper.

    A value at a threshold belongs to the level above it (``>=``), for all methods. Exporters,
    pictures and reports read this and nothing else of a quantizer.

    Attributes:
        levels: (n + 1,), Y, strictly increasing.
        thresholds: (n,), b in the scaled domain, not decreasing.
        alpha: Output scale, positive, 0-d or broadcastable to the input.
        beta: Input scale, likewise.
    """

    levels: Tensor
    thresholds: Tensor
    alpha: Tensor
    beta: Tensor

    def quantize(self, x: Tensor) -> Tensor:
        """Return the hard function of ``x`` (any shape to which the scales broadcast)."""
        return hard_quantize(x, self.levels, self.thresholds, self.alpha, self.beta)

    def codes(self, x: Tensor) -> Tensor:
        """Return level indices 0..n, int32, of the shape of ``x``."""
        return hard_codes(x, self.thresholds, self.beta)

    @property
    def is_uniform(self) -> bool:
        """Whether the thresholds are halfway between evenly spaced levels.

        Then the function is a rounding: a runtime's QuantizeLinear computes it.
        """
        levels, thresholds = self.levels.double(), self.thresholds.double()
        step = (levels[-1] - levels[0]) / (len(levels) - 1)
        # levels with an offset, as those of LSQ+, are rounded to float32
        slack = _TOLERANCE * step + 2 * torch.finfo(torch.float32).eps * levels.abs().max()
        even = (levels.diff() - step).abs().max() <= slack
        return bool(even and (thresholds - middles(levels)).abs().max() <= slack)

    def integer_form(self) -> IntegerForm | None:
        """Return the levels as integers with the zero point 0, or None where there are none.

        The integers are as small as possible: (-0.5, 0, 0.5) become (-1, 0, 1).
        """
        levels = self.levels.tolist()
        gap = min(high - low for low, high in pairwise(levels))
        ratios = [Fraction(level / gap).limit_denominator(16) for level in levels]
        step = gap / math.lcm(*(ratio.denominator for ratio in ratios))
        integers = tuple(round(level / step) for level in levels)
        exact = all(
            abs(level - i * step) <= _TOLERANCE * gap
            for level, i in zip(levels, integers, strict=True)
        )
        if not exact or max(map(abs, integers)) > _MOST_INTEGER:
            return None
        common = math.gcd(*integers)
        return IntegerForm(self.alpha * (step * common), 0, tuple(i // common for i in integers))
