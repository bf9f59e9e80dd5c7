"""Parameters that rest in a phase, kept in the autograd graph.

DistributedDataParallel fixes at construction which parameters it waits for: one that rests must
still get a gradient, a zero.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[], Tensor], passing: Tensor | None, *resting: Tensor
    ) -> Tensor:
        ctx.shapes = [tensor.shape for tensor in resting]
        output = compute()
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs_input, needs_resting = ctx.needs_input_grad[1], ctx.needs_input_grad[2:]
        zeros = (
            grad_output.new_zeros(shape) if needed else None
            for shape, needed in zip(ctx.shapes, needs_resting, strict=True)
        )
        return (None, grad_output if needs_input else None, *zeros)


def without_gradient(
    compute: Callable[[], Tensor], passing: Tensor | None, resting: Iterable[Tensor]
) -> Tensor:
    """Result of ``compute()`` whose backward pass gives zeros.

    Args:
        compute: Makes the output; called without recording gradients.
        passing: Tensor that gets the gradient of the output unchanged, or None. It must have the
            shape of the output.
        resting: Tensors that get zeros as their gradients.

    Returns:
        Tensor: The output, attached to ``passing`` and ``resting`` in the autograd graph.
    """
    return _WithoutGradient.apply(compute, passing, *resting)
