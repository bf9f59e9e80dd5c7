# Copyright (c) mmqnet developers. All rights reserved.
"""The operators of ``torch.ops.mmqnet``: schemas, and what computes them on which device.

Each implementation is a module with functions of the operators' names and signatures. The compiled
kernel registers itself for the CPU (``csrc``); Triton's serve GPUs; plain torch operations serve
everything else. Schemas and gradients are there with and without the kernel.

Only registrations that every supported torch has are used: ``torch.library.register_autograd`` and
``register_fake`` came later.
"""

import functools
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import fake, plain

_FUNCTION = 'Tensor x, Tensor levels, Tensor thresholds, Tensor alpha, Tensor beta'
_SOFT = (
    f'{_FUNCTION}, Tensor temperature, '
    'float? backward_temperature=None, float? surrogate_temperature=None'
)
SCHEMAS = {
    'soft_quantize': f'({_SOFT}) -> Tensor',
    # Without a default: a schema may have none between its optional arguments.
    'soft_quantize_backward': (
        f'(Tensor grad, {_SOFT.replace("=None", "")}, bool need_thresholds)'
        ' -> (Tensor grad_x, Tensor grad_thresholds, Tensor grad_alpha, Tensor grad_beta)'
    ),
    'hard_quantize': f'({_FUNCTION}) -> Tensor',
    'hard_codes': '(Tensor x, Tensor thresholds, Tensor beta) -> Tensor',
    'straight_through_backward': (
        '(Tensor grad, Tensor x, Tensor y, Tensor levels, Tensor alpha)'
        ' -> (Tensor grad_x, Tensor grad_log_alpha, Tensor clipped)'
    ),
}
_WITH_TRITON = ('soft_quantize', 'soft_quantize_backward', 'hard_quantize')

_library = torch.library.Library('mmqnet', 'FRAGMENT')  # registrations last as long as it does
for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema)

soft_quantize = torch.ops.mmqnet.soft_quantize.default
soft_quantize_backward = torch.ops.mmqnet.soft_quantize_backward.default
hard_quantize = torch.ops.mmqnet.hard_quantize.default
hard_codes = torch.ops.mmqnet.hard_codes.default
straight_through_backward = torch.ops.mmqnet.straight_through_backward.default


class _SoftQuantize(torch.autograd.Function):
    """Recompute in the backward pass, so that x is the only tensor of its size that is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        levels: Tensor,
        thresholds: Tensor,
        alpha: Tensor,
        beta: Tensor,
        temperature: Tensor,
        *backward_temperatures: float | None,
    ) -> Tensor:
        """Compute with what is registered below autograd."""
        arguments = (x, levels, thresholds, alpha, beta, temperature)
        ctx.save_for_backward(*arguments)
        ctx.backward_temperatures = backward_temperatures
        return _below_autograd(soft_quantize, *arguments, *backward_temperatures)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Call the operator, so that a trace sees one node."""
        need_thresholds = ctx.needs_input_grad[2]
        arguments = (*ctx.saved_tensors, *ctx.backward_temperatures, need_thresholds)
        by_x, by_thresholds, by_alpha, by_beta = soft_quantize_backward(grad, *arguments)
        by_thresholds = by_thresholds if need_thresholds else None
        return by_x, None, by_thresholds, by_alpha, by_beta, None, None, None


class _Once(torch.autograd.Function):
    """Gradients that must not be taken for constants where somebody differentiates them."""

    @staticmethod
    def forward(ctx: Any, operator: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Compute with what is registered below autograd."""
        return _below_autograd(operator, *arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Refuse."""
        raise RuntimeError('a quantization function can be differentiated once only')


def _soft_with_gradient(
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: Tensor,
    backward_temperature: float | None = None,
    surrogate_temperature: float | None = None,
) -> Tensor:
    temperatures = (temperature, backward_temperature, surrogate_temperature)
    return _SoftQuantize.apply(x, levels, thresholds, alpha, beta, *temperatures)


def _below_autograd(operator: Any, *arguments: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _without_gradient(operator: Any) -> Any:
    """Return an operator's autograd kernel: piecewise constant, there is nothing to learn."""
    return functools.partial(_below_autograd, operator)


def _once_only(operator: Any) -> Any:
    """Return the autograd kernel of an operator that computes gradients."""
    return functools.partial(_Once.apply, operator)


@functools.cache
def _runs_triton(device: torch.device) -> bool:
    """Whether Triton compiles for the device: an error of its compiler is an error then."""
    return importlib.util.find_spec('triton') is not None and torch.cuda.get_device_capability(
        device
    ) >= (7, 0)


def _module_for_cuda(x: Tensor) -> ModuleType:
    """Return the module of Triton's kernels where they can compute this, else the plain one."""
    if x.dtype != torch.float32 or not _runs_triton(x.device):
        return plain
    from . import gpu

    return gpu


def _on_cuda(name: str) -> Any:
    """Return the operator's function for GPUs, which the tensor chooses."""

    def call(*arguments: Any) -> Any:
        # The first argument is x or a gradient like it.
        return getattr(_module_for_cuda(arguments[0]), name)(*arguments)

    return call


_AUTOGRAD = dict(
    soft_quantize=_soft_with_gradient,
    soft_quantize_backward=_once_only(soft_quantize_backward),
    hard_quantize=_without_gradient(hard_quantize),
    hard_codes=_without_gradient(hard_codes),
    straight_through_backward=_once_only(straight_through_backward),
)
for _name in SCHEMAS:
    _library.impl(_name, getattr(plain, _name), 'CompositeExplicitAutograd')
    _library.impl(_name, getattr(fake, _name), 'Meta')
    _library.impl(_name, _AUTOGRAD[_name], 'Autograd')
    if _name in _WITH_TRITON:  # a few operations of torch are all that the others take
        _library.impl(_name, _on_cuda(_name), 'CUDA')
