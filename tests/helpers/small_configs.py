"""The shipped configs at a size that two cores train in seconds, on data of `synthetic_data`."""

import argparse
import copy
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.models.backbones import SSDVGG
from mmdet.registry import MODELS as DETECTION_MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import save_checkpoint
from synthetic_data import write_coco, write_imagenet, write_voc
from torch import nn

from mmqnet.command_line import load_config

ITERATIONS = 3  # one for each phase
_BATCH = {'mmdet': 1, 'mmpretrain': 2}  # a classifier's batch normalization needs two


@DETECTION_MODELS.register_module()
class NarrowSSDVGG(SSDVGG):
    """SSD's VGG with an eighth of its channels, which no setting of it changes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for i, wide in enumerate(self.features):
            if isinstance(wide, nn.Conv2d):
                options = {
                    key: getattr(wide, key)
                    for key in ('kernel_size', 'stride', 'padding', 'dilation')
                }
                channels = max(3, wide.in_channels // 8), wide.out_channels // 8
                self.features[i] = nn.Conv2d(*channels, **options)


def write_all_data(root: Path) -> None:
    """Write the data sets that the configs read below ``data/``."""
    for name, classes, ann_file, folder in (
        ('coco', CocoDataset.METAINFO['classes'], 'annotations/instances_{}2017.json', '{}2017'),
        ('digits', tuple('0123456789'), 'annotations/{}.json', '{}'),
    ):
        splits = {
            split: (ann_file.format(split), folder.format(split), count)
            for split, count in (('train', ITERATIONS), ('val', 1))
        }
        write_coco(root / 'data' / name, splits, classes)
    trainval, test = ('VOC2007', 'trainval'), ('VOC2007', 'test')
    more = ITERATIONS // 2
    voc0712 = {trainval: ITERATIONS - more, ('VOC2012', 'trainval'): more, test: 1}
    write_voc(root / 'data' / 'VOCdevkit', voc0712)
    write_voc(root / 'data' / 'BCCD', {trainval: ITERATIONS, test: 1}, ('RBC', 'WBC', 'Platelets'))
    write_imagenet(root / 'data' / 'imagenet', 2 * ITERATIONS, 2)


@functools.cache
def load(path: Path) -> Config:
    """Load a config as the tools do, without checking its data; callers must not change it."""
    arguments = dict(launcher='none', local_rank=0, cfg_options=None, work_dir=None)
    had_rank = 'LOCAL_RANK' in os.environ
    config = load_config(argparse.Namespace(config=str(path), **arguments), ())
    if not had_rank:
        os.environ.pop('LOCAL_RANK', None)
    return config


def shrink(config: Config) -> Config:
    """Return a copy with a small model, small images, one short epoch and nothing to download.

    It runs in the folder that was given to :func:`write_all_data`.
    """
    config = copy.deepcopy(config)
    size = 224 if config.model.backbone.type == 'mmqnet.AlexNetBN' else 64
    for settings in _dicts(config._cfg_dict):
        _shrink_settings(settings, size)
    batch = _BATCH[config.default_scope]
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        config[key].update(batch_size=batch, num_workers=0, persistent_workers=False)
    config.train_cfg.update(max_epochs=1, val_interval=1)
    config.default_hooks.checkpoint.update(interval=-1, save_last=False)
    config.update(load_from=None, log_level='ERROR', randomness=dict(seed=0))
    _shrink_model(config.model)
    return config


def write_teacher(config: Config) -> None:
    """Save random weights of the float model where a shrunk config's distillation reads them."""
    hook = config.default_hooks.get('distillation')
    if hook is None:
        return
    settings = copy.deepcopy(config.model)
    del settings['quantization']
    settings['type'] = settings.pop('architecture')
    with DefaultScope.overwrite_default_scope(config.default_scope):
        teacher = MODELS.build(settings)
    save_checkpoint(dict(state_dict=teacher.state_dict()), hook.teacher)


def _dicts(value: Any) -> Iterator[ConfigDict]:
    if isinstance(value, dict):
        yield value
        for item in list(value.values()):
            yield from _dicts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _dicts(item)


def _shrink_settings(settings: ConfigDict, size: int) -> None:
    kind = settings.get('type')
    if (settings.get('init_cfg') or {}).get('type') == 'Pretrained':
        settings.init_cfg = None
    if kind in ('Resize', 'RandomResizedCrop'):
        settings.scale = (size, size)
    elif kind == 'ResizeEdge':
        settings.scale = size
    elif kind == 'RandomResize':
        settings.update(scale=(size, size), ratio_range=(1.0, 1.0))
    elif kind in ('RandomCrop', 'CenterCrop'):
        settings.crop_size = (size, size)
    elif kind == 'Mosaic':
        settings.img_scale = (size, size)
    elif kind == 'Pad' and 'size' in settings:
        settings.size = (size, size)
    elif kind == 'BatchSyncRandomResize':
        settings.random_size_range = (size, size)
    elif kind == 'RepeatDataset':
        settings.times = 1


def _shrink_model(model: ConfigDict) -> None:
    kind = model.backbone.type
    if kind == 'SSDVGG':
        _shrink_ssd(model)
    elif kind == 'mmqnet.AlexNetBN':
        model.backbone.update(channels=(8, 16, 16, 16, 16), hidden_channels=32)
        model.head.in_channels = 32
    elif kind in ('CSPNeXt', 'CSPDarknet'):
        _shrink_csp(model)
    else:
        _shrink_resnet(model)


def _shrink_csp(model: ConfigDict) -> None:
    width = 16
    model.backbone.update(widen_factor=width / 256, deepen_factor=0.1)
    model.neck.update(in_channels=[width, 2 * width, 4 * width], out_channels=width)
    model.bbox_head.update(in_channels=width, feat_channels=width)


def _shrink_ssd(model: ConfigDict) -> None:
    """Keep four of the levels, which have 8, 4, 2 and 1 cells a side for 64 pixels."""
    channels = (64, 128, 32, 32)
    model.backbone.type = 'NarrowSSDVGG'
    model.neck.in_channels = channels[:2]
    model.neck.update(out_channels=channels, level_strides=(2, 2), level_paddings=(1, 1))
    model.neck.pop('last_kernel_size', None)
    model.bbox_head.in_channels = channels
    anchors = model.bbox_head.anchor_generator
    anchors.update(strides=anchors.strides[:4], ratios=anchors.ratios[:4])


def _shrink_resnet(model: ConfigDict) -> None:
    model.backbone.update(base_channels=8, stem_channels=8)
    widths = [width * (4 if model.backbone.depth >= 50 else 1) for width in (8, 16, 32, 64)]
    if 'head' in model:
        model.head.in_channels = widths[-1]
    elif model.neck.type == 'SSDNeck':
        used = [widths[i] for i in model.backbone.out_indices]
        channels = used + [32] * (len(model.neck.out_channels) - len(used))
        model.neck.update(in_channels=used, out_channels=channels)
        model.bbox_head.in_channels = channels
    else:
        model.neck.update(in_channels=widths, out_channels=16)
        _shrink_heads(model)


def _shrink_heads(model: ConfigDict) -> None:
    for key in ('bbox_head', 'rpn_head'):
        if key in model:
            model[key].update(in_channels=16, feat_channels=16)
            if model[key].type in ('FCOSHead', 'ATSSHead'):  # 32 groups are upstream's
                model[key].norm_cfg = dict(type='GN', num_groups=4, requires_grad=True)
    if 'roi_head' in model:
        model.roi_head.bbox_roi_extractor.out_channels = 16
        model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32)
