"""Initial thresholds (section "Initialisation" of the paper)."""

from collections.abc import Sequence

from torch import Tensor

from mmqnet.ops import kmeans_1d
from mmqnet.quantizers.staircase import middles


def initial_thresholds(
    scaled: Tensor, levels: Sequence[float], method: str | Sequence[float], zero: float | None
) -> Tensor:
    """Return thresholds in the scaled domain.

    Args:
        scaled: Values of ``beta * x``, (N,). If all are the same, there are no clusters, and
            ``'kmeans'`` becomes ``'uniform'``.
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
    if method == 'uniform' or scaled.min() == scaled.max():
        return middles(scaled.new_tensor(tuple(levels)))
    if zero is not None and tuple(levels) == (-1.0, 1.0):
        return scaled.new_zeros(1)
    if zero is not None and tuple(levels) == (-1.0, 0.0, 1.0):
        return scaled.new_tensor([-zero, zero])
    thresholds = middles(kmeans_1d(scaled, len(levels)).to(scaled))
    if zero is not None and levels[0] < 0 < levels[-1] and 0.0 in levels:
        _open_zero(thresholds, tuple(levels).index(0.0), zero)
    return thresholds


def _open_zero(thresholds: Tensor, index: int, zero: float) -> None:
    """Set the thresholds round level ``index`` to ±zero, moving others only to keep the order."""
    thresholds[:index].clamp_(max=-zero)
    thresholds[index - 1] = -zero
    thresholds[index:].clamp_(min=zero)
    thresholds[index] = zero
