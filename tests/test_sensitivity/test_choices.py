"""Choices of bits, and the level sets that they stand for."""

import pytest
from toy_models import activation_config, weight_config

from mmqnet.quantizers import num_bits, resolve_levels
from mmqnet.sensitivity import Choice, parse_choices
from mmqnet.sensitivity.choices import levels_of_bits


def test_choices_of_a_command_line():
    assert parse_choices(['w4-a8', 'w3-a32', 'w4-a8']) == [Choice(4, 8), Choice(3, 32)]
    assert [str(choice) for choice in parse_choices(['w1-a2'])] == ['w1-a2']


@pytest.mark.parametrize('text', ['w4', 'a8-w4', 'w9-a8', 'w4-a0', 'w16-a8', 'W4-A8', ''])
def test_what_is_no_choice(text):
    with pytest.raises(ValueError, match=r"should be as 'w4-a8'.*but got '.*'"):
        parse_choices(['w2-a2', text])


@pytest.mark.parametrize(
    ('own', 'bits', 'levels'),
    [
        (weight_config('pm4'), 4, 'int4'),
        (weight_config('pm4'), 2, 'int2'),
        (weight_config('int8'), 1, 'binary'),
        (weight_config(list(range(-8, 8))), 3, [-4, -3, -2, -1, 0, 1, 2, 3]),  # LSQ's
        (weight_config(list(range(-15, 16, 2))), 2, [-3, -1, 1, 3]),  # DoReFa's
        (weight_config('binary', type='DoReFa'), 2, [-3, -1, 1, 3]),
        (weight_config('binary', type='LSQ'), 8, 'int8'),
        (activation_config('uint4'), 8, 'uint8'),
        (activation_config('uapot4', signed_levels=None), 3, 'uint3'),
        (activation_config('int4'), 3, 'int3'),
    ],
)
def test_levels_of_other_bits_are_of_the_same_kind(own, bits, levels):
    found = levels_of_bits(own, bits)
    assert found == levels
    assert num_bits(resolve_levels(found)) == bits
