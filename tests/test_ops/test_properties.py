"""What holds for every input: properties of the staircase and its soft form."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import max_pool2d

from mmqnet.ops import hard_codes, hard_quantize, soft_quantize

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
moderate = st.floats(-1000, 1000, width=32)
scales = st.floats(0.0625, 16, width=32)
temperatures = st.floats(0.0625, 2000, width=32)
few = settings(max_examples=60, deadline=None)


@st.composite
def functions(draw):
    """Levels and thresholds of any size and spacing."""
    n = draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    levels = (torch.rand(n + 1, generator=generator) + 0.01).cumsum(0) + draw(st.integers(-20, 5))
    thresholds = (torch.randn(n, generator=generator) * draw(scales)).sort().values
    return levels, thresholds


def tensors(elements, **options):
    return st.lists(elements, min_size=1, max_size=40, **options).map(torch.tensor)


@few
@given(functions(), tensors(moderate), scales, scales, temperatures)
def test_soft_and_hard_are_monotone(function, x, alpha, beta, temperature):
    x = x.sort().values
    hard = hard_quantize(x, *function, alpha, beta)
    assert (hard.diff() >= 0).all()
    soft = soft_quantize(x, *function, alpha, beta, temperature)
    # Sums of sigmoids are rounded, each to its own side.
    assert (soft.diff() >= -2e-6 * alpha * function[0].abs().max()).all()


@few
@given(functions(), tensors(finite), scales, scales)
def test_hard_gives_levels_times_alpha(function, x, alpha, beta):
    levels, thresholds = function
    hard = hard_quantize(x, levels, thresholds, alpha, beta)
    codes = hard_codes(x, thresholds, beta)
    assert torch.isin(hard, alpha * levels).all()
    assert torch.equal(hard, alpha * levels[codes.long()])


@few
@given(functions(), tensors(moderate), scales, scales)
def test_soft_tends_to_hard_away_from_the_thresholds(function, x, alpha, beta):
    levels, thresholds = function
    distance = ((x * beta)[:, None] - thresholds).abs().amin(1)
    far = distance > 1e-2
    hard = hard_quantize(x, levels, thresholds, alpha, beta)[far]
    span = alpha * levels.abs().max().item()
    # A sigmoid at a distance of 0.01 is off by exp(-0.01 * T) or less.
    for temperature, share in ((500.0, 41 * 7e-3), (2000.0, 1e-5)):
        soft = soft_quantize(x, levels, thresholds, alpha, beta, temperature)[far]
        assert ((soft - hard).abs() <= share * span + alpha * share).all()


@few
@given(functions(), st.integers(0, 1000), scales, temperatures)
def test_max_pool_commutes(function, seed, beta, temperature):
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) * 4
    hard_first = max_pool2d(hard_quantize(x, *function, 1.0, beta), 2)
    assert torch.equal(hard_first, hard_quantize(max_pool2d(x, 2), *function, 1.0, beta))
    soft_first = max_pool2d(soft_quantize(x, *function, 1.0, beta, temperature), 2)
    pool_first = soft_quantize(max_pool2d(x, 2), *function, 1.0, beta, temperature)
    torch.testing.assert_close(
        soft_first, pool_first, rtol=2e-6, atol=2e-6 * function[0].abs().max().item()
    )


@few
@given(functions(), tensors(finite), scales, scales, st.floats(2.0**-20, 4, width=32))
def test_soft_is_finite_for_any_finite_input(function, x, alpha, beta, temperature):
    x.requires_grad_()
    alpha, beta = (torch.tensor(value, requires_grad=True) for value in (alpha, beta))
    y = soft_quantize(x, *function, alpha, beta, temperature)
    assert y.isfinite().all()
    grads = torch.autograd.grad(y.sum(), (x, alpha, beta))
    assert all(grad.isfinite().all() for grad in grads)
