"""Level sets by name and by list, and messages for those that are none."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmqnet.quantizers import num_bits, resolve_levels, signed_counterpart
from mmqnet.quantizers.level_sets import integer_ranges


@pytest.mark.parametrize(
    ('name', 'levels', 'bits'),
    [
        ('binary', (-1, 1), 1),
        ('ternary', (-1, 0, 1), 2),
        ('pm2', (-2, -1, 0, 1, 2), 3),
        ('pm4', (-4, -2, -1, 0, 1, 2, 4), 3),
        ('int2', (-1, 0, 1), 2),
        ('int5', tuple(range(-15, 16)), 5),
        ('int8', tuple(range(-127, 128)), 8),
        ('uint1', (0, 1), 1),
        ('uint2', (0, 1, 2, 3), 2),
        ('uint3', tuple(range(8)), 3),
        ('uint5', tuple(range(32)), 5),
        ('uint8', tuple(range(256)), 8),
    ],
)
def test_named_sets_are_those_of_the_paper(name, levels, bits):
    assert resolve_levels(name) == levels
    assert all(type(level) is float for level in resolve_levels(name))
    assert num_bits(levels) == bits


@given(st.integers(2, 8))
def test_signed_names_are_symmetric_and_unsigned_ones_start_at_zero(bits):
    signed, unsigned = resolve_levels(f'int{bits}'), resolve_levels(f'uint{bits}')
    assert signed == tuple(-level for level in reversed(signed))
    assert 0.0 in signed
    assert unsigned == tuple(range(2**bits))
    assert num_bits(signed) == num_bits(unsigned) == bits


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20, unique=True))
def test_any_increasing_list_is_taken_as_it_is(numbers):
    assert resolve_levels(sorted(numbers)) == tuple(sorted(numbers))


def test_levels_are_the_numbers_that_a_checkpoint_holds():
    levels = resolve_levels([-0.1, 0.3])
    assert levels == tuple(torch.tensor([-0.1, 0.3]).tolist())
    assert levels == resolve_levels(levels)


@pytest.mark.parametrize(
    ('spec', 'error', 'message'),
    [
        ('pm5', ValueError, r"`a\.levels` should be one of 'binary'.*but got 'pm5'.*'pm[24]'\?"),
        ('terniary', ValueError, "Did you mean 'ternary'"),
        ('unit8', ValueError, "Did you mean 'uint8'"),
        ('int1', ValueError, "2 to 8 bits, but got 'int1'"),
        ('uint0', ValueError, "1 to 8 bits, but got 'uint0'"),
        ('uint9', ValueError, "1 to 8 bits, but got 'uint9'"),
        ('', ValueError, "but got ''"),
        ([1, 1], ValueError, r'`a\.levels` should be .*strictly increasing, but got \[1, 1\]'),
        ([2, 1], ValueError, r'strictly increasing, but got \[2, 1\]'),
        ([0, float('nan')], ValueError, 'finite'),
        ([0, float('inf')], ValueError, 'finite'),
        ([1, 1 + 1e-12], ValueError, 'strictly increasing'),  # the same number in float32
        ([0, 1e39], ValueError, 'finite'),  # infinite in float32
        ([1], ValueError, r'at least 2 levels, but got \[1\]'),
        ([], ValueError, 'at least 2 levels'),
        ([0, '1'], TypeError, r"a name or a list of numbers, but got \[0, '1'\]"),
        ([False, True], TypeError, 'a list of numbers'),
        (3, TypeError, 'but got 3'),
        (None, TypeError, 'but got None'),
        (np.arange(3), TypeError, 'a list of numbers'),
    ],
)
def test_wrong_levels_are_refused_by_key_and_value(spec, error, message):
    with pytest.raises(error, match=message):
        resolve_levels(spec, 'a.levels')


def test_signed_counterparts_are_twos_complement():
    assert signed_counterpart((0.0, 1.0)) == (-1.0, 1.0)
    assert signed_counterpart(resolve_levels('uint2')) == (-2.0, -1.0, 0.0, 1.0)
    assert signed_counterpart(resolve_levels('uint8')) == tuple(range(-128, 128))
    assert signed_counterpart(resolve_levels('uapot3')) == tuple(range(-4, 4))


def test_integer_ranges_hold_zero_and_a_positive_number():
    assert integer_ranges((0.0, 1.0)) == ((0.0, 1.0), (-1.0, 1.0))
    assert integer_ranges((0.0, 1.0, 2.0, 3.0)) == ((0, 1, 2, 3), (-1, 0, 1, 2), (-2, -1, 0, 1))
    assert integer_ranges(resolve_levels('uapot2')) == integer_ranges(resolve_levels('uint2'))
    assert len(integer_ranges(resolve_levels('uint8'))) == 255


@pytest.mark.parametrize('levels', [(0.0, 1.0, 2.0), (1.0, 2.0), (-1.0, 0.0, 1.0, 2.0)])
def test_other_sets_have_no_counterpart_by_themselves(levels):
    with pytest.raises(ValueError, match=r'`signed_levels` should be given.*but got levels'):
        signed_counterpart(levels)


@given(st.integers(2, 4096))
def test_bits_are_just_enough(count):
    bits = num_bits(range(count))
    assert 2 ** (bits - 1) < count <= 2**bits


@pytest.mark.parametrize(
    ('name', 'magnitudes', 'bits'),
    [
        ('apot3', (0, 1, 2, 4), 3),
        ('apot4', (0, 1, 2, 3, 4, 6, 8, 10), 4),
        ('uapot2', (0, 1, 2, 4), 2),
        ('uapot3', (0, 1, 2, 3, 4, 6, 8, 10), 3),
        ('uapot4', (0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48), 4),
    ],
)
def test_additive_powers_of_two(name, magnitudes, bits):
    levels = resolve_levels(name)
    assert tuple(level for level in levels if level >= 0) == magnitudes
    signed = not name.startswith('u')
    assert levels[0] == (-magnitudes[-1] if signed else 0)
    assert num_bits(levels) == bits
    for level in map(int, magnitudes):  # at most two powers
        assert level.bit_count() <= 2
