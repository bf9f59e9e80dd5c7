"""What the tests of comparisons of trainings share."""

import argparse
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[2]
CONDITIONS = dict(checkpoint='0123', cfg_options=[], torch='2')


@pytest.fixture(scope='module')
def benchmarks_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools' / 'benchmarks'))
        patch.syspath_prepend(str(ROOT / 'tools' / 'dataset_converters'))
        yield


@pytest.fixture
def start(benchmarks_on_path, tmp_path):
    """A tiny data set and a float checkpoint, as arguments of a comparison."""
    from mmdet.registry import MODELS

    digits = pytest.importorskip('digits')
    data = tmp_path / 'digits'
    digits.convert(data, num_train=16, num_val=4, num_test=4, image_size=128, seed=1)
    settings = [f'{part}_dataloader.dataset.data_root={data}' for part in ('train', 'val', 'test')]
    settings += [
        f'{part}_evaluator.ann_file={data}/annotations/val.json' for part in ('val', 'test')
    ]
    for part in ('train', 'val', 'test'):  # four pictures are read faster than a worker starts
        settings += [
            f'{part}_dataloader.num_workers=0',
            f'{part}_dataloader.persistent_workers=False',
        ]
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'ssd_r18_digits.py')
    init_default_scope('mmdet')
    state = MODELS.build(config.model).state_dict()
    torch.save(dict(meta={}, state_dict=state), tmp_path / 'float.pth')
    settings.append('default_hooks.calibration.num_samples=16')
    return argparse.Namespace(checkpoint=tmp_path / 'float.pth', cfg_options=settings)
