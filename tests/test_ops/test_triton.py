"""Triton's kernels in its interpreter and, where there is one, on a GPU; test_quantize.py has more.

On a machine with a GPU: TRITON_INTERPRET=0.
"""

import pytest
import torch
from quantization_formula import (
    LEVEL_SETS,
    check_against_formula,
    make_function,
    needs_triton_interpreter,
    soft_of,
)

from mmqnet.ops import hard_quantize, soft_quantize
from mmqnet.ops.plain import soft_quantize_backward

triton = pytest.importorskip('triton', reason='Triton is not installed')

DEVICES = [
    pytest.param('cpu', marks=needs_triton_interpreter),
    pytest.param('cuda', marks=pytest.mark.gpu),
]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture
def gpu():
    """The module of Triton's kernels, which imports Triton."""
    from mmqnet.ops import gpu

    return gpu


COMPILE = """
import os
os.environ.pop('TRITON_INTERPRET')
os.environ['TRITON_CACHE_DIR'] = {folder!r}
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mmqnet.ops import gpu_kernels

FLOATS = ('surrogate_temperature', 'backward_temperature')
INTEGERS = ('n', 'half', 'rows', 'inner', 'columns')
CONSTANTS = dict(exact=True, channels=1, tile_rows=1, tile_columns=1024)
for name in ('soft_forward', 'soft_backward', 'hard_forward'):
    kernel = getattr(gpu_kernels, name)
    kinds = {{name: 'fp32' for name in FLOATS}} | {{name: 'i32' for name in INTEGERS}}
    kinds |= {{name: 'constexpr' for name in CONSTANTS}}
    signature = {{name: kinds.get(name, '*fp32') for name in kernel.arg_names}}
    constants = {{name: CONSTANTS[name] for name in signature if name in CONSTANTS}}
    source = ASTSource(kernel, signature, constants)
    assert triton.compile(source, target=GPUTarget('cuda', 80, 32)).asm['cubin']
"""


def test_compiles_for_a_gpu(run_python, tmp_path):
    if tuple(map(int, triton.__version__.split('.')[:2])) < (3, 3):
        pytest.skip('compiling for another machine is written differently before Triton 3.3')
    run_python(COMPILE.format(folder=str(tmp_path)))


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['uniform', 'random'])
@pytest.mark.parametrize('name', LEVEL_SETS)
def test_soft_equals_the_formula_on_a_gpu(name, kind):
    function = make_function(name, kind)
    x = torch.rand(3, 59, 137) * (function[0][-1] - function[0][0]) + function[0][0] / 2
    alpha, beta = torch.tensor(0.3), torch.tensor(0.9)
    for temperature in (1.0, 7.5, 100.0, 2000.0):
        check_against_formula(x, *function, alpha, beta, temperature, device='cuda')


@pytest.mark.parametrize(
    ('shape', 'dim'), [((3, 1100), 0), ((2, 3, 5, 5), 1), ((1500, 3), 1), ((2, 3, 0), 1)]
)
def test_scales_by_channel_in_rows_of_any_length(shape, dim, device):
    function = make_function('pm4', 'random')
    x = torch.randn(shape) * 2
    alpha, beta = torch.rand(2, 3, *[1] * (len(shape) - dim - 1)) + 0.5
    if dim == 0:
        alpha, beta = (scale.view(3, 1) for scale in (alpha, beta))
    soft = soft_of('triton')
    check_against_formula(x, *function, alpha, beta, 20.0, device=device, soft=soft)


@pytest.mark.parametrize('kind', ['uniform', 'random'])
def test_large_numbers(kind, device, gpu):
    levels, thresholds = make_function('uint5', kind)
    one = torch.ones(())
    # The spacing of float32 there is 1/16: at T = 2000 the product is not rounded all the same.
    x = torch.arange(16.0) / 3 + 1e6 / 3
    beta = torch.tensor(3.0)
    options = dict(device=device, absolute_slope=True, soft=soft_of('triton'))
    check_against_formula(x, levels, (thresholds + 1e6).round(), one, beta, 2000.0, **options)
    numbers = ([3e38, -3e38, float('inf'), -float('inf')], 1.0, 2.0, 5.0)
    x, alpha, beta, temperature = (torch.tensor(number, device=device) for number in numbers)
    arguments = (x, levels.to(device), thresholds.to(device), alpha, beta)
    for y in (gpu.soft_quantize(*arguments, temperature), gpu.hard_quantize(*arguments)):
        assert y.tolist() == [31, 0, 31, 0]


@pytest.mark.parametrize('kind', ['uniform', 'random'])
@pytest.mark.parametrize('name', ['binary', 'two', 'pm4', 'uint5', 'uint8'])
def test_hard_has_the_bits_of_the_cpu(name, kind, device, gpu):
    levels, thresholds = make_function(name, kind)
    beta = torch.tensor([0.37, 1.0]).view(2, 1)
    # Where the product is a threshold or next to one.
    near = [thresholds / beta * (1 + i * 2**-24) for i in (-2, -1, 0, 1, 2)]
    x = torch.cat((*near, torch.tensor([[0.0, float('nan')], [3e38, -3e38]])), dim=1)
    alpha = torch.tensor([0.7, 0.3]).view(2, 1)
    arguments = (x, levels, thresholds, alpha, beta)
    y = gpu.hard_quantize(*(tensor.to(device) for tensor in arguments)).cpu()
    torch.testing.assert_close(y, hard_quantize(*arguments), rtol=0, atol=0, equal_nan=True)


def test_gradients_of_thresholds_are_those_of_torch_operations(device, gpu):
    levels, thresholds = (tensor.to(device) for tensor in make_function('pm4', 'random'))
    x = torch.linspace(-5, 5, 301, device=device)
    one, temperature = (torch.tensor(number, device=device) for number in (1.0, 6.0))
    arguments = (x, x, levels, thresholds, one, one, temperature, None, None, True)
    found = gpu.soft_quantize_backward(*arguments)[1]
    assert torch.equal(found, soft_quantize_backward(*arguments)[1])


@pytest.mark.gpu
def test_a_step_on_a_gpu_takes_triton_does_not_wait_and_is_repeatable():
    levels, thresholds = (tensor.cuda() for tensor in make_function('uint5', 'random'))
    x = torch.randn(3, 100_003, device='cuda').mul(20).requires_grad_()
    alpha, beta = (torch.ones((), device='cuda', requires_grad=True) for _ in range(2))
    temperature = torch.tensor(30.0, device='cuda')
    grad = torch.rand_like(x)

    def step():
        y = soft_quantize(x, levels, thresholds, alpha, beta, temperature)
        return y, *torch.autograd.grad(y, (x, alpha, beta), grad)

    first = step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        second = step()
        hard_quantize(x, levels, thresholds, alpha, beta)
        soft_quantize(x, levels, thresholds, 1.0, 1.0, 30.0)  # numbers do not wait either
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
