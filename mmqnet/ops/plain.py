# Copyright (c) mmqnet developers. All rights reserved.
"""The operators in plain torch operations, for every device.

The differences ``beta * x - b`` are taken in float64, where the product of two float32 numbers is
exact: at T = 2000 a rounding of ``beta * x`` to float32 alone would move a sigmoid by a percent.

Only the thresholds within ``W / T`` of ``beta * x`` are evaluated. The others are 0 or 1 to within
``exp(-W)``, so the time depends on the thresholds that lie near each other and not on their number.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .arguments import (
    backward_temperatures,
    check_function,
    check_straight_through,
    check_temperature,
)

# exp(-W) is what a threshold outside the window would still add, as a share of its gap.
_WINDOW = 40.0
_CHUNK = {'cpu': 1 << 16}
_DEFAULT_CHUNK = 1 << 22


class _Window:
    """The thresholds that matter for each element of ``scaled`` = beta * x, in float64.

    Args:
        scaled (Tensor): (N,).
        levels (Tensor): (n + 1,), float64.
        thresholds (Tensor): (n,), float64.
        temperature (float): T.
    """

    def __init__(self, scaled: Tensor, levels: Tensor, thresholds: Tensor, temperature: float):
        self.scaled, self.levels, self.thresholds = scaled, levels, thresholds
        self.temperature = temperature
        self.gaps = levels.diff()
        radius = _WINDOW / temperature
        end = torch.searchsorted(thresholds, thresholds + 2 * radius, right=True)
        # The nearest threshold on each side always takes part, so that a slope far from every
        # threshold is small but not zero, as in the formula; the one below may come on top of a
        # full window.
        self.size = 1 + int((end - torch.arange(len(thresholds), device=end.device)).max())
        first = torch.searchsorted(thresholds, scaled - radius)
        below = torch.searchsorted(thresholds, scaled) - 1
        self.first = torch.minimum(first, below).clamp_(min=0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (index, T * (beta * x - b), whether there is such a threshold), each (N,)."""
        last = len(self.thresholds) - 1
        for offset in range(min(self.size, last + 1)):
            index = self.first + offset
            inside = index <= last
            index = index.clamp(max=last)
            yield index, (self.scaled - self.thresholds[index]) * self.temperature, inside

    def value(self) -> Tensor:
        """Y_0 + sum_i s_i * g_i: (N,)."""
        total = self.levels[self.first]
        for index, exponent, inside in self:
            total = total + self.gaps[index] * torch.sigmoid(exponent) * inside
        return total

    def slope(self, weight: Tensor, by_threshold: Tensor | None) -> Tensor:
        """D = sum_i s_i * g_i * (1 - g_i): (N,).

        Adds the terms times ``weight`` to ``by_threshold`` (n,).
        """
        total = torch.zeros_like(self.scaled)
        for index, exponent, inside in self:
            # 1 - g would lose all digits where g is near 1.
            slope = torch.sigmoid(exponent) * torch.sigmoid(-exponent)
            term = self.gaps[index] * slope * inside
            total = total + term
            if by_threshold is not None:
                by_threshold.index_add_(0, index, weight * term)
        return total


def _pieces(x: Tensor, *scales: Tensor) -> Iterator[tuple]:
    """Yield (slice, scale pieces in float64...) so that float64 temporaries stay small."""
    size = _CHUNK.get(x.device.type, _DEFAULT_CHUNK)
    flat = [
        s.double().reshape(1) if s.numel() == 1 else s.double().expand(x.shape).reshape(-1)
        for s in scales
    ]
    for begin in range(0, x.numel(), size):
        piece = slice(begin, begin + size)
        yield piece, *(s if s.numel() == 1 else s[piece] for s in flat)


def _like(flat: Tensor, x: Tensor) -> Tensor:
    """Give row-major ``flat`` the shape and the memory format of ``x``."""
    return torch.empty_like(x).copy_(flat.view(x.shape))


def soft_quantize(
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: Tensor,
    backward_temperature: float | None = None,
    surrogate_temperature: float | None = None,
) -> Tensor:
    """Compute soft quantization, eq. 7."""
    check_function(x, levels, thresholds, dict(alpha=alpha, beta=beta))
    check_temperature(temperature)
    at, _ = backward_temperatures(temperature, None, None)
    flat = x.reshape(-1)
    out = torch.empty_like(flat)
    levels, thresholds = levels.double(), thresholds.double()
    for piece, alpha_, beta_ in _pieces(x, alpha, beta):
        window = _Window(flat[piece].double() * beta_, levels, thresholds, at)
        out[piece] = alpha_ * window.value()
    return _like(out, x)


def soft_quantize_backward(
    grad: Tensor,
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: Tensor,
    backward_temperature: float | None,
    surrogate_temperature: float | None,
    need_thresholds: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, thresholds (empty unless needed), alpha and beta."""
    value_at, slope_at = backward_temperatures(
        temperature, backward_temperature, surrogate_temperature
    )
    flat, flat_grad = x.reshape(-1), grad.reshape(-1)
    grad_x = torch.empty_like(flat)
    levels64, thresholds64 = levels.double(), thresholds.double()
    by_alpha, by_beta = _Reduction(x, alpha), _Reduction(x, beta)
    by_threshold = torch.zeros_like(thresholds64[: None if need_thresholds else 0])
    for piece, alpha_, beta_ in _pieces(x, alpha, beta):
        x_ = flat[piece].double()
        weighted = flat_grad[piece].double()
        scaled = x_ * beta_
        by_alpha.add(piece, weighted * _Window(scaled, levels64, thresholds64, value_at).value())
        weighted = weighted * alpha_ * value_at
        window = _Window(scaled, levels64, thresholds64, slope_at)
        slope = weighted * window.slope(weighted, by_threshold if need_thresholds else None)
        grad_x[piece] = slope * beta_
        by_beta.add(piece, slope * x_)
    by_thresholds = by_threshold.neg_().to(x.dtype)
    return _like(grad_x, x), by_thresholds, by_alpha.result(), by_beta.result()


class _Reduction:
    """Sums pieces of a tensor like x to the shape of a scale, in float64."""

    def __init__(self, x: Tensor, scale: Tensor):
        self.x, self.scale = x, scale
        size = 1 if scale.numel() == 1 else x.numel()
        self.total = torch.zeros(size, dtype=torch.float64, device=x.device)

    def add(self, piece: slice, values: Tensor) -> None:
        """Add the values of one piece."""
        if self.scale.numel() == 1:
            self.total += values.sum()
        else:
            self.total[piece] = values

    def result(self) -> Tensor:
        """Return the sums, of the scale's shape and dtype."""
        if self.scale.numel() > 1:
            self.total = self.total.view(self.x.shape).sum_to_size(self.scale.shape)
        return self.total.reshape(self.scale.shape).to(self.scale.dtype)


def _broadcastable(scale: Tensor) -> Tensor:
    """Return a scale that broadcasts to x: one of one element may have more dimensions than x."""
    return scale.reshape(()) if scale.numel() == 1 else scale


def hard_codes(x: Tensor, thresholds: Tensor, beta: Tensor) -> Tensor:
    """Count the thresholds at or below beta * x: level indices, int32."""
    check_function(x, None, thresholds, dict(beta=beta))
    scaled = (x * _broadcastable(beta)).contiguous()
    return torch.bucketize(scaled, thresholds, out_int32=True, right=True)


def hard_quantize(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """Compute hard quantization, eq. 5."""
    check_function(x, levels, thresholds, dict(alpha=alpha, beta=beta))
    out = _broadcastable(alpha) * levels[hard_codes(x, thresholds, beta).long()]
    return torch.empty_like(x).copy_(torch.where(x.isnan(), x, out))


def straight_through_backward(
    grad: Tensor, x: Tensor, y: Tensor, levels: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x and log(alpha), and the sum over what is clipped."""
    check_straight_through(grad, x, y, levels, alpha)
    scale = _broadcastable(alpha)
    outside = (x < scale * levels[0]) | (x > scale * levels[-1])
    by_log_alpha = grad * (y - x.masked_fill(outside, 0))
    clipped = grad.masked_fill(~outside, 0)
    grad_x = torch.empty_like(x).copy_(grad.masked_fill(outside, 0))
    return (
        grad_x,
        by_log_alpha.sum_to_size(scale.shape).reshape(alpha.shape),
        clipped.sum_to_size(scale.shape).reshape(alpha.shape),
    )
