"""Functions of activations as int8 codes."""

from dataclasses import dataclass

from torch import Tensor

from mmqnet.quantizers import Staircase

LOWEST, HIGHEST = -128, 127
_SMALL = 1e-6  # of a step; what is less counts as nothing


@dataclass(frozen=True)
class Int8Function:
    """``code = clip(round(x / scale) + zero_point, low, 127)``.

    The highest level has the code 127, so that int8 itself ends there, however few levels there
    are.

    Attributes:
        scale: The step of x.
        value_scale: A value is ``value_scale * (code - zero_point)``.
        zero_point: The code of 0.
        low: The lowest code.
    """

    scale: float
    value_scale: float
    zero_point: int
    low: int

    @classmethod
    def of(cls, function: Staircase, name: str) -> 'Int8Function':
        """Return the form of a hard function.

        Args:
            function: The function.
            name: Of the quantizer, for messages.

        Raises:
            ValueError: If it is no rounding to at most 256 levels, one of which is 0.
        """
        alpha, beta = (_number(s, name) for s in (function.alpha, function.beta))
        levels = function.levels.double()
        steps = len(levels) - 1
        if steps > HIGHEST - LOWEST:
            raise _refusal(name, f'it has {steps + 1} levels, more than int8')
        if not function.is_uniform:
            raise _refusal(name, 'its thresholds are not halfway between evenly spaced levels')
        step = float((levels[-1] - levels[0]) / steps)
        below = -float(levels[0]) / step
        if abs(below - round(below)) > _SMALL or not 0 <= round(below) <= steps:
            raise _refusal(name, '0 is not among its levels')
        low = HIGHEST - steps
        return cls(step / beta, step * alpha, low + round(below), low)

    @property
    def ratio(self) -> float:
        """The factor between a value and what a single scale for x and values would give."""
        return self.value_scale / self.scale

    @property
    def starts_at_zero(self) -> bool:
        """Whether 0 is the lowest level, so that the function of ReLU(x) is the same."""
        return self.low == self.zero_point

    def with_scale(self, scale: float) -> 'Int8Function':
        """Return the same codes of another x, and values of the same scale."""
        return Int8Function(scale, scale, self.zero_point, self.low)


def _number(scale: Tensor, name: str) -> float:
    if scale.numel() != 1:
        raise _refusal(name, f'it has {scale.numel()} scales, and int8 tensors have one')
    return scale.item()


def _refusal(name: str, why: str) -> ValueError:
    return ValueError(
        f'the quantizer {name!r} cannot be written as int8: {why}; train with a recipe whose name '
        'ends in `u` or `-int`, or take --format onnx'
    )
