"""Passes over the data in real runs, with the samplers of all three libraries.

Every sampler trains a toy model on one process, and on two that share a run; each iteration notes
what `epochs_of` gives and the samples that its process took.
"""

import pytest
import torch
from mmdet.datasets import BaseVideoDataset
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.datasets.samplers import RepeatAugSampler, SequentialSampler
from torch import nn
from torch.utils.data import RandomSampler, Sampler

from mmqnet.engine.progress import epochs_of

BATCH = 2


class Images(BaseDataset):
    """Wide and tall pictures of three classes."""

    METAINFO = dict(classes=('a', 'b', 'c'))

    def __init__(self, count):
        self.count = count
        super().__init__(pipeline=[])

    def load_data_list(self):
        return [dict(id=i, width=1 + i % 2, height=2 - i % 2) for i in range(self.count)]

    def get_cat_ids(self, idx):
        return [idx % 3]


class Videos(BaseVideoDataset):
    """Three videos of seven pictures."""

    METAINFO = dict(classes=('a',))

    def __init__(self):
        super().__init__(pipeline=[])

    def filter_data(self):
        return self.data_list

    def load_data_list(self):
        frames = [dict(img_id=i, width=1, height=1, instances=[]) for i in range(7)]
        return [dict(video_id=i, images=frames, video_length=7) for i in range(3)]


class OnlyALength(Sampler):
    """A sampler that knows nothing of torch's DistributedSampler and shares all the same."""

    def __init__(self, dataset, seed):
        self.rank, self.world_size = 0, 1
        if torch.distributed.is_initialized():
            self.rank = torch.distributed.get_rank()
            self.world_size = torch.distributed.get_world_size()
        self.dataset = dataset

    def __iter__(self):
        return iter(range(self.rank, len(self.dataset), self.world_size))

    def __len__(self):
        return len(range(self.rank, len(self.dataset), self.world_size))


class WholeSet(RandomSampler):
    """Torch's, which every process goes through on its own."""

    def __init__(self, dataset, seed):
        super().__init__(dataset)
        self.dataset = dataset


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, mode, **batch):
        return dict(loss=self.weight.sum())


class Passes(Hook):
    """Notes (epoch of the runner, passes over the data, samples of the batch) per iteration."""

    def before_train(self, runner):
        self.notes = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        size = len(next(iter(data_batch.values())))
        self.notes.append((runner.epoch, epochs_of(runner), size))


REPEATED = dict(type='RepeatDataset', times=2, dataset=dict(type=Images, count=13))
CONCATENATED = dict(
    type='ConcatDataset', datasets=[dict(type=Images, count=c) for c in (13, 8)], ignore_keys='x'
)
ONE = dict(type=Images, count=21)
SOURCES = dict(batch_size=BATCH, source_ratio=[1, 1])
BY_SHAPE = dict(type='AspectRatioBatchSampler')
SHARED = {
    'default': (ONE, dict(type='DefaultSampler')),
    'repeated': (REPEATED, dict(type='DefaultSampler')),
    'not rounded': (ONE, dict(type='DefaultSampler', round_up=False)),
    'by shape': (ONE, dict(type='DefaultSampler'), BY_SHAPE),
    'classes': (ONE, dict(type='ClassAwareSampler')),
    'sizes': (CONCATENATED, dict(type='CustomSampleSizeSampler', dataset_size=[5, -1])),
    'ratios': (CONCATENATED, dict(type='MultiDataSampler', dataset_ratio=[1, 3])),
    'frames': (dict(type=Videos), dict(type='TrackImgSampler')),
    'frames by shape': (
        dict(type=Videos), dict(type='TrackImgSampler'), dict(type='TrackAspectRatioBatchSampler')
    ),
    'repeated augmentation': (ONE, dict(type=RepeatAugSampler)),
    'sequential': (ONE, dict(type=SequentialSampler)),
    'only a length': (ONE, dict(type=OnlyALength)),
}  # fmt: skip
ENDLESS = {
    'infinite': (ONE, dict(type='InfiniteSampler')),
    'repeated, infinite': (REPEATED, dict(type='InfiniteSampler')),
    'infinite by shape': (ONE, dict(type='InfiniteSampler'), BY_SHAPE),
    'sources': (CONCATENATED, dict(type='MultiSourceSampler', **SOURCES)),
    'sources by shape': (CONCATENATED, dict(type='GroupMultiSourceSampler', **SOURCES)),
}
WHOLE = {'whole set on each': (ONE, dict(type=WholeSet))}


def train(name, folder, dataset, sampler, batch_sampler=None):
    loader = dict(batch_size=BATCH, num_workers=0, dataset=dataset, sampler=sampler)
    if batch_sampler is not None:
        loader['batch_sampler'] = batch_sampler
    ends = name not in ENDLESS
    runner = Runner(
        Model(), str(folder / name), train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=5) if ends else dict(by_epoch=False, max_iters=30),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None), default_scope='mmdet', randomness=dict(seed=0),
        experiment_name=f'{folder.name}-{name}', log_level='ERROR',
    )  # fmt: skip
    passes = Passes()
    runner.register_hook(passes)
    runner.train()
    return dict(notes=passes.notes, size=len(runner.train_dataloader.dataset))


def train_all(folder):
    return {name: train(name, folder, *parts) for name, parts in (SHARED | ENDLESS | WHOLE).items()}


def train_on_rank(rank, folder):
    store = f'file://{folder}/store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    torch.save(train_all(folder), folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module', params=[1, 2])
def runs(request, tmp_path_factory):
    """What each process noted, with all samplers."""
    folder = tmp_path_factory.mktemp('passes')
    if request.param == 1:
        return [train_all(folder)]
    torch.multiprocessing.start_processes(train_on_rank, (folder,), nprocs=2, start_method='fork')
    return [torch.load(folder / f'{rank}.pth') for rank in range(2)]


def of(runs, name):
    """The notes of all processes, and how many passes over the data the set is."""
    return [
        run[name]['notes'] for run in runs
    ], 2 if 'repeated,' in name or name == 'repeated' else 1


@pytest.mark.parametrize('name', SHARED)
def test_a_pass_is_an_epoch_where_processes_share_it(runs, name):
    of_processes, repeats = of(runs, name)
    for notes in of_processes:
        starts = [i for i, note in enumerate(notes) if i == 0 or note[0] != notes[i - 1][0]]
        assert len(starts) == 5
        assert [notes[i][1] for i in starts] == [repeats * notes[i][0] for i in starts]
        assert all(int(passes / repeats) == epoch for epoch, passes, _ in notes)


@pytest.mark.parametrize('name', ENDLESS)
def test_a_pass_is_as_many_samples_as_the_set_has_where_it_does_not_end(runs, name):
    of_processes, repeats = of(runs, name)
    size = runs[0][name]['size']
    taken = 0
    for notes in zip(*of_processes, strict=True):
        for _, passes, _ in notes:
            assert passes == pytest.approx(repeats * taken / size)
        taken += sum(count for _, _, count in notes)
    assert taken / size > 2


def test_epochs_of_each_process_count_together(runs):
    of_processes, _ = of(runs, 'whole set on each')
    for notes in of_processes:
        assert notes[11][:2] == (1, len(runs))


def test_all_samplers_of_mmdetection_are_here():
    """Those that decide what a process takes, and those that make its batches."""
    import mmdet.datasets.samplers as of_mmdetection

    named = {part['type'] for case in (SHARED | ENDLESS).values() for part in case[1:]}
    # whose number of batches is another one in each epoch
    assert set(of_mmdetection.__all__) - named == {'MultiDataAspectRatioBatchSampler'}
