"""Scales from values: from the largest one, by least squares, or from a mean."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.staircase import middles

_HEADROOM = 5 / 4  # beta = 5p / 4q: the largest |x| lands a quarter beyond the outermost level
# A row whose largest |x| is below this share of that of all rows counts as if it had this one: its
# own would give scales that overflow, and gradients that are not finite.
_LEAST_SHARE = 1e-6
_LEAST = 1e-20  # below it a tensor counts as zeros; what a smaller mean counts as
# Input scales that are tried, as multiples of p / q. At the upper end the outermost level stands at
# 1/64 of the largest |x|: 2-bit activations with a long tail ask for such.
_TRIED = torch.logspace(-1, 6, 256, base=2, dtype=torch.float64)


def initial_beta(levels: Sequence[float], max_abs: Tensor) -> Tensor:
    """Return the input scale ``beta = 5p / (4q)``, p the largest |level| and q the largest |x|.

    Args:
        levels: The levels Y.
        max_abs: (C,), q of each row, not negative. A row that is nearly zero counts as a millionth
            of the largest one, zeros alone as 1.

    Returns:
        Tensor: (C,), beta, finite.
    """
    # tensor by tensor: torch divides a number by a tensor with one rounding more
    numerator = max_abs.new_tensor(_HEADROOM * _largest(levels))
    return numerator / usable(max_abs)


def usable(max_abs: Tensor) -> Tensor:
    """Return magnitudes (C,) of rows, of which none is zero or nearly so beside the others."""
    largest = max_abs.max()
    if largest < _LEAST:
        return torch.ones_like(max_abs)
    return max_abs.clamp(min=float(_LEAST_SHARE * largest))


def least_squares_step(sample: Sample, levels: Tensor) -> Tensor:
    """Return the step (C,) of the least squared error of each row of a sample."""
    exact = levels.tolist()
    beta = initial_beta(exact, sample.max_abs)
    return fit_scales(sample.values, exact, middles(levels), beta, search_beta=True)[0]


def fit_scales(
    values: Tensor, levels: Sequence[float], thresholds: Tensor, beta: Tensor, search_beta: bool
) -> tuple[Tensor, Tensor]:
    """Return scales of the least error ``sum (x - alpha * Y)^2`` over the values of each row.

    With thresholds halfway between the levels, and beta searched too, the result is the
    nearest-level quantizer of the least squared error, within a step of 2% of beta.

    It is found on the CPU: CUDA's cumulative sums differ from run to run, and
    ``torch.use_deterministic_algorithms`` refuses them; MPS has no float64.

    Args:
        values: x, (C, N): a row for each pair of scales.
        levels: The n + 1 levels Y.
        thresholds: (n,), in the scaled domain, the same for all rows.
        beta: (C,), input scales from which the thresholds come.
        search_beta: Whether other input scales are tried; for thresholds that were found in the
            values at this beta that makes no sense.

    Returns:
        tuple[Tensor, Tensor]: alpha and beta, (C,), on the device of ``beta``. A row that is
        nearly zero beside the others, or that no positive alpha fits better than 0 does, keeps its
        beta and gets ``alpha = 1 / beta``.
    """
    device = beta.device
    values, thresholds, beta = values.cpu(), thresholds.cpu(), beta.cpu()
    exact = values.new_tensor(tuple(levels)).double()
    fitted_alpha, fitted_beta = 1 / beta, beta.clone()
    max_abs = values.abs().amax(1)
    is_fitted = (max_abs >= usable(max_abs)).tolist()
    for i, row in enumerate(values):
        if not is_fitted[i]:
            continue
        tried = beta[i : i + 1].double()
        if search_beta:
            tried = _TRIED * _largest(levels) / max_abs[i]
        alpha, gain = _fit_alpha(row, exact, thresholds.double() / tried[:, None])
        # A threshold at 0 does as well at any beta: that at which x and the levels agree is taken.
        ties = gain >= gain.max() * (1 - 1e-6)
        best = torch.where(ties, (alpha * tried).log().abs(), torch.inf).argmin()
        if gain[best] > 0:
            fitted_alpha[i], fitted_beta[i] = alpha[best], tried[best]
    return fitted_alpha.to(device), fitted_beta.to(device)


def _fit_alpha(values: Tensor, levels: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best alpha and its gain for each row of ``edges`` (K, n), where codes change.

    By prefix sums over the sorted values (N,). The gain is what the fit takes off the squared error
    of 0; both are 0 where no positive scale takes anything off.
    """
    ordered = values.sort().values
    prefix = torch.cat([ordered.new_zeros(1).double(), ordered.double().cumsum(0)])
    inner = torch.searchsorted(ordered, edges.to(ordered))
    first, last = inner.new_zeros(len(edges), 1), inner.new_full((len(edges), 1), len(values))
    bounds = torch.cat([first, inner, last], dim=1)
    dot = ((prefix[bounds].diff(dim=1)) * levels).sum(1)
    norm = (bounds.diff(dim=1) * levels.square()).sum(1)
    useful = (dot > 0) & (norm > 0)
    alpha = torch.where(useful, dot / norm, 0.0)
    return alpha, torch.where(useful, alpha * dot, 0.0)


def _largest(levels: Sequence[float]) -> float:
    return max(abs(levels[0]), abs(levels[-1]))


def scaled_mean(values: Tensor, shape: tuple[int, ...], among: Tensor | None = None) -> Tensor:
    """Return the means of values that share a scale.

    Args:
        values: Not negative, any shape.
        shape: Of the scales, broadcastable to the values.
        among: Which values count, bool, of the shape of ``values``. Default None, for all.

    Returns:
        Tensor: Of the shape ``shape``, positive.
    """
    # in float64, so that the mean of equal values is that very value: the weights of a packed
    # checkpoint have one magnitude, and must give the same scale again
    wide = values.double()
    if among is None:
        mean = wide.sum_to_size(shape) / values_per_scale(values, shape)
    else:
        counted = among.to(wide)
        mean = (wide * counted).sum_to_size(shape) / counted.sum_to_size(shape).clamp(min=1)
    return mean.clamp(min=_LEAST).to(values)


def values_per_scale(values: Tensor, shape: tuple[int, ...]) -> int:
    """Return how many of the values share one of the scales of this shape."""
    return max(1, values.numel() // math.prod(shape))
