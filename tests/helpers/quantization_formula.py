# Copyright (c) mmqnet developers. All rights reserved.
"""The formulas of the method, written as they are printed, in float64; and what implements them."""

import functools
import importlib.util
import os
from types import SimpleNamespace

import pytest
import torch

from mmqnet import ops
from mmqnet.ops import plain
from mmqnet.ops.kernel import kernel_unavailable

needs_kernel = pytest.mark.skipif(
    kernel_unavailable() is not None,
    reason=f'the compiled kernel is not built: {kernel_unavailable()}',
)
needs_triton_interpreter = pytest.mark.skipif(
    importlib.util.find_spec('triton') is None or os.environ.get('TRITON_INTERPRET') != '1',
    reason='Triton is not installed, or its interpreter is turned off by TRITON_INTERPRET',
)
# 'public' is what users call; the others are one implementation each.
HARD_IMPLEMENTATIONS = [
    'public',
    'plain',
    pytest.param('triton', marks=needs_triton_interpreter),
]
# Ways of the compiled kernel, of which it takes the fastest.
STRATEGIES = dict(dense=0, window=1, table=2, unit=3)
IMPLEMENTATIONS = [
    *HARD_IMPLEMENTATIONS,
    *(pytest.param(name, marks=needs_kernel) for name in STRATEGIES),
]


class _Soft(torch.autograd.Function):
    """The soft function of one implementation, with its gradients."""

    @staticmethod
    def forward(ctx, module, *arguments):
        ctx.module, ctx.temperatures = module, arguments[6:]
        ctx.save_for_backward(*arguments[:6])
        return module.soft_quantize(*arguments)

    @staticmethod
    def backward(ctx, grad):
        need_thresholds = ctx.needs_input_grad[3]
        arguments = (*ctx.saved_tensors, *ctx.temperatures, need_thresholds)
        by_x, by_thresholds, *by_scales = ctx.module.soft_quantize_backward(grad, *arguments)
        by_thresholds = by_thresholds if need_thresholds else None
        return None, by_x, None, by_thresholds, *by_scales, None, None, None


def _by_strategy(strategy):
    """One way of the compiled kernel, as a module with the operators' functions."""
    operator = torch.ops.mmqnet._soft_by_strategy

    def forward(x, *arguments):
        return operator(torch.zeros_like(x), x, *arguments, strategy)[1]

    def backward(grad, *arguments):
        grad_x, _, grad_alpha, grad_beta = operator(grad, *arguments[:-1], strategy)
        return grad_x, None, grad_alpha, grad_beta

    return SimpleNamespace(soft_quantize=forward, soft_quantize_backward=backward)


def _module(name):
    if name == 'triton':
        from mmqnet.ops import gpu

        return gpu
    return plain if name == 'plain' else _by_strategy(STRATEGIES[name])


def soft_of(name):
    """``soft_quantize`` of an implementation, differentiable; it takes tensors of one dtype."""
    return ops.soft_quantize if name == 'public' else functools.partial(_soft, _module(name))


def _soft(module, *arguments, backward_temperature=None, surrogate_temperature=None):
    *tensors, temperature = arguments
    temperature = torch.as_tensor(temperature, dtype=tensors[0].dtype, device=tensors[0].device)
    return _Soft.apply(module, *tensors, temperature, backward_temperature, surrogate_temperature)


def hard_of(name):
    """``hard_quantize`` of an implementation; the ways of the kernel are of the soft function."""
    return (_module(name) if name in ('plain', 'triton') else ops).hard_quantize


LEVEL_SETS = {
    'binary': [-1, 1],
    'one': [0, 1],
    'ternary': [-1, 0, 1],
    'two': [0, 1, 2, 3],
    'pm2': [-2, -1, 0, 1, 2],
    'pm4': [-4, -2, -1, 0, 1, 2, 4],
    'seven': list(range(8)),
    'int5': list(range(-15, 16)),
    'uint5': list(range(32)),
    'int8': list(range(-127, 128)),
    'uint8': list(range(256)),
    'custom': [-3.5, -0.25, 0.5, 7.25],
}


def make_function(name, kind='uniform', seed=0):
    """Return levels and thresholds: uniform between the levels, or sorted random numbers."""
    levels = torch.tensor(LEVEL_SETS[name], dtype=torch.float32)
    thresholds = (levels[1:] + levels[:-1]) / 2
    if kind == 'random':
        generator = torch.Generator().manual_seed(seed)
        share = torch.rand(len(thresholds), generator=generator).sort().values
        thresholds = levels[0] + share * (levels[-1] - levels[0])
    return levels, thresholds


def soft_formula(x, levels, thresholds, alpha, beta, temperature, grad, backward_temperature=None):
    """Return y and the gradients of x, alpha, beta and thresholds, in float64."""
    x, levels, thresholds, alpha, beta, grad = (
        tensor.detach().double() for tensor in (x, levels, thresholds, alpha, beta, grad)
    )
    gaps = levels.diff()
    distance = (beta * x)[..., None] - thresholds
    value = levels[0] + (gaps * torch.sigmoid(temperature * distance)).sum(-1)
    u = (backward_temperature or temperature) * distance
    terms = gaps * torch.sigmoid(u) * torch.sigmoid(-u)
    slope = terms.sum(-1)
    by_threshold = -(temperature * (grad * alpha)[..., None] * terms).reshape(-1, len(gaps)).sum(0)
    return (
        alpha * value,
        grad * alpha * beta * temperature * slope,
        (grad * value).sum_to_size(alpha.shape),
        (grad * alpha * temperature * x * slope).sum_to_size(beta.shape),
        by_threshold,
    )


def relative_error(got, expected, floor=0.0):
    """Return the largest difference over the largest expected magnitude or ``floor``."""
    if not expected.numel():
        return 0.0
    scale = max(expected.abs().max().item(), floor, 1e-9)
    return (got.double() - expected).abs().max().item() / scale


def check_against_formula(
    x,
    levels,
    thresholds,
    alpha,
    beta,
    temperature,
    tolerance=1e-6,
    absolute_slope=False,
    device='cpu',
    soft=ops.soft_quantize,
    **options,
):
    """Check y and the gradients of x, alpha and beta; the arguments are on the CPU."""
    x, alpha, beta = (tensor.clone().requires_grad_() for tensor in (x, alpha, beta))
    grad = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    tensors = (tensor.to(device) for tensor in (x, levels, thresholds, alpha, beta))
    y = soft(*tensors, temperature, **options)
    got = [y.cpu(), *torch.autograd.grad(y, (x, alpha, beta), grad.to(device))]
    expected = soft_formula(x, levels, thresholds, alpha, beta, temperature, grad, **options)[:4]
    # The terms of a sum over few elements may cancel: its error is held against the size of their
    # noise too.
    value = expected[0] / alpha.detach().double()
    slope = expected[1] / beta.detach().double()
    noise = [0, 0, (grad * value).norm().item(), (slope * x.detach()).norm().item()]
    if absolute_slope:
        # The largest slope that a gap of 1 can have.
        peak = 0.25 * temperature * (alpha * beta).detach().max().item()
        noise[1], noise[3] = peak, max(noise[3], peak)
    for name, a, b, floor in zip(('y', 'x', 'alpha', 'beta'), got, expected, noise, strict=True):
        assert relative_error(a, b, floor) < tolerance, name
