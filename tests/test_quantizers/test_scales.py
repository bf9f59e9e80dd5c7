"""Initial scales: the paper's rule, and the least squared error against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import calibrated, weight_config

from mmqnet.layers import QuantConv2d
from mmqnet.ops import hard_quantize
from mmqnet.quantizers import resolve_levels
from mmqnet.quantizers.quantization_network.thresholds import initial_thresholds
from mmqnet.quantizers.scales import fit_scales, initial_beta

SETS = ['binary', 'ternary', 'pm2', 'pm4', 'int5', 'int8', 'uint1', 'uint2', 'uint8']


@pytest.mark.parametrize('name', SETS)
def test_beta_is_five_quarters_of_p_over_q(name):
    levels, q = resolve_levels(name), torch.tensor([0.3, 1.0, 17.25])
    p = max(abs(level) for level in levels)
    assert torch.equal(initial_beta(levels, q), torch.tensor(5 * p / 4) / q)


def test_beta_of_nothing_but_zeros_is_that_of_one():
    assert initial_beta((-1.0, 1.0), torch.tensor([0.0, 0.0])).tolist() == [1.25, 1.25]


@pytest.mark.parametrize('tiny', [0.0, 1e-45, 1e-40, 1e-30])
def test_a_row_that_is_nearly_zero_counts_as_a_millionth_of_the_largest(tiny):
    beta = initial_beta((-1.0, 1.0), torch.tensor([tiny, 2.0]))
    torch.testing.assert_close(beta, torch.tensor([1.25 / 2e-6, 1.25 / 2]))


def heavy_tailed(name, seed, count=3000):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator) ** 3
    return values.abs() if name.startswith('uint') else values


def squared_error(x, levels, thresholds, alpha, beta):
    y = hard_quantize(x.double(), torch.tensor(levels), thresholds, alpha, beta)
    return (x - y).square().sum().item()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SETS), st.integers(0, 99))
def test_no_other_alpha_is_better(name, seed):
    levels, x = resolve_levels(name), heavy_tailed(name, seed)
    beta = initial_beta(levels, x.abs().max())
    thresholds = initial_thresholds(beta * x, levels, 'kmeans', 0.05)
    alpha, kept = fit_scales(x[None], levels, thresholds, beta[None], search_beta=False)
    assert torch.equal(kept, beta[None])
    best = squared_error(x, levels, thresholds, alpha, beta)
    for factor in (0.98, 1.02, 1 / alpha / beta):
        assert best <= squared_error(x, levels, thresholds, alpha * factor, beta) * (1 + 1e-5)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(['binary', 'ternary', 'pm4', 'uint1', 'uint2', 'uint8']), st.integers(0, 99))
def test_no_other_nearest_level_quantizer_is_better(name, seed):
    levels, x = resolve_levels(name), heavy_tailed(name, seed)
    start = initial_beta(levels, x.abs().max())
    thresholds = initial_thresholds(x, levels, 'uniform', None)
    alpha, beta = fit_scales(x[None], levels, thresholds, start[None], search_beta=True)
    found = squared_error(x, levels, thresholds, alpha, beta)
    dense = start * torch.logspace(-1, 1.7, 500)
    # with many levels the error is jagged: the largest values sit on a level or beside it
    tolerance = 1.1 if len(levels) > 7 else 1.03
    assert found <= tolerance * min(squared_error(x, levels, thresholds, 1 / b, b) for b in dense)


def test_binary_weights_get_their_mean_absolute_value():
    """The scale of binary weight networks (arXiv 1603.05279, eq. 6)."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    alpha, _ = fit_scales(x[None], (-1.0, 1.0), torch.zeros(1), torch.ones(1), search_beta=False)
    torch.testing.assert_close(alpha, x.abs().mean()[None])


def test_any_input_scale_fits_binary_weights_so_it_is_that_of_the_output():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    alpha, beta = fit_scales(x[None], (-1.0, 1.0), torch.zeros(1), torch.ones(1), search_beta=True)
    assert 0.98 < alpha * beta < 1.02


def test_values_that_no_scale_fits_keep_the_range():
    rows = torch.stack([torch.zeros(8), torch.full((8,), -1.0)])  # levels 0..3 fit neither
    alpha, beta = fit_scales(
        rows, resolve_levels('uint2'), torch.tensor([0.5, 1.5, 2.5]), torch.tensor([2.0, 4.0]), True
    )
    assert beta.tolist() == [2.0, 4.0]
    assert alpha.tolist() == [0.5, 0.25]


@pytest.mark.parametrize('thresholds', ['kmeans', 'uniform'])
@pytest.mark.parametrize('granularity', ['layer', 'channel'])
def test_layer_loses_less_than_with_the_range(thresholds, granularity):
    errors = {}
    for scale_init in ('range', 'mse'):
        config = dict(thresholds=thresholds, granularity=granularity, scale_init=scale_init)
        layer = QuantConv2d(8, 6, 3, weight_quantizer=weight_config('pm4', **config))
        layer.weight.data = heavy_tailed('pm4', seed=0, count=6 * 8 * 9).view(6, 8, 3, 3)
        calibrated(layer)
        layer.weight_quantizer.eval()
        y = layer.weight_quantizer(layer.weight)
        errors[scale_init] = (layer.weight - y).square().sum().item()
        assert layer.weight_quantizer.alpha.numel() == (6 if granularity == 'channel' else 1)
    assert errors['mse'] < errors['range']
