"""MMEngine's ``compile``: a training whose ``train_step`` torch compiles."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from synthetic_data import write_imagenet

CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='mmqnet.QuantizedModel', architecture='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127.0] * 3, std=[60.0] * 3),
    backbone=dict(type='MobileNetV2', widen_factor=0.1, out_indices=(0,), frozen_stages=-1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=8,
              loss=dict(type='CrossEntropyLoss')),
    quantization=dict(weight=dict(levels='pm4'), activation=dict(levels='uint4'),
                      keep_float=['first'], include=['backbone.conv1', 'backbone.layer1', 'head']))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', data_root={data!r}, ann_file='meta/train.txt', data_prefix='train',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)),
                  dict(type='PackInputs')]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=4),
    temperature=dict(type='mmqnet.TemperatureHook', by='progress', weight=dict(start=1, end=50)),
    checkpoint=dict(type='mmqnet.CheckpointHook'))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compile')
    write_imagenet(folder / 'data', 8, 1)
    (folder / 'config.py').write_text(CONFIG.format(data=str(folder / 'data')))

    def run(name, **options):
        config = Config.fromfile(folder / 'config.py')
        config.update(work_dir=str(folder / name), experiment_name=f'compile_{name}', **options)
        runner = Runner.from_cfg(config)
        runner.train()
        return runner.model.state_dict()

    return run


def test_a_compiled_training_learns_what_an_eager_one_does(train):
    torch._dynamo.reset()
    compiled, eager = train('compiled', compile=dict(backend='aot_eager')), train('eager')
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 0
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5, msg=name)
