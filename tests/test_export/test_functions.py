"""Functions of activations as runtimes compute them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx_files import quantizer

from mmqnet.export.freeze import hard_function
from mmqnet.export.onnx.functions import CodeFunction, least_inputs


def function_of(levels, thresholds=None, alpha=0.7, beta=1.9):
    levels = list(map(float, levels))
    if thresholds is None:
        thresholds = [(low + high) / 2 for low, high in itertools.pairwise(levels)]
    staircase = hard_function(quantizer(levels, thresholds, alpha, beta))
    return CodeFunction.of(staircase), staircase


def values(function, codes):
    """What DequantizeLinear or the table makes of codes."""
    if function.table is not None:
        return np.array(function.table, np.float32)[codes]
    return np.float32(function.scale) * (codes.astype(np.int32) - function.zero_point)


@pytest.mark.parametrize(
    ('levels', 'codes', 'zero_point'),
    [
        (range(4), (0, 42, 84, 126), 0),
        (range(-8, 8), tuple(range(0, 128, 8)), 64),
        (range(-128, 128), tuple(range(256)), 128),
        ((-1, 1), (0, 128), 64),
        ((-1.5, -0.5, 0.5, 1.5), (0, 42, 84, 126), 63),
        ((-4, -2, -1, 0, 1, 2, 4), (0, 32, 48, 64, 80, 96, 128), 64),
        ((1, 2, 3), (42, 84, 126), 0),
        ((-3, -2, -1), (0, 64, 128), 192),
        ((-200, -199), (0, 1), 200),
    ],
)
def test_codes_and_zero_point(levels, codes, zero_point):
    function, staircase = function_of(levels)
    assert function.codes == codes
    assert function.zero_point == zero_point
    x = torch.linspace(-140, 140, 999)
    found = np.array(function.codes)[staircase.codes(x).numpy()]
    np.testing.assert_allclose(values(function, found), staircase.quantize(x), rtol=1e-6)


@pytest.mark.parametrize('levels', [(0, 0.317, 1.0, 1.7123), tuple(i - 127.5 for i in range(256))])
def test_levels_that_uint8_does_not_hold_are_a_table(levels):
    function, staircase = function_of(levels)
    x = torch.linspace(-100, 100, 501)
    codes = staircase.codes(x).numpy()
    assert torch.equal(torch.from_numpy(values(function, codes)), staircase.quantize(x))


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8),
    st.floats(0.0009765625, 1000, width=32),
)
def test_least_inputs_are_exact(thresholds, beta):
    thresholds = np.sort(np.array(thresholds, np.float32))
    beta = np.float32(beta)
    edges = least_inputs(thresholds, beta)
    assert (edges * beta >= thresholds).all()
    assert (np.nextafter(edges, np.float32(-np.inf)) * beta < thresholds).all()


@pytest.mark.parametrize(
    'levels',
    [(-1, 1), (-1.5, -0.5, 0.5, 1.5), range(4), range(-8, 8), (-3, -1, 1), (-2.5, -1.5, -0.5)],
    ids=str,
)
def test_rounding_of_zero(levels):
    """Behind a ReLU many values are exactly 0, which may lie halfway between two levels."""
    function, staircase = function_of(levels)
    rounding, x = function.rounding, np.array([-0.02, 0.0, 0.02], np.float32)
    index = np.rint((x + np.float32(rounding.shift)) / np.float32(rounding.scale))
    index = (index + rounding.zero_point).clip(0, len(levels) - 1)
    assert index.tolist() == staircase.codes(torch.from_numpy(x)).tolist()


def test_clipping_narrows_the_range():
    function, staircase = function_of(range(-8, 8), alpha=1.0, beta=1.0)
    narrowed = function.narrowed(0.0, 6.0)
    assert (narrowed.low, narrowed.high) == (8, 14)
    assert narrowed.narrowed(None, 100.0) == narrowed
    assert staircase.codes(torch.tensor([0.0, 6.0])).tolist() == [8, 14]


def test_one_scale_is_asked_for():
    staircase = function_of(range(4))[1]._replace(alpha=torch.ones(2))
    with pytest.raises(ValueError, match='one `alpha`, but got 2'):
        CodeFunction.of(staircase)
