# Copyright (c) mmqnet developers. All rights reserved.
"""The operators on tensors without data: checks, shapes, dtypes and strides."""

import torch
from torch import Tensor

from .arguments import check_function, check_straight_through, check_temperature


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
    """Return a tensor like x."""
    check_function(x, levels, thresholds, dict(alpha=alpha, beta=beta))
    check_temperature(temperature)
    return torch.empty_like(x)


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
    """Return gradients of x, thresholds (empty unless needed), alpha and beta."""
    return (
        torch.empty_like(x),
        thresholds.new_empty(thresholds.shape if need_thresholds else 0),
        alpha.new_empty(alpha.shape),
        beta.new_empty(beta.shape),
    )


def hard_quantize(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """Return a tensor like x."""
    check_function(x, levels, thresholds, dict(alpha=alpha, beta=beta))
    return torch.empty_like(x)


def hard_codes(x: Tensor, thresholds: Tensor, beta: Tensor) -> Tensor:
    """Return a contiguous tensor of x's shape."""
    check_function(x, None, thresholds, dict(beta=beta))
    return x.new_empty(x.shape, dtype=torch.int32)


def straight_through_backward(
    grad: Tensor, x: Tensor, y: Tensor, levels: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a gradient of x and two sums of alpha's shape."""
    check_straight_through(grad, x, y, levels, alpha)
    return torch.empty_like(x), alpha.new_empty(alpha.shape), alpha.new_empty(alpha.shape)
