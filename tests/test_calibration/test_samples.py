"""The sampler: range, equal chances, bounded memory, random state of its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmqnet.calibration import SampleCollector


def test_range_is_of_all_values_seen():
    collector = SampleCollector('a', capacity=4)
    for x in (torch.arange(1000.0), torch.tensor([[-3.0]]), torch.tensor([2.0])):
        collector(x)
    assert collector.minimum == -3.0
    assert collector.max_abs == 999.0


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=8), capacity=st.integers(1, 500))
def test_memory_is_bounded_and_values_are_real_ones(sizes, capacity):
    collector = SampleCollector('a', capacity=capacity)
    seen = set()
    for i, size in enumerate(sizes):
        x = torch.arange(size) + 10000.0 * i
        seen.update(x.tolist())
        collector(x)
        assert len(collector.values()) <= capacity
    assert set(collector.values().tolist()) <= seen
    assert len(collector.values()) == 0 or len(seen) > 0


def test_all_is_kept_while_there_is_room():
    """So that several processes, or one, end with the same values."""
    collector = SampleCollector('a', capacity=1000)
    collector(torch.arange(300.0))
    collector(torch.arange(300.0, 1000.0).view(7, 100))
    assert torch.equal(collector.values().sort().values, torch.arange(1000.0))


@pytest.mark.parametrize('sizes', [[40000] * 10, [1000, 300000, 1000, 98000], [400000]])
def test_every_value_has_the_same_chance(sizes):
    """Each of the batches, early or late, large or small, is represented by its share."""
    capacity = 4000
    collector = SampleCollector('a', capacity=capacity)
    for i, size in enumerate(sizes):
        collector(torch.full((size,), float(i)))
    assert len(collector.values()) == capacity
    found = torch.bincount(collector.values().long(), minlength=len(sizes)).double()
    expected = torch.tensor(sizes).double() / sum(sizes) * capacity
    assert ((found - expected).abs() < 5 * expected.sqrt() + 1).all(), (found, expected)


def test_positions_within_a_tensor_have_the_same_chance():
    collector = SampleCollector('a', capacity=5000)
    for _ in range(4):
        collector(torch.arange(50000.0))
    mean, deviation = collector.values().mean(), 50000 / 12**0.5 / 5000**0.5
    assert abs(mean - 25000) < 5 * deviation
    assert len(collector.values().unique()) > 4000


def test_random_state_stays_untouched_and_samples_are_the_same_again():
    samples = []
    for _ in range(2):
        before = torch.get_rng_state()
        collector = SampleCollector('a', capacity=50, seed=3)
        collector(torch.arange(1000.0))
        samples.append(collector.values())
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*samples)


def test_merging_is_fair():
    one, other = SampleCollector('a', capacity=3000), SampleCollector('a', capacity=3000)
    one(torch.zeros(30000))
    other(torch.ones(90000))
    other(-2 * torch.ones(1))
    one.merge(other)
    assert len(one.values()) == 3000
    assert abs((one.values() == 1).double().mean() - 0.75) < 0.05
    assert (one.minimum, one.max_abs) == (-2.0, 2.0)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_values_that_are_not_finite_are_refused_by_name(value):
    collector = SampleCollector('backbone.conv2')
    with pytest.raises(ValueError, match=r'`backbone\.conv2` holds NaN or infinite.*checkpoint'):
        collector(torch.tensor([1.0, value]))


def test_half_precision_and_empty_inputs():
    collector = SampleCollector('a')
    collector(torch.empty(0, 3))
    collector(torch.tensor([0.5, -1.5]).bfloat16())
    assert collector.values().dtype is torch.float32
    assert collector.max_abs == 1.5
