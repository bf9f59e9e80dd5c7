"""Initial scales and thresholds (section "Initialisation" of the paper)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mmqnet.ops import kmeans_1d

_HEADROOM = 5 / 4  # beta = 5p / 4q: the largest |x| lands a quarter beyond the outermost level
_TERNARY_THRESHOLD = 0.05


def initial_beta(levels: Sequence[float], max_abs: Tensor) -> Tensor:
    """Input scale ``beta = 5p / (4q)`` with p the largest |level| and q the largest |x|.

    Args:
        levels: The levels Y.
        max_abs: q, one value or one for each channel; values of 0 count as 1.

    Returns:
        Tensor: beta, of the shape of ``max_abs``.
    """
    largest = max(abs(levels[0]), abs(levels[-1]))
    # tensor by tensor: torch divides a number by a tensor with one rounding more
    numerator = max_abs.new_tensor(_HEADROOM * largest)
    return numerator / torch.where(max_abs > 0, max_abs, torch.ones_like(max_abs))


def initial_thresholds(
    scaled: Tensor, levels: Sequence[float], method: str | Sequence[float], zero: float | None
) -> Tensor:
    """Thresholds in the scaled domain.

    Args:
        scaled: Values of ``beta * x``, (N,).
        levels: The n + 1 levels Y.
        method: ``'kmeans'``: halfway between the centres of n + 1 clusters, with the paper's
            special cases for (-1, 1) and (-1, 0, 1); ``'uniform'``: halfway between neighbouring
            levels; or the n thresholds themselves.
        zero: For ``'kmeans'``, where to put the two thresholds round the level 0 of a signed set
            (the paper: 0.05, for weights); None keeps what k-means found.

    Returns:
        Tensor: (n,), non-decreasing, of the dtype of ``scaled``.
    """
    if not isinstance(method, str):
        return scaled.new_tensor(tuple(method))
    if method == 'uniform':
        middles = [(low + high) / 2 for low, high in pairwise(levels)]
        return scaled.new_tensor(middles)
    if zero is not None and tuple(levels) == (-1.0, 1.0):
        return scaled.new_zeros(1)
    if zero is not None and tuple(levels) == (-1.0, 0.0, 1.0):
        return scaled.new_tensor([-_TERNARY_THRESHOLD, _TERNARY_THRESHOLD])
    centres = kmeans_1d(scaled, len(levels)).to(scaled)
    thresholds = (centres[1:] + centres[:-1]) / 2
    if zero is not None and levels[0] < 0 < levels[-1] and 0.0 in levels:
        _open_zero(thresholds, tuple(levels).index(0.0), zero)
    return thresholds


def _open_zero(thresholds: Tensor, index: int, zero: float) -> None:
    """Sets the thresholds round level ``index`` to ±zero, moving others only to keep the order."""
    thresholds[:index].clamp_(max=-zero)
    thresholds[index - 1] = -zero
    thresholds[index:].clamp_(min=zero)
    thresholds[index] = zero
