"""Which range of integers fits values best: ``-m..n-m`` for an input that is lopsided."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Scales that are tried, as multiples of the largest |x| divided by n. At the lower end the range is
# a 64th of the values', at the upper one half of the levels reach twice as far.
_TRIED = torch.logspace(-6, 2, 293, base=2, dtype=torch.float64)
# What another range takes off the squared error at least, as a share, before it replaces the one
# that has as many levels on both sides of 0.
_LEAST_GAIN = 0.01


def shortlist(sets: Sequence[tuple[float, ...]], values: Tensor) -> list[tuple[float, ...]]:
    """Return level sets with at most two ranges of integers: those that can be the best ones.

    They are that of the least squared error of rounding, and the two's complement range,
    m = (n + 1) / 2, which alone stays unless the other has an error at least 1% smaller. The error
    is ``sum (x - alpha * clip(round(x / s), -m, n - m))^2``, over m and s together, with the best
    alpha for each.

    Args:
        sets: Level sets, of which the ranges of integers with 0 among them have one size.
        values: What is quantized, any shape.
    """
    ranges = [levels for levels in sets if _is_range(levels)]
    if len(ranges) < 3:
        return list(sets)
    errors = squared_errors(
        values.flatten(), len(ranges[0]) - 1, [round(-levels[0]) for levels in ranges]
    )
    best = int(errors.argmin())
    kept = [ranges[best]]
    usual = next((i for i, levels in enumerate(ranges) if -levels[0] == len(levels) / 2), best)
    if usual != best:
        worse = errors[best] < (1 - _LEAST_GAIN) * errors[usual]
        kept = [ranges[best], ranges[usual]] if worse else [ranges[usual]]
    return [*kept, *(levels for levels in sets if not _is_range(levels))]


def squared_errors(values: Tensor, n: int, starts: Sequence[int]) -> Tensor:
    """Return the least squared error (M,) of rounding to each of the ranges ``-m..n-m``.

    All are found in one pass: with the levels on one grid, a range is a window over its edges, and
    sums over windows are differences of sums from the left. These are taken on the CPU, where the
    result is: on CUDA they differ from run to run, see :func:`fit_scales`.

    Args:
        values: x, (N,).
        n: One less than the number of levels.
        starts: The M values of m, 0..n.
    """
    ordered = values.cpu().sort().values
    sums = F.pad(ordered.double().cumsum(0), (1, 0))  # of the i smallest values
    square, total = ordered.double().square().sum(), sums[-1]
    steps = ordered.abs().max().double() / n * _TRIED
    below = torch.arange(-n, n)  # the level under each edge of the grid
    inner = torch.searchsorted(ordered, (steps[:, None] * (below + 0.5)).to(ordered))
    # sum Y * x and sum Y^2 over the values: the top level's for all, less a step at each edge
    first = torch.tensor([n - m for m in starts])
    dot = first * total - _windows(sums[inner], first, n)
    norm = first.square() * len(values) - _windows((2 * below + 1) * inner, first, n)
    gain = torch.where((dot > 0) & (norm > 0), dot.square() / norm, 0.0)
    return square - gain.amax(0)


def _windows(terms: Tensor, first: Tensor, length: int) -> Tensor:
    """Return sums of ``length`` neighbours in each row from each of the places ``first``."""
    cumulated = F.pad(terms.cumsum(1), (1, 0))
    return cumulated[:, first + length] - cumulated[:, first]


@functools.lru_cache(maxsize=1024)
def _is_range(levels: tuple[float, ...]) -> bool:
    return levels[0] <= 0 <= levels[-1] and levels == tuple(
        float(round(levels[0]) + i) for i in range(len(levels))
    )
