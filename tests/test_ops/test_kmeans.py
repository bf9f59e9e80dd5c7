"""1-D k-means against scikit-learn's, its repeatability and its edge cases."""

import pytest
import torch
from sklearn.cluster import KMeans

from mmqnet.ops import kmeans_1d


def inertia(values, centres):
    values, centres = values.double().flatten(), centres.double()
    nearest = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
    return (values - centres[nearest]).square().sum().item()


def samples(name):
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(20_000, generator=generator)
    if name == 'normal':
        return normal
    if name == 'relu':  # half the values are exactly 0
        return normal.relu()
    if name == 'heavy tail':
        return normal * normal.abs().square()
    if name == 'far groups':
        return normal * 0.01 + torch.randint(0, 5, normal.shape, generator=generator) ** 4
    if name == 'integers':
        return (normal * 40).round()
    if name == 'few':
        return normal[:300]
    return torch.rand(20_000, generator=generator)


@pytest.mark.parametrize(
    'name', ['normal', 'relu', 'heavy tail', 'far groups', 'integers', 'few', 'uniform']
)
@pytest.mark.parametrize('k', [2, 3, 7, 32])
def test_inertia_is_that_of_scikit_learn_or_better(name, k):
    values = samples(name)
    centres = kmeans_1d(values, k)
    assert centres.shape == (k,)
    assert (centres.diff() > 0).all()
    reference = KMeans(k, n_init=3, random_state=0).fit(values[:, None].numpy()).inertia_
    assert inertia(values, centres) <= reference * 1.001


@pytest.mark.parametrize('name', ['normal', 'relu'])
def test_inertia_at_8_bits(name):
    values = samples(name)
    reference = KMeans(255, n_init=1, random_state=0).fit(values[:, None].numpy()).inertia_
    assert inertia(values, kmeans_1d(values, 255)) <= reference * 1.001


def test_order_shape_and_runs_do_not_matter():
    values = samples('heavy tail')
    centres = kmeans_1d(values, 15)
    shuffled = values[torch.randperm(len(values))].reshape(100, 200)
    assert torch.equal(centres, kmeans_1d(shuffled, 15))
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(centres, kmeans_1d(values, 15))
    finally:
        torch.set_num_threads(threads)


def test_values_are_not_touched():
    values = samples('normal')
    before = values.clone()
    kmeans_1d(values, 4)
    assert torch.equal(values, before)


def test_one_cluster_is_the_mean():
    values = samples('normal')
    torch.testing.assert_close(kmeans_1d(values, 1), values.double().mean().float().reshape(1))
    assert torch.equal(kmeans_1d(torch.full((5,), 3.0), 1), torch.tensor([3.0]))


@pytest.mark.parametrize('k', [4, 5, 9, 255])
def test_fewer_numbers_than_clusters_subdivide_the_gaps(k):
    values = torch.tensor([0.0, 1.0, 1.0, 5.0, 5.0, 0.0])
    centres = kmeans_1d(values, k)
    assert len(centres) == k
    assert (centres.diff() > 0).all()
    assert torch.isin(values, centres).all()


def test_as_many_numbers_as_clusters():
    values = torch.tensor([3.0, -1.0, 7.5, 3.0])
    assert torch.equal(kmeans_1d(values, 3), torch.tensor([-1.0, 3.0, 7.5]))


def test_dtype_of_the_values_is_kept():
    assert kmeans_1d(samples('normal').double(), 4).dtype == torch.float64
    assert kmeans_1d(samples('normal').bfloat16(), 4).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('values', 'k', 'error', 'message'),
    [
        ([1.0, 2.0], 2, TypeError, '`values` should be a floating point tensor, but got list'),
        (torch.arange(4), 2, TypeError, 'but got torch.int64'),
        (torch.rand(4), 2.0, TypeError, '`num_clusters` should be an int, but got float'),
        (torch.rand(4), 0, ValueError, '`num_clusters` should be at least 1, but got 0'),
        (torch.rand(0), 2, ValueError, 'at least one number, but is empty'),
        (torch.tensor([1.0, float('nan')]), 2, ValueError, 'should be finite'),
        (
            torch.full((9,), 0.5),
            2,
            ValueError,
            'two different numbers for 2 clusters, but all are 0.5',
        ),
    ],
)
def test_bad_arguments(values, k, error, message):
    with pytest.raises(error, match=message):
        kmeans_1d(values, k)
