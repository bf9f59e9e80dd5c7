"""Small detectors whose random weights give boxes of many scores, and their exports."""

import re
from typing import Any

import torch
from families import DETECTORS, Family, small_config
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

SIZE = 64
_STAGES = {  # of the ResNet, two, with 8 x 8 and 4 x 4 cells
    'backbone.num_stages': 3,
    'backbone.strides': (1, 2, 2),
    'backbone.dilations': (1, 1, 1),
    'backbone.out_indices': (1, 2),
    'neck.in_channels': [16, 32],
    'neck.start_level': 0,
}
_TWO_LEVELS = {**_STAGES, 'neck.num_outs': 2, 'neck.add_extra_convs': False}
_THREE_LEVELS = {**_STAGES, 'neck.num_outs': 3}
_TWO_STRIDES = {'bbox_head.anchor_generator.strides': [8, 16]}
_CSP = {
    # of a stage: channels before `widen_factor`, blocks, whether they add and whether they pool
    'backbone.arch_ovewrite': [
        [64, 128, 1, True, False],
        [128, 256, 1, True, False],
        [256, 512, 1, False, True],
    ],
    'backbone.out_indices': (2, 3),
    'neck.in_channels': [32, 64],
}
# A detector's name in `families`, and what makes it smaller still.
CASES: dict[str, dict[str, Any]] = {
    'SSD': {
        'backbone': dict(
            _delete_=True,
            type='ResNet',
            depth=18,
            base_channels=8,
            stem_channels=8,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(1, 2),
        ),
        'neck.in_channels': (16, 32),
        'neck.out_channels': (16, 32, 32),
        'neck.level_strides': (2,),
        'neck.level_paddings': (1,),
        'bbox_head.in_channels': (16, 32, 32),
        'bbox_head.anchor_generator.strides': (8, 16, 32),
        'bbox_head.anchor_generator.ratios': ([2], [2, 3], [2, 3]),
    },
    'RetinaNet': {
        **_THREE_LEVELS,
        'bbox_head.anchor_generator.strides': [8, 16, 32],
        'bbox_head.anchor_generator.octave_base_scale': 1,
    },
    'FCOS': {**_TWO_LEVELS, 'bbox_head.strides': [8, 16]},
    'ATSS': {**_TWO_LEVELS, **_TWO_STRIDES},
    'GFL': {**_TWO_LEVELS, **_TWO_STRIDES, 'test_cfg.nms.iou_threshold': 0.95},
    'YOLOX': {**_CSP, 'bbox_head.strides': (8, 16), 'test_cfg.nms.iou_threshold': 0.3},
    'RTMDet': {**_CSP, **_TWO_STRIDES, 'bbox_head.stacked_convs': 1},
    'Faster R-CNN': {
        **_THREE_LEVELS,
        'rpn_head.anchor_generator.strides': [8, 16, 32],
        'roi_head.bbox_roi_extractor.featmap_strides': [8, 16, 32],
        'roi_head.bbox_roi_extractor.finest_scale': 8,
        'test_cfg.rpn.max_per_img': 40,
    },
}
_PREDICTION = re.compile(
    r'((cls|reg)_convs\.\d+\.\d+|(retina|atss|gfl|rpn)_(cls|reg)|conv_(cls|reg|centerness)'
    r'|multi_level_conv_(cls|reg|obj)\.\d+|rtm_(cls|reg)\.\d+|atss_centerness|fc_(cls|reg))$'
)


def small_detector(name: str, changes: dict[str, Any] | None = None) -> tuple[nn.Module, Config]:
    """Build a float detector of MMDetection and give it scores that spread.

    Args:
        name: One of ``CASES``.
        changes: More values of the model's config.
    """
    family = next(f for f in DETECTORS if f.name == name)
    small = {**family.small, **CASES[name], **(changes or {})}
    config = small_config(Family(name, family.config, small))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    MMLogger.get_instance('mmengine').setLevel('ERROR')  # it would print all weights' names
    model.init_weights()
    model.train(False)
    spread(model, pictures(2))
    return model, config


def pictures(count: int, seed: int = 1) -> Tensor:
    """Return random pictures (count, 3, SIZE, SIZE), RGB, 0..255."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIZE, SIZE, generator=random) * 255


@torch.no_grad()
def spread(model: nn.Module, images: Tensor) -> None:
    """Draw the weights anew, so that logits have a spread of 1.5 and deltas one of 0.4.

    GFL's deltas are logits of a distribution.
    """
    random, seen = torch.Generator().manual_seed(3), {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            deviation = (2 / layer.weight[0].numel()) ** 0.5
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=random) * deviation)
            if layer.bias is not None:
                layer.bias.zero_()
            if _PREDICTION.search(name):
                seen[name] = []
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda layer, args, output, found=found: found.append(output.flatten())
        )
        for name, found in seen.items()
    ]
    predict(model, images)
    for handle in handles:
        handle.remove()
    for name, outputs in seen.items():
        layer, values = model.get_submodule(name), torch.cat(outputs)
        is_delta = 'reg' in name and 'gfl' not in name
        factor = (0.4 if is_delta else 1.5) / values.std()
        layer.weight.mul_(factor)
        layer.bias.fill_(-values.mean() * factor - (1.5 if 'cls' in name else 0))


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> list[Any]:
    """Return MMDetection's own predictions for pictures in RGB, in pixels of the input."""
    preprocessor = model.data_preprocessor
    x = images if preprocessor._channel_conversion else images.flip(1)
    if preprocessor._enable_normalize:
        x = (x - preprocessor.mean) / preprocessor.std
    size = (SIZE, SIZE)
    samples = [
        DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1, 1)))
        for _ in images
    ]
    return [sample.pred_instances for sample in model.predict(x, samples, rescale=False)]
