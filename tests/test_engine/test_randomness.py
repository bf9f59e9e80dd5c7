"""Random numbers of trainings that are resumed, by epochs and by iterations."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from mmqnet.engine.seeded_batches import SeededBatches


@DATASETS.register_module()
class Drawing(Dataset):
    """Samples that hold their index and what the three generators draw."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if not 0 <= index < 5:
            raise IndexError
        drawn = [index, torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002
        return dict(inputs=torch.tensor(drawn), data_samples=0)


@MODELS.register_module()
class Dropping(BaseModel):
    """A linear layer behind dropout."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 8)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        dropped = torch.nn.functional.dropout(torch.stack(inputs), training=self.training)
        return dict(loss=self.linear(dropped).square().mean())


def draws(workers=0, start=0, count=6, seed=3, **options):
    dataset = Drawing()
    batches = BatchSampler(InfiniteSampler(dataset, seed=0), 2, drop_last=False)
    loader = DataLoader(dataset, num_workers=workers, collate_fn=lambda batch: batch)
    seeded = SeededBatches(loader, batches, seed, start, **options)
    return [next(seeded) for _ in range(count)]


def values(batches):
    return [[sample['inputs'].tolist() for sample in batch] for batch in batches]


def test_a_batch_is_a_function_of_its_number():
    whole = values(draws())
    assert values(draws(start=2, count=4)) == whole[2:]
    assert values(draws(workers=2, start=1, count=3)) == whole[1:4]
    assert values(draws(seed=4)) != whole
    drawn = [tuple(sample[1:]) for batch in whole for sample in batch]
    assert len(set(drawn)) == 12  # a sample that is drawn again is augmented anew


def test_what_an_older_loop_drops_is_not_loaded():
    first, second, third = draws(start=2, count=3, placeholders=2)
    assert (first, second) == (None, None)
    assert values([third]) == values(draws(start=2, count=1))


def test_a_finite_sampler_is_passed_again_and_again():
    dataset = Drawing()
    loader = DataLoader(dataset, batch_size=2, collate_fn=lambda batch: batch)
    batches = SeededBatches(loader, BatchSampler(SequentialSampler(dataset), 2, False), 0, start=2)
    indices = [[int(s[0]) for s in values([next(batches)])[0]] for _ in range(4)]
    assert indices == [[4], [0, 1], [2, 3], [4]]


def test_a_sampler_without_a_batch_is_refused():
    loader = DataLoader(Drawing())
    with pytest.raises(ValueError, match='`train_dataloader` has no batch'):
        next(SeededBatches(loader, [], 0))


def train(folder, by_epoch, **options):
    loop = dict(max_epochs=2) if by_epoch else dict(max_iters=6)
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)
    runner = Runner(
        MODELS.build(dict(type='Dropping')),
        str(folder),
        train_dataloader=dict(
            dataset=dict(type='Drawing'),
            sampler=sampler,
            batch_size=2,
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=by_epoch, **loop),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(
                type='mmqnet.CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 3
            ),
            randomness=dict(type='mmqnet.RandomnessHook'),
        ),
        experiment_name=f'{folder.name}-{by_epoch}',
        log_level='ERROR',
        cfg=dict(
            train_dataloader=dict(dataset=None, sampler=sampler, batch_size=2),
        ),
        **options,
    )
    runner.train()
    return runner


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_resumed_in_the_middle_without_a_fixed_seed(tmp_path, by_epoch):
    """The order of the samples, what is drawn for them, and dropout."""
    whole = train(tmp_path / 'whole', by_epoch)
    checkpoint = str(tmp_path / 'whole' / ('epoch_1.pth' if by_epoch else 'iter_3.pth'))
    resumed = train(tmp_path / 'resumed', by_epoch, load_from=checkpoint, resume=True)
    assert (whole.iter, resumed.iter) == (6, 6)
    assert whole.seed == resumed.seed
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    other = train(tmp_path / 'other', by_epoch)
    assert not torch.equal(other.model.linear.weight, whole.model.linear.weight)
