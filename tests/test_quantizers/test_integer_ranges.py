"""The range of integers of the least squared error, against one fit for each range."""

import pytest
import torch
import torch.nn.functional as F

from mmqnet.quantizers import Sample
from mmqnet.quantizers.integer_ranges import shortlist, squared_errors
from mmqnet.quantizers.level_sets import integer_ranges, resolve_levels
from mmqnet.quantizers.lsq import least_squares_step, rounding

ACTIVATIONS = {
    'SiLU': F.silu,
    'GELU': F.gelu,
    'hard-swish': F.hardswish,
    'leaky ReLU': F.leaky_relu,
    'ReLU': F.relu,
    'none': lambda x: x,
    'mirrored SiLU': lambda x: -F.silu(x),
}


def values_behind(name, count=2**12):
    generator = torch.Generator().manual_seed(0)
    return ACTIVATIONS[name](2 * torch.randn(count, generator=generator))


def error_of_fit(x, levels):
    levels = torch.tensor(levels)
    step = least_squares_step(Sample(x[None], x.abs().max()[None], True), levels)
    return float((rounding(levels, step.log()[0], None).quantize(x) - x).square().sum())


@pytest.mark.parametrize('name', ACTIVATIONS)
@pytest.mark.parametrize('bits', [1, 2, 3])
def test_errors_are_those_of_a_fit_for_each_range(name, bits):
    x, n = values_behind(name), 2**bits - 1
    errors = squared_errors(x, n, range(n))
    for m, error in enumerate(errors.tolist()):
        expected = error_of_fit(x, [float(i - m) for i in range(n + 1)])
        # the fits try other scales, and round at 1 / alpha
        assert error == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize('name', ACTIVATIONS)
def test_the_range_follows_the_values(name, bits):
    x = values_behind(name)
    sets = list(integer_ranges(resolve_levels(f'uint{bits}')))
    best, *others = shortlist(sets, x)
    usual = sets[2 ** (bits - 1)]
    if name == 'none':  # symmetric
        assert abs(best[0] - usual[0]) <= 1
    elif 'mirrored' in name:
        assert best[0] < usual[0] or best == sets[-1]
    else:
        assert usual[0] < best[0] <= 0
        assert name != 'ReLU' or best[0] == 0
    assert others == ([] if best == usual else [usual])


def test_one_of_the_usual_sets_stays_unless_another_is_better():
    sets = list(integer_ranges(resolve_levels('uint2')))
    x = torch.randn(2**12, generator=torch.Generator().manual_seed(1))
    assert shortlist(sets, torch.cat([x, -x])) == [(-2, -1, 0, 1)]
    assert shortlist(sets, torch.zeros(8)) == [(-2, -1, 0, 1)]
    assert shortlist([*sets, (-1.5, -0.5, 0.5, 1.5)], x.abs())[-1] == (-1.5, -0.5, 0.5, 1.5)


@pytest.mark.parametrize('sets', [[], [(0.0, 1.0)], [(-1.0, 1.0), (0.0, 1.0)], [(-3.0, 1.0)]])
def test_what_leaves_no_choice_stays_as_it_is(sets):
    assert shortlist(sets, torch.randn(8)) == sets
