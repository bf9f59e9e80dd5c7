"""Straight-through gradients against their definition, in every implementation."""

import pytest
import torch
from quantization_formula import make_function

from mmqnet.ops import hard_quantize, library, plain, straight_through_backward

IMPLEMENTATIONS = dict(
    operator=library.straight_through_backward, plain=plain.straight_through_backward
)
BASE = torch.randn(4, 6, 8, 10, generator=torch.Generator().manual_seed(0))
LAYOUTS = dict(
    contiguous=BASE,
    channels_last=BASE.contiguous(memory_format=torch.channels_last),
    transposed=BASE.transpose(1, 3),
    strided=BASE[..., ::2],
    expanded=BASE[:1].expand(4, 6, 8, 10),
    large=BASE.repeat(2, 1, 10, 10),
    empty=BASE[:0],
)


def rounded(x, levels, thresholds, alpha):
    return hard_quantize(x, levels, thresholds, alpha, 1 / alpha)


def by_definition(grad, x, y, levels, alpha):
    """The derivatives of ``alpha * clip(round(x / alpha))``, element by element in float64."""
    grad, x, y, levels, alpha = (tensor.double() for tensor in (grad, x, y, levels, alpha))
    inside = (alpha * levels[0] <= x) & (x <= alpha * levels[-1])
    by_log_alpha = torch.where(inside, grad * (y - x), grad * y)
    clipped = torch.where(inside, 0.0, grad)
    sums = (part.sum_to_size(alpha.shape) for part in (by_log_alpha, clipped))
    return torch.where(inside, grad, 0.0), *sums


def check(implementation, x, function, alpha):
    levels, thresholds = function
    y = rounded(x, levels, thresholds, alpha)
    grad = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    results = IMPLEMENTATIONS[implementation](grad, x, y, levels, alpha)
    expected = by_definition(grad, x, y, levels, alpha)
    assert torch.equal(results[0], expected[0].to(x))
    assert results[0].stride() == torch.empty_like(x).stride()
    terms = max(1, x.numel() // max(1, alpha.numel()))
    for result, sum_ in zip(results[1:], expected[1:], strict=True):
        assert result.shape == alpha.shape
        assert result.dtype == x.dtype
        exact = 1e-12 if x.dtype is torch.float64 else 1e-6
        torch.testing.assert_close(result, sum_.to(x), rtol=exact, atol=exact * terms)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('name', ['binary', 'two', 'pm4', 'custom', 'uint8'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_is_the_derivative_of_the_clipped_rounding(name, dtype, implementation):
    function = [tensor.to(dtype) for tensor in make_function(name)]
    alpha = (BASE.abs().max() / function[0].abs().max() / 2).to(dtype)
    check(implementation, BASE.to(dtype), function, alpha)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dims', [(), (0,), (1,), (0, 2)])
def test_any_layout_and_scales(layout, dims, implementation):
    x = LAYOUTS[layout]
    shape = [size if dim in dims else 1 for dim, size in enumerate(x.shape)]
    alpha = torch.rand(shape if dims else (), generator=torch.Generator().manual_seed(2)) + 0.3
    check(implementation, x, make_function('pm4'), alpha)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_one_value(implementation):
    check(implementation, BASE[0, 0, 0, 0], make_function('pm4'), torch.tensor(0.3))


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('shape', [(1,), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize('x', [BASE[0, 0, 0, 0], BASE[0, 0, 0], BASE[0, 0]])
def test_one_scale_of_any_number_of_dimensions(x, shape, implementation):
    levels, thresholds = make_function('two')
    one, gradient = torch.tensor(0.3), IMPLEMENTATIONS[implementation]
    y = rounded(x, levels, thresholds, one)
    expected = gradient(x.exp(), x, y, levels, one)
    found = gradient(x.exp(), x, y, levels, one.reshape(shape))
    assert torch.equal(found[0], expected[0])
    for sum_, exact in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(sum_, exact.reshape(shape))


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_the_outermost_levels_are_inside(implementation):
    x = torch.tensor([-1.0, 1.0, -1.0000001, 1.0000001])
    levels, alpha = torch.tensor([-1.0, 1.0]), torch.tensor(1.0)
    grad_x, by_log_alpha, clipped = IMPLEMENTATIONS[implementation](
        torch.tensor([1.0, 2.0, 4.0, 8.0]), x, x.sign(), levels, alpha
    )
    assert grad_x.tolist() == [1, 2, 0, 0]
    assert (float(by_log_alpha), float(clipped)) == (4, 12)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_bad_arguments(device, implementation):
    x, levels, alpha = torch.ones(2, 3), torch.ones(2), torch.ones(())
    good = dict(grad=x, x=x, y=x, levels=levels, alpha=alpha)
    bad = [
        ('x', x.long(), TypeError, r'`x` should be .*float'),
        ('grad', x.double(), TypeError, '`grad` should be of the dtype of x'),
        ('y', torch.ones(3, 2), ValueError, r'`y` .* of x, \(2, 3\), but got shape \(3, 2\)'),
        ('levels', alpha, ValueError, '`levels` should be a vector'),
        ('alpha', torch.ones(7), ValueError, r'`alpha` .* shape \(7,\)'),
    ]
    for name, value, error, message in bad:
        arguments = [tensor.to(device) for tensor in (good | {name: value}).values()]
        with pytest.raises(error, match=message):
            IMPLEMENTATIONS[implementation](*arguments)


def test_other_arguments_are_taken_in_the_precision_of_x():
    x, levels = torch.linspace(-2, 2, 9), torch.tensor([-1.0, 1.0])
    exact = straight_through_backward(x + 1, x, x.sign(), levels, torch.tensor(0.5))
    grad, alpha = (x + 1).bfloat16(), torch.tensor(0.5).double()
    results = straight_through_backward(grad, x, x.sign(), levels.double(), alpha)
    assert all(torch.equal(*pair) for pair in zip(results, exact, strict=True))


def test_cannot_be_differentiated():
    x = torch.ones(3, requires_grad=True)
    grad_x, *_ = straight_through_backward(torch.ones(3), x, x, torch.ones(2), torch.ones(()))
    with pytest.raises(RuntimeError, match='once'):
        grad_x.sum().backward()
