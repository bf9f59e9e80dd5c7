"""Functions of activations as runtimes compute them: from x to uint8 codes, and back to values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mmqnet.quantizers import Staircase

_LARGEST = 255  # of uint8
# Codes up to here, times weights up to 127: sums of two products that fit into 16 bits.
_WITHOUT_SATURATION = 128
_SMALL = 1e-6  # of a step; what is less counts as nothing


@dataclass(frozen=True)
class Rounding:
    """``index = round((x + shift) / scale) + zero_point``, which saturates at 0 and 255."""

    scale: float
    zero_point: int
    shift: float


@dataclass(frozen=True)
class CodeFunction:
    """A hard function with one uint8 code for each level.

    Attributes:
        edges: (n,), the least float32 x that belongs to level i + 1; not decreasing.
        codes: (n + 1,), the code of each level, not decreasing.
        scale: A value is ``scale * (code - zero_point)``, if there is no table.
        zero_point: The code of the value 0.
        table: (n + 1,), the values, where they are no integer multiples of anything; codes are then
            0..n. Else None.
        rounding: How QuantizeLinear computes the level's index, if it does.
        low: The lowest index that occurs.
        high: The highest index that occurs.
    """

    edges: tuple[float, ...]
    codes: tuple[int, ...]
    scale: float
    zero_point: int
    table: tuple[float, ...] | None
    rounding: Rounding | None
    low: int
    high: int

    @classmethod
    def of(cls, function: Staircase) -> 'CodeFunction':
        """Return the form of a hard function with one alpha and one beta.

        Raises:
            ValueError: If it has several, or more than 256 levels.
        """
        alpha, beta = _number(function.alpha, 'alpha'), _number(function.beta, 'beta')
        count = len(function.levels)
        if count > _LARGEST + 1:
            raise ValueError(f'an activation should have at most 256 levels, but got {count}')
        edges = least_inputs(function.thresholds.numpy(), np.float32(beta))
        form, table = _affine_codes(function), None
        if form is None:
            form = tuple(range(count)), 1.0, 0
            table = tuple((np.float32(alpha) * function.levels.numpy()).tolist())
        levels = function.levels.double().numpy()
        rounding = _rounding(levels, beta) if function.is_uniform else None
        return cls(tuple(edges.tolist()), *form, table, rounding, 0, count - 1)

    @property
    def is_narrow(self) -> bool:
        """Whether less than what uint8 holds occurs as a level's index."""
        return self.low > 0 or self.high < _LARGEST

    @cached_property
    def steps(self) -> list[tuple[float, int]]:
        """Edges at which the code rises, each once, and by how much."""
        rises: dict[float, int] = {}
        for i in range(self.low, self.high):
            rise = self.codes[i + 1] - self.codes[i]
            rises[self.edges[i]] = rises.get(self.edges[i], 0) + rise
        return list(rises.items())

    @property
    def affine(self) -> tuple[int, int] | None:
        """Factor and first code of ``code = factor * index + first``, or None."""
        rises = set(np.diff(self.codes).tolist())
        return (rises.pop(), self.codes[0]) if len(rises) == 1 else None

    def index(self, x: float) -> int:
        """Return the index of the level of a value."""
        return int(np.searchsorted(np.array(self.edges, np.float32), np.float32(x), side='right'))

    def narrowed(self, low: float | None, high: float | None) -> 'CodeFunction':
        """Return the function of ``clip(x, low, high)``."""
        first = self.low if low is None else max(self.low, self.index(low))
        last = self.high if high is None else min(self.high, self.index(high))
        return replace(self, low=min(first, self.high), high=max(last, self.low))


def least_inputs(thresholds: np.ndarray, beta: np.float32) -> np.ndarray:
    """Return the least float32 x with ``beta * x >= b``, the product rounded, for each threshold b.

    So that a runtime compares x itself and agrees to the last bit.
    """
    x = (thresholds.astype(np.float64) / np.float64(beta)).astype(np.float32)
    while (below := x * beta < thresholds).any():
        x = np.where(below, np.nextafter(x, np.float32(np.inf)), x)
    while (also := (lower := np.nextafter(x, np.float32(-np.inf))) * beta >= thresholds).any():
        x = np.where(also, lower, x)
    return x


def _affine_codes(function: Staircase) -> tuple[tuple[int, ...], float, int] | None:
    """Return codes, scale and zero point of levels, or None if uint8 does not hold them.

    Few levels are spread over the codes: then the products of scales, to which a runtime rounds
    the bias of a layer, are small beside a step of its output.
    """
    form = function.integer_form()
    if form is None:
        return None
    zero_point = max(0, -form.integers[0])
    codes = [integer + zero_point for integer in form.integers]
    if codes[-1] > _LARGEST:
        return None
    spread = min(_WITHOUT_SATURATION // max(codes[-1], 1), _LARGEST // max(zero_point, 1))
    spread = max(spread, 1)
    return tuple(spread * code for code in codes), float(form.scale) / spread, spread * zero_point


def _rounding(levels: np.ndarray, beta: float) -> Rounding | None:
    """Return how to round to evenly spaced levels, or None if uint8 has no such zero point.

    Where 0 lies halfway between two levels, x = 0 belongs to the upper one, and is frequent: with a
    shift downwards it is rounded there, to even.
    """
    step = (levels[-1] - levels[0]) / (len(levels) - 1)
    offset = -levels[0] / step
    zero_point = int(np.floor(offset + _SMALL))
    if not 0 <= zero_point <= _LARGEST:
        return None
    share = offset - zero_point
    if share > _SMALL and zero_point < _LARGEST:
        zero_point, share = zero_point + 1, share - 1
    shift = share * step / beta if abs(share) > _SMALL else 0.0
    return Rounding(float(step / beta), zero_point, float(shift))


def _number(scale: object, name: str) -> float:
    values: Sequence[float] = scale.flatten().tolist()  # type: ignore[attr-defined]
    if len(values) != 1:
        raise ValueError(f'an activation should have one `{name}`, but got {len(values)}')
    return values[0]
