"""Random training samples: their choice, their batches and their random numbers."""

import copy
import functools
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import MultiDataAspectRatioBatchSampler
from mmengine.dataset import worker_init_fn
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler
from toy_models import build, classifier, quantized

from mmqnet.calibration import calibrate_on_samples, reestimate_on_samples, sample_loader


class Noise(Dataset):
    """Images of random numbers: of their index, and of each of the generators of a pipeline."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index))
        noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return dict(inputs=100 * image + noise, index=index)


def loader(**settings):
    settings = dict(batch_size=4, **settings) if 'batch_sampler' not in settings else settings
    return DataLoader(Noise(), **settings)


def indices(samples):
    return [batch['index'].tolist() for batch in samples]


def test_choice():
    chosen = indices(sample_loader(loader(), 10, seed=1))
    assert [len(batch) for batch in chosen] == [4, 4, 2]
    flat = [index for batch in chosen for index in batch]
    assert len(set(flat)) == 10
    assert flat != sorted(flat)
    assert indices(sample_loader(loader(), 10, seed=1)) == chosen
    assert indices(sample_loader(loader(), 10, seed=2)) != chosen
    everything = indices(sample_loader(loader(), 1000))
    assert sorted(index for batch in everything for index in batch) == list(range(23))


def test_whole_batches():
    assert [len(b) for b in indices(sample_loader(loader(), 10, whole_batches=True))] == [4, 4]
    # fewer samples than the training has in a batch are one batch
    assert [len(b) for b in indices(sample_loader(loader(), 3, whole_batches=True))] == [3]


def test_batch_sampler():
    sampler = BatchSampler(SequentialSampler(range(23)), 5, drop_last=False)
    assert [len(b) for b in indices(sample_loader(loader(batch_sampler=sampler), 9))] == [5, 4]


def test_batch_sampler_with_a_size_for_each_data_set():
    """A batch is of one data set, so that none has more samples than the largest size."""
    sampler = MultiDataAspectRatioBatchSampler(SequentialSampler(range(23)), [2, 5], 2)
    assert [len(b) for b in indices(sample_loader(loader(batch_sampler=sampler), 9))] == [5, 4]


def test_batch_sampler_without_a_size():
    batches = [[0, 1, 2], [3]]
    assert [len(b) for b in indices(sample_loader(loader(batch_sampler=batches), 2))] == [1, 1]


@pytest.fixture
def model():
    return build(quantized(classifier()), 'mmpretrain')


def set_seeds(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def draw():
    return random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002


@pytest.mark.parametrize('workers', [0, 1])
def test_random_numbers_come_from_the_seed_alone(model, workers):
    """And those of the training go on as if nothing had been drawn."""
    results = []
    for seed in (0, 1):
        init = functools.partial(worker_init_fn, num_workers=workers, rank=0, seed=10 + seed)
        train = loader(num_workers=workers, worker_init_fn=init)
        fresh = copy.deepcopy(model)
        set_seeds(seed)
        expected = draw()
        set_seeds(seed)
        assert len(calibrate_on_samples(fresh, train, 6)) == 35
        assert len(reestimate_on_samples(fresh, train, 6)) == 20
        assert draw() == expected
        results.append(fresh.state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
