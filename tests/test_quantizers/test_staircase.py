"""The hard function as a value: outputs, codes, and what exporters ask of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmqnet.ops import hard_quantize
from mmqnet.quantizers import Staircase, resolve_levels

SETS = ['binary', 'ternary', 'pm2', 'pm4', 'int5', 'int8', 'uint1', 'uint2', 'uint8']


def staircase(levels, thresholds=None, alpha=0.3, beta=2.0):
    levels = torch.tensor(resolve_levels(levels))
    middles = (levels[1:] + levels[:-1]) / 2
    thresholds = middles if thresholds is None else torch.tensor(thresholds)
    return Staircase(levels, thresholds, torch.as_tensor(alpha), torch.as_tensor(beta))


@given(st.sampled_from(SETS), st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=40))
def test_output_and_codes(levels, values):
    function, x = staircase(levels), torch.tensor(values)
    assert torch.equal(function.quantize(x), hard_quantize(x, *function))
    codes = function.codes(x)
    assert codes.dtype is torch.int32
    assert torch.equal(function.quantize(x), function.alpha * function.levels[codes.long()])


@pytest.mark.parametrize('levels', SETS)
def test_a_value_at_a_threshold_belongs_to_the_level_above(levels):
    function = staircase(levels)
    at = function.thresholds / function.beta
    assert function.codes(at).tolist() == list(range(1, len(function.levels)))


def test_it_is_immutable():
    with pytest.raises(AttributeError):
        staircase('pm4').alpha = 1


@pytest.mark.parametrize(
    ('levels', 'thresholds', 'uniform'),
    [
        ('uint4', None, True),
        ('int8', None, True),
        ('binary', None, True),
        ([-0.75, -0.25, 0.25, 0.75], None, True),
        ([-1.5, 0.5, 2.5], None, True),
        ('pm4', None, False),  # the levels are not evenly spaced
        ('ternary', [-0.05, 0.05], False),
        ('uint2', [0.5, 1.5, 2.4], False),
    ],
)
def test_which_functions_round(levels, thresholds, uniform):
    assert staircase(levels, thresholds).is_uniform is uniform


@pytest.mark.parametrize(
    ('levels', 'integers', 'step'),
    [
        ('pm4', (-4, -2, -1, 0, 1, 2, 4), 1),
        ('ternary', (-1, 0, 1), 1),
        ('uint2', (0, 1, 2, 3), 1),
        ([-0.5, 0, 0.5], (-1, 0, 1), 0.5),
        ([-1.5, -0.5, 0.5, 1.5], (-3, -1, 1, 3), 0.5),
        ([0, 2, 6], (0, 1, 3), 2),
        ([-0.3, 0.1, 0.2], (-3, 1, 2), 0.1),
        ([-1, 0, 1 / 3], (-3, 0, 1), 1 / 3),
    ],
)
def test_integer_form(levels, integers, step):
    function = staircase(levels, alpha=torch.rand(5, 1, 1, 1))
    form = function.integer_form()
    assert (form.integers, form.zero_point) == (integers, 0)
    torch.testing.assert_close(form.scale, function.alpha * step)


@given(st.sampled_from([*SETS, [-0.3, 0.1, 0.2]]), st.integers(0, 255))
def test_the_integer_form_gives_the_levels_at_every_zero_point(levels, zero_point):
    function = staircase(levels)
    form = function.integer_form().shifted(zero_point)
    assert form.zero_point == zero_point
    found = form.scale * (torch.tensor(form.integers) - zero_point)
    torch.testing.assert_close(found, function.alpha * function.levels)


@pytest.mark.parametrize('levels', [[-1.0, 0.0, 2**0.5], [-1.0, 0.0, 1e-5, 1.0]])
def test_levels_that_are_no_integers(levels):
    assert staircase(levels).integer_form() is None
