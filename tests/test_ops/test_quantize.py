"""The quantization function against the formulas of the method, in every implementation."""

import functools
import sys
from pathlib import Path

import pytest
import torch
from quantization_formula import (
    HARD_IMPLEMENTATIONS,
    IMPLEMENTATIONS,
    LEVEL_SETS,
    check_against_formula,
    hard_of,
    make_function,
    needs_kernel,
    relative_error,
    soft_formula,
    soft_of,
)

from mmqnet.ops import hard_codes, hard_quantize, kmeans_1d, plain, soft_quantize

TEMPERATURES = [1, 7.5, 100, 2000]


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('kind', ['uniform', 'random'])
@pytest.mark.parametrize('levels', LEVEL_SETS)
def test_soft_equals_the_formula_at_every_temperature(levels, kind, implementation):
    levels, thresholds = make_function(levels, kind)
    x = torch.randn(7, 13, 5, generator=torch.Generator().manual_seed(0)) * levels.abs().max()
    for temperature in TEMPERATURES:
        check_against_formula(
            x,
            levels,
            thresholds,
            torch.tensor(0.3),
            torch.tensor(0.9),
            temperature,
            # A table is for tensors of many elements, not all of them far from every threshold.
            absolute_slope=implementation == 'table',
            soft=soft_of(implementation),
        )


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('backward_temperature', [1.0, 5.0])
def test_slope_at_the_backward_temperature_times_the_forward_one(
    implementation, backward_temperature
):
    levels, thresholds = make_function('pm4')
    x = torch.linspace(-5, 5, 301)
    check_against_formula(
        x,
        levels,
        thresholds,
        torch.tensor(0.5),
        torch.tensor(1.1),
        50.0,
        backward_temperature=backward_temperature,
        soft=soft_of(implementation),
    )


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_gradients_at_the_surrogate_temperature(implementation):
    levels, thresholds = make_function('pm4')
    thresholds = thresholds.requires_grad_(implementation in ('public', 'plain'))
    x = torch.linspace(-5, 5, 301, requires_grad=True)
    alpha, beta = (torch.tensor(value, requires_grad=True) for value in (0.5, 1.1))
    inputs = [x, alpha, beta, *([thresholds] if thresholds.requires_grad else [])]

    def soft(temperature, **options):
        return soft_of(implementation)(x, levels, thresholds, alpha, beta, temperature, **options)

    grad = torch.linspace(-1, 2, 301)
    y = soft(50.0, surrogate_temperature=6.0)
    assert torch.equal(y, soft(50.0))
    found = torch.autograd.grad(y, inputs, grad)
    expected = torch.autograd.grad(soft(6.0), inputs, grad)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    # A surrogate that is not below T changes nothing.
    found = torch.autograd.grad(soft(6.0, surrogate_temperature=7.0), inputs, grad)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ('alpha_shape', 'beta_shape'),
    [
        ((9, 1, 1, 1), (9, 1, 1, 1)),
        ((), (9, 1, 1, 1)),
        ((9, 1, 1, 1), (1,)),
        ((1, 5, 1, 1), (1, 5, 1, 1)),
        ((5, 1, 3), ()),
        ((9, 1, 1, 1), (3, 1)),
        ((9, 5, 3, 3), (1, 1, 3, 1)),
    ],
)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_scales_by_channel(implementation, alpha_shape, beta_shape, memory_format):
    levels, thresholds = make_function('int5', 'random')
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 5, 3, 3, generator=generator).mul(9).contiguous(memory_format=memory_format)
    alpha = torch.rand(alpha_shape, generator=generator) + 0.5
    beta = torch.rand(beta_shape, generator=generator) + 0.5
    check_against_formula(x, levels, thresholds, alpha, beta, 20.0, soft=soft_of(implementation))


ONE_ELEMENT = [(1,), (1, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('shape', ONE_ELEMENT)
def test_soft_with_one_scale_of_any_number_of_dimensions(shape, implementation):
    levels, thresholds = make_function('pm4')
    x = torch.linspace(-5, 5, 301, requires_grad=True)
    results = []
    for of_scales in (shape, ()):
        alpha, beta = (torch.full(of_scales, value, requires_grad=True) for value in (0.3, 1.1))
        y = soft_of(implementation)(x, levels, thresholds, alpha, beta, 5.0)
        by_x, *by_scales = torch.autograd.grad(y, (x, alpha, beta), torch.ones(301))
        assert all(by_scale.shape == of_scales for by_scale in by_scales)
        results.append((y, by_x, *(by_scale.reshape(()) for by_scale in by_scales)))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize('implementation', HARD_IMPLEMENTATIONS)
@pytest.mark.parametrize('shape', ONE_ELEMENT)
@pytest.mark.parametrize('size', [(), (301,), (7, 43)])
def test_hard_with_one_scale_of_any_number_of_dimensions(size, shape, implementation):
    levels, thresholds = make_function('pm4')
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    alpha, beta = torch.full(shape, 0.3), torch.full(shape, 1.1)
    y = hard_of(implementation)(x, levels, thresholds, alpha, beta)
    assert torch.equal(y, hard_quantize(x, levels, thresholds, 0.3, 1.1))


@pytest.mark.parametrize('codes', [hard_codes, plain.hard_codes])
@pytest.mark.parametrize('shape', ONE_ELEMENT)
@pytest.mark.parametrize('size', [(), (301,), (7, 43)])
def test_codes_with_one_scale_of_any_number_of_dimensions(size, shape, codes):
    _, thresholds = make_function('pm4')
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    found = codes(x, thresholds, torch.full(shape, 1.1))
    assert torch.equal(found, hard_codes(x, thresholds, 1.1))


@pytest.mark.parametrize('implementation', ['public', 'plain'])
@pytest.mark.parametrize('shape', [(), (3, 1, 1, 1)])
@pytest.mark.parametrize('temperature', [0.7, 4.0])
def test_gradcheck(implementation, shape, temperature):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 2, 2, generator=generator, dtype=torch.float64)
    scales = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5 for _ in 'ab']
    thresholds = torch.tensor([-0.7, -0.1, 0.4], dtype=torch.float64)
    levels = torch.tensor([-2.0, -0.5, 0.5, 3.0], dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (x, thresholds, *scales)]

    def function(x, thresholds, alpha, beta):
        return soft_of(implementation)(x, levels, thresholds, alpha, beta, temperature)

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize('implementation', ['public', 'plain'])
@pytest.mark.parametrize('name', LEVEL_SETS)
def test_gradient_of_thresholds_in_float32(name, implementation):
    levels, thresholds = make_function(name, 'random')
    thresholds.requires_grad_()
    # beyond the ends of the levels by a little
    x = torch.linspace(-0.1, 1.1, 1003) * (levels[-1] - levels[0]) + levels[0]
    alpha, beta = torch.tensor(0.7), torch.tensor(0.9)
    for temperature in TEMPERATURES:
        y = soft_of(implementation)(x, levels, thresholds, alpha, beta, temperature)
        (got,) = torch.autograd.grad(y, (thresholds,), torch.ones_like(x))
        expected = soft_formula(x, levels, thresholds, alpha, beta, temperature, torch.ones_like(x))
        assert relative_error(got, expected[-1]) < 1e-6, temperature


@pytest.mark.parametrize('name', ['binary', 'pm4', 'uint8'])
def test_four_bytes_an_element_are_kept_for_the_backward_pass(name):
    levels, thresholds = make_function(name)
    x = torch.randn(5_000, requires_grad=True)
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        soft_quantize(x, levels, thresholds, torch.ones(()), torch.ones(()), 10.0)
    small = 4 * (levels.numel() + thresholds.numel() + 3)
    assert 0 <= sum(sizes.values()) - 4 * x.numel() <= small


@pytest.mark.parametrize('temperature', [1.0, 50.0, 2000.0])
@pytest.mark.parametrize(
    ('name', 'kind'),
    [('two', 'random'), ('pm4', 'uniform'), ('uint8', 'uniform'), ('uint8', 'random')],
)
def test_large_tensors_of_odd_shapes(name, kind, temperature):
    levels, thresholds = make_function(name, kind)
    generator = torch.Generator().manual_seed(0)
    # Not symmetric: in the gradient of beta the terms would cancel.
    x = torch.rand(3, 59, 137, generator=generator) * (levels[-1] - levels[0]) + levels[0] / 2
    one = torch.ones(())
    check_against_formula(x, levels, thresholds, one, one, temperature)


@pytest.mark.parametrize(
    ('name', 'kind'),
    [pytest.param('uint8', 'uniform', marks=pytest.mark.slow), ('uint5', 'kmeans')],
)
def test_a_million_elements_on_two_threads(name, kind):
    levels, thresholds = make_function(name)
    # Of one sign: in the gradient of beta the terms would cancel.
    x = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).abs() * levels[-1] / 4
    if kind == 'kmeans':
        centres = kmeans_1d(x[:20_000], len(levels))
        thresholds = (centres[1:] + centres[:-1]) / 2
    grad = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    alpha, beta = torch.tensor(0.3), torch.tensor(0.9)
    inputs = [tensor.requires_grad_() for tensor in (x, alpha, beta, thresholds)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        y = soft_quantize(x, levels, thresholds, alpha, beta, 10.0)
        quick = (y, *torch.autograd.grad(y, inputs[:3], grad, retain_graph=True))
        exact = (y, *torch.autograd.grad(y, inputs, grad))
        expected = formula_in_pieces(x, levels, thresholds, alpha, beta, 10.0, grad)
    finally:
        torch.set_num_threads(threads)
    for got in (quick, exact):
        for a, b in zip(got, expected, strict=False):
            assert relative_error(a, b) < 1e-6


def formula_in_pieces(x, levels, thresholds, alpha, beta, temperature, grad):
    """The formula of few elements at a time: it takes elements times thresholds of memory."""
    pieces = [
        soft_formula(part, levels, thresholds, alpha, beta, temperature, by)
        for part, by in zip(x.split(2**14), grad.split(2**14), strict=True)
    ]
    y, by_x, *sums = zip(*pieces, strict=True)
    return torch.cat(y), torch.cat(by_x), *(sum(parts) for parts in sums)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_thresholds_levels_and_temperature_may_change_in_place(implementation):
    levels, thresholds = make_function('uint5', 'random')
    x = torch.linspace(-4, 36, 2003)
    one = torch.ones(())
    check = functools.partial(check_against_formula, soft=soft_of(implementation))
    check(x, levels, thresholds, one, one, 10.0)
    thresholds[3:].add_(0.25)
    check(x, levels, thresholds, one, one, 10.0)
    levels[-1] += 2
    check(x, levels, thresholds, one, one, 10.0)
    check(x, levels, thresholds, one, one, 11.0)


def views():
    base = torch.linspace(-6, 6, 2 * 3 * 8 * 10).view(2, 3, 8, 10)
    yield 'channels_last', base.contiguous(memory_format=torch.channels_last)
    yield 'transposed', base.transpose(1, 3)
    yield 'strided', base[..., ::2]
    yield 'expanded', base[:1].expand(4, 3, 8, 10)
    yield 'empty', base[:0]
    yield 'scalar', base[1, 0, 1, 6]


@pytest.mark.parametrize(
    ('name', 'x'), list(views()), ids=lambda value: value if isinstance(value, str) else ''
)
@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_any_layout(name, x, implementation):
    levels, thresholds = make_function('pm4')
    one = torch.ones(())
    soft, hard = soft_of(implementation), hard_of(implementation)
    check_against_formula(x, levels, thresholds, one, one, 5.0, soft=soft)
    y = soft(x, levels, thresholds, one, one, 5.0)
    hard = hard(x, levels, thresholds, one, one)
    assert y.shape == hard.shape == x.shape
    if name in ('channels_last', 'transposed'):
        assert y.stride() == hard.stride() == x.stride()


def test_half_precision_is_computed_in_float32():
    levels, thresholds = make_function('uint8')
    x = torch.linspace(-3, 200, 999).bfloat16().requires_grad_()
    alpha = torch.tensor(0.1, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = soft_quantize(x, levels, thresholds, alpha, 1.0, 100.0)
    outside = soft_quantize(x, levels, thresholds, alpha, 1.0, 100.0)
    single = soft_quantize(x.detach().float(), levels, thresholds, alpha, 1.0, 100.0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, single)
    assert outside.dtype == torch.bfloat16
    assert torch.equal(outside, single.bfloat16())
    grads = torch.autograd.grad(inside.sum(), (x, alpha))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_nan_stays_nan(implementation):
    levels, thresholds = make_function('uint5')
    x = torch.ones(37)
    x[[0, 17, 36]] = float('nan')
    one = torch.ones(())
    soft = soft_of(implementation)(x, levels, thresholds, one, one, 3.0)
    hard = hard_of(implementation)(x, levels, thresholds, one, one)
    assert torch.equal(soft.isnan(), x.isnan())
    assert torch.equal(hard.isnan(), x.isnan())


@pytest.mark.parametrize('name', LEVEL_SETS)
@pytest.mark.parametrize('kind', ['uniform', 'random'])
@pytest.mark.parametrize('implementation', HARD_IMPLEMENTATIONS)
def test_hard_counts_the_thresholds_at_or_below(name, kind, implementation):
    levels, thresholds = make_function(name, kind)
    # Thresholds themselves and their neighbours in float32, where `>` and `>=` differ.
    near = [thresholds, *(torch.nextafter(thresholds, torch.tensor(end)) for end in (-1e9, 1e9))]
    x = torch.cat((*near, torch.linspace(-300, 300, 1001), torch.tensor([3e38, -3e38])))
    alpha, beta = torch.tensor(0.37), torch.tensor(1.0)
    y = hard_of(implementation)(x, levels, thresholds, alpha, beta)
    codes = hard_codes(x, thresholds, beta)
    expected = (x[:, None] >= thresholds).sum(1)
    assert torch.equal(codes.long(), expected)
    assert torch.equal(y, alpha * levels[expected])


@needs_kernel
@pytest.mark.parametrize('first', [0.1, -12.3, 1e-6, 3e4, 1.5 + 2.0**-20])
@pytest.mark.parametrize('count', [9, 31, 255])
def test_hard_with_thresholds_that_rounding_moves_off_unit_distances(first, count):
    thresholds = torch.arange(count) + torch.tensor(first)
    levels = torch.arange(count + 1.0)
    near = [thresholds, *(torch.nextafter(thresholds, torch.tensor(end)) for end in (-1e9, 1e9))]
    x = torch.cat(near)
    y = hard_quantize(x, levels, thresholds, 1.0, 1.0)
    assert torch.equal(y, (x[:, None] >= thresholds).sum(1).float())


def test_hard_in_float64_and_by_channel():
    levels, thresholds = make_function('pm4', 'random')
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64) * 3
    alpha, beta = torch.rand(2, 4, 1, 1, 1) + 0.5
    expected = hard_quantize(x, levels, thresholds, alpha, beta)
    assert expected.dtype == torch.float64
    for channel in range(4):
        one = hard_quantize(x[channel], levels, thresholds, alpha[channel], beta[channel])
        assert torch.equal(expected[channel], one)
    assert torch.equal(hard_quantize(x.float(), levels, thresholds, alpha, beta), expected.float())


def test_hard_has_no_history():
    levels, thresholds = make_function('pm4')
    x = torch.randn(5, requires_grad=True)
    assert not hard_quantize(
        x, levels, thresholds, torch.ones((), requires_grad=True), 1.0
    ).requires_grad


def test_temperature_and_scales_may_be_numbers_or_tensors():
    levels, thresholds = make_function('pm4')
    x = torch.randn(50)
    numbers = soft_quantize(x, levels, thresholds, 0.5, 2.0, 7.0)
    tensors = soft_quantize(
        x, levels, thresholds, torch.tensor(0.5), torch.tensor(2.0), torch.tensor(7.0)
    )
    assert torch.equal(numbers, tensors)


@needs_kernel
@pytest.mark.parametrize('implementation', ['dense', 'window', 'unit'])
def test_no_results_so_small_that_they_slow_the_processor_down(implementation):
    levels, thresholds = make_function('uint5')
    x = torch.zeros(40, requires_grad=True)
    alpha = torch.tensor(0.01, requires_grad=True)
    y = soft_of(implementation)(x, levels, thresholds, alpha, torch.ones(()), 500.0)
    grads = torch.autograd.grad(y, (x, alpha), torch.full_like(y, 0.01))
    for result in (y, *grads):
        assert (result == 0).all()


@needs_kernel
@pytest.mark.parametrize(
    ('levels', 'kind', 'temperature'), [('pm4', 'uniform', 20.0), ('uint8', 'random', 5.0)]
)
def test_the_number_of_threads_changes_no_bit(levels, kind, temperature):
    levels, thresholds = make_function(levels, kind)
    x = torch.randn(700_001, generator=torch.Generator().manual_seed(0)) * levels.abs().max()
    x.requires_grad_()
    alpha, beta = (torch.tensor(value, requires_grad=True) for value in (0.5, 1.1))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            y = soft_quantize(x, levels, thresholds, alpha, beta, temperature)
            results.append((y, *torch.autograd.grad(y, (x, alpha, beta), x.detach())))
            for other in range(64):  # what is prepared for a function is kept for the last 64
                soft_quantize(x[:1], levels, thresholds, alpha, beta, 1.0 + other)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.skipif(sys.platform != 'linux', reason='built without OpenMP there')
def test_the_kernel_is_built_for_several_threads():
    module = pytest.importorskip('mmqnet.ops._C', reason='no C++ kernel')
    assert b'omp_get_thread_num' in Path(module.__file__).read_bytes()


@needs_kernel
def test_two_runs_give_the_same_bits():
    levels, thresholds = make_function('uint8')
    x = torch.randn(3, 100_003).mul(100).requires_grad_()
    alpha, beta = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    runs = []
    for _ in range(2):
        y = soft_quantize(x, levels, thresholds, alpha, beta, 30.0)
        runs.append((y, *torch.autograd.grad(y.sin().sum(), (x, alpha, beta))))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


GOOD = dict(
    x=torch.zeros(2, 3),
    levels=torch.arange(3.0),
    thresholds=torch.tensor([0.5, 1.5]),
    alpha=1.0,
    beta=1.0,
    temperature=1.0,
)


@pytest.mark.parametrize(
    ('name', 'value', 'error', 'message'),
    [
        ('x', [1.0], TypeError, '`x` should be a tensor, but got list'),
        ('x', torch.arange(3), TypeError, 'floating point tensor, but got torch.int64'),
        ('levels', (0, 1, 2), TypeError, '`levels` should be a tensor, but got tuple'),
        ('levels', torch.zeros(2, 2), ValueError, r'`levels` should be a vector .* \(2, 2\)'),
        ('thresholds', torch.zeros(3), ValueError, '3 `levels`, but got 3 thresholds'),
        ('thresholds', torch.zeros(0), ValueError, 'at least one number'),
        ('alpha', '1', TypeError, '`alpha` should be a tensor or a number, but got str'),
        (
            'beta',
            torch.ones(2),
            ValueError,
            r'`beta` should be a scalar or broadcastable .* \(2,\)',
        ),
        ('beta', torch.ones(1, 2, 3), ValueError, 'broadcastable'),
        (
            'temperature',
            0.0,
            ValueError,
            '`temperature` should be positive and finite, but got 0.0',
        ),
        ('temperature', float('inf'), ValueError, 'positive and finite'),
        ('temperature', torch.ones(2), ValueError, r'0-d tensor, but got shape \(2,\)'),
        ('temperature', '3', TypeError, 'but got str'),
        ('backward_temperature', -1.0, ValueError, '`backward_temperature` should be positive'),
        ('surrogate_temperature', 0.0, ValueError, '`surrogate_temperature` should be positive'),
    ],
)
def test_bad_arguments(name, value, error, message):
    with pytest.raises(error, match=message):
        soft_quantize(**{**GOOD, name: value})


def test_second_derivatives_are_refused_and_not_taken_for_zero():
    levels, thresholds = make_function('pm4')
    x = torch.linspace(-1, 1, 7, requires_grad=True)
    alpha = torch.tensor(0.5, requires_grad=True)
    y = soft_quantize(x, levels, thresholds, alpha, 1.0, 5.0)
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once'):
        slope.sum().backward()
