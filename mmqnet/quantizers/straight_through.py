"""Hard functions in training: the forward pass rounds, gradients pass as a method says."""

from typing import Any

import torch
from torch import Tensor

from mmqnet.quantizers.staircase import Staircase


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:
        ctx.dtype = surrogate.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


def straight_through(staircase: Staircase, x: Tensor, surrogate: Tensor) -> Tensor:
    """Return a hard function of ``x`` with the gradients of another one.

    Args:
        staircase: The forward pass, bit by bit that of the evaluation.
        x: What is quantized, any shape.
        surrogate: A differentiable function of ``x`` and of what a quantizer learns, of the shape
            of ``x``; its value does not matter.
    """
    return _Replaced.apply(surrogate, staircase.quantize(x))
