"""A detection data set of a few small pictures, and configs that train an SSD on it in seconds."""

import json
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

SIZE = 64
CLASSES = ('red', 'green', 'blue')
COUNTS = dict(train=6, val=3)

FLOAT = """
_base_ = 'mmdet::ssd/ssd300_coco.py'
data_root = {data!r}
metainfo = dict(classes=('red', 'green', 'blue'))
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, base_channels=8, stem_channels=8,
        out_indices=(2, 3), norm_eval=False),
    neck=dict(
        in_channels=(32, 64), out_channels=(32, 64, 32), level_strides=(2,), level_paddings=(1,),
        l2_norm_scale=None),
    bbox_head=dict(
        in_channels=(32, 64, 32), num_classes=3,
        anchor_generator=dict(
            _delete_=True, type='AnchorGenerator', strides=[16, 32, 64], base_sizes=[16, 32, 48],
            scales=[1.0], ratios=[1.0])),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
test_pipeline = [
    pipeline[0], dict(type='Resize', scale=(64, 64), keep_ratio=False), *pipeline[1:]]
dataset = dict(type='CocoDataset', data_root=data_root, metainfo=metainfo)
train_dataloader = dict(
    _delete_=True, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RepeatDataset', times=2, dataset=dict(
        **dataset, ann_file='train.json', data_prefix=dict(img='train/'), pipeline=pipeline)))
val_dataloader = dict(
    _delete_=True, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset, ann_file='val.json', data_prefix=dict(img='val/'), test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file=data_root + '/val.json', metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3, val_interval=3)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=20),
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=0.1))
param_scheduler = []
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""

QUANTIZED = """
_base_ = 'float.py'
model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(
        include=['backbone'], weight=dict(levels='pm4'), activation=dict(levels='uint4')))
default_hooks = dict(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=4),
    temperature=dict(
        type='mmqnet.TemperatureHook', weight=dict(slope=10, cap=45), activation=dict(slope=2)),
    phases=dict(type='mmqnet.PhaseHook', schedule=[
        dict(begin=0, phase='weights'),
        dict(begin=1 / 3, phase='activations'),
        dict(begin=2 / 3, phase='both')]),
    gap=dict(type='mmqnet.SoftHardGapHook', num_samples=2))
"""

DISTRIBUTED = """
_base_ = 'quantized.py'
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
"""


def make_data(folder: Path) -> Path:
    """Write images of one or two coloured rectangles each, and COCO's annotation files."""
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for i in range(count):
            picture = random.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
            for _ in range(1 + i % 2):
                label = int(random.integers(3))
                x, y = (int(v) for v in random.integers(0, SIZE // 2, 2))
                w, h = (int(v) for v in random.integers(12, SIZE // 2, 2))
                picture[y : y + h, x : x + w, 2 - label] = 220
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=i, category_id=label, bbox=[x, y, w, h],
                    area=w * h, iscrowd=0))  # fmt: skip
            cv2.imwrite(str(folder / split / f'{i}.png'), picture)
            images.append(dict(id=i, file_name=f'{i}.png', width=SIZE, height=SIZE))
        categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
        (folder / f'{split}.json').write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
    return folder


def make_configs(folder: Path, data: Path) -> Path:
    """Write float.py, quantized.py and distributed.py, and return their folder."""
    folder.mkdir(exist_ok=True)
    (folder / 'float.py').write_text(FLOAT.format(data=str(data)))
    (folder / 'quantized.py').write_text(QUANTIZED)
    (folder / 'distributed.py').write_text(DISTRIBUTED)
    return folder


def make_runner(config: Path, work_dir: Path, **options: object) -> Runner:
    """Build the runner of a config file with some settings changed."""
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{make_runner.count}'
    make_runner.count += 1
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return Runner.from_cfg(cfg)


make_runner.count = 0


def write_float_checkpoint(configs: Path, path: Path) -> Path:
    """Save a float model with random weights, for quantized runs to start from."""
    import torch
    from mmengine.registry import MODELS, DefaultScope
    from mmengine.runner import save_checkpoint

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(configs / 'float.py').model)
    save_checkpoint(dict(state_dict=model.state_dict(), meta=dict()), str(path))
    return path
