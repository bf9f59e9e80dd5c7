# Copyright (c) mmqnet developers. All rights reserved.
"""The quantization function in plain torch operations, for every device.

The differences ``beta * x - b`` are taken in float64, where the product of two float32 numbers is
exact: at T = 2000 a rounding of ``beta * x`` to float32 alone would move a sigmoid by a percent.

Only the thresholds within ``W / T`` of ``beta * x`` are evaluated. The others are 0 or 1 to within
``exp(-W)``, so the time depends on the thresholds that lie near each other and not on their number.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# exp(-W) is what a threshold outside the window would still add, as a share of its gap.
_WINDOW = 40.0
_CHUNK = {'cpu': 1 << 16}
_DEFAULT_CHUNK = 1 << 22


class Gradients(NamedTuple):
    """Gradients of the soft function; those of alpha and beta have the shapes of alpha and beta."""

    x: Tensor
    alpha: Tensor
    beta: Tensor
    thresholds: Tensor | None


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


def soft_forward(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor, temperature: float
) -> Tensor:
    """Soft quantization, eq. 7, for arguments of one dtype."""
    flat = x.reshape(-1)
    out = torch.empty_like(flat)
    levels, thresholds = levels.double(), thresholds.double()
    for piece, alpha_, beta_ in _pieces(x, alpha, beta):
        window = _Window(flat[piece].double() * beta_, levels, thresholds, temperature)
        out[piece] = alpha_ * window.value()
    return _like(out, x)


def soft_backward(
    grad: Tensor,
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: float,
    backward_temperature: float,
    need_thresholds: bool,
) -> Gradients:
    """Gradients of :func:`soft_forward`, with the slope at ``backward_temperature`` times T."""
    flat, flat_grad = x.reshape(-1), grad.reshape(-1)
    grad_x = torch.empty_like(flat)
    levels64, thresholds64 = levels.double(), thresholds.double()
    by_alpha, by_beta = _Reduction(x, alpha), _Reduction(x, beta)
    by_threshold = torch.zeros_like(thresholds64) if need_thresholds else None
    for piece, alpha_, beta_ in _pieces(x, alpha, beta):
        x_ = flat[piece].double()
        weighted = flat_grad[piece].double()
        scaled = x_ * beta_
        by_alpha.add(piece, weighted * _Window(scaled, levels64, thresholds64, temperature).value())
        weighted = weighted * alpha_ * temperature
        window = _Window(scaled, levels64, thresholds64, backward_temperature)
        slope = weighted * window.slope(weighted, by_threshold)
        grad_x[piece] = slope * beta_
        by_beta.add(piece, slope * x_)
    return Gradients(
        _like(grad_x, x),
        by_alpha.result(),
        by_beta.result(),
        None if by_threshold is None else by_threshold.neg_().to(x.dtype),
    )


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
        """The sums, of the scale's shape and dtype."""
        if self.scale.numel() > 1:
            self.total = self.total.view(self.x.shape).sum_to_size(self.scale.shape)
        return self.total.reshape(self.scale.shape).to(self.scale.dtype)


def hard_codes(x: Tensor, thresholds: Tensor, beta: Tensor) -> Tensor:
    """Level indices (int32, like x): the number of thresholds at or below beta * x."""
    return torch.bucketize((x * beta).contiguous(), thresholds, out_int32=True, right=True)


def hard_forward(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """Hard quantization, eq. 5."""
    out = alpha * levels[hard_codes(x, thresholds, beta).long()]
    return torch.empty_like(x).copy_(torch.where(x.isnan(), x, out))
