"""The examples of docs/tutorials, run in a folder outside the checkout, at their smallest."""

import re
from pathlib import Path

import pytest
from synthetic_data import write_class_folders, write_coco

pytest.importorskip('mmpretrain')
# Fewer and smaller pictures, one short epoch, nothing to download.
SMALL = (
    'model.backbone.init_cfg=None',
    'model.backbone.base_channels=8',
    'model.backbone.stem_channels=8',
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=2',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
    'randomness.seed=0',
)
DETECTOR = (
    'model.neck.in_channels=[8,16,32,64]',
    'model.neck.out_channels=16',
    'model.bbox_head.in_channels=16',
    'model.bbox_head.feat_channels=16',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
)
CLASSIFIER = (
    'model.head.in_channels=64',
    'train_dataloader.dataset.pipeline.1.scale=64',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=64' for split in ('val', 'test')),
    *(f'{split}_dataloader.dataset.pipeline.2.crop_size=64' for split in ('val', 'test')),
)


@pytest.fixture(scope='module')
def project(tmp_path_factory, server):
    """A folder, and a server that runs our tools."""
    return tmp_path_factory.mktemp('my_project'), server


def write_configs(page: Path, folder: Path) -> None:
    """Write the files that a page shows below their names."""
    files = re.findall(r'^`(\S+\.py)`:\n```python\n(.*?)```', page.read_text(), re.M | re.S)
    assert [name for name, _ in files] == ['float.py', 'quantized.py']
    for name, text in files:
        (folder / name).write_text(text)


def follow(page: Path, project, options: tuple[str, ...], hooks: tuple[str, ...] = ()) -> str:
    """Do what a page says: train the float and the quantized model, and test the latter."""
    folder, server = project
    write_configs(page, folder)
    tools = page.parents[2] / 'tools'
    checkpoint = 'work_dirs/{}/epoch_1.pth'
    hooks = ('default_hooks.calibration.num_samples=2', 'default_hooks.gap.num_samples=1', *hooks)
    steps = (
        ('train.py', 'float.py', 'load_from=None'),
        ('train.py', 'quantized.py', f'load_from={checkpoint.format("float")}', *hooks),
        ('test.py', 'quantized.py', checkpoint.format('quantized')),
    )
    for tool, config, *more in steps:
        values = [word for word in more if '=' in word]
        names = [word for word in more if '=' not in word]
        command = (tools / tool, config, *names, '--cfg-options', *SMALL, *options, *values)
        code, output = server.run(*command, working_directory=folder)
        assert code == 0, output[-3000:]
    return output


@pytest.mark.slow
def test_own_coco_set(root, project):
    splits = {split: (f'{split}.json', split, 2) for split in ('train', 'val')}
    write_coco(project[0] / 'my_data', splits, ('cat', 'dog'))
    output = follow(root / 'docs' / 'tutorials' / 'own_coco_set.md', project, DETECTOR)
    assert 'Epoch(test) [2/2]' in output


@pytest.mark.slow
def test_own_folder_of_pictures(root, project):
    write_class_folders(project[0] / 'my_pictures', ('cat', 'dog'), 2)
    page = root / 'docs' / 'tutorials' / 'own_folder_of_pictures.md'
    output = follow(page, project, CLASSIFIER, ('default_hooks.batch_norm.num_samples=2',))
    assert 'accuracy/top1' in output
