"""Upstream models of many families at a small size, which the test and the docs page share."""

import functools
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

RECIPE = dict(
    weight=dict(levels='pm4', thresholds='uniform'),
    activation=dict(levels='uint8', thresholds='uniform'),
)


@dataclass(frozen=True, eq=False)
class Family:
    """One upstream config and how it is made small.

    Attributes:
        name: What people call it.
        config: Name of the upstream config, without the package.
        small: Values of the model's config that make it small; only the width and depth change.
        size: Side of the synthetic images in pixels.
        quantization: What its ``quantization`` dict has beside the recipe.
    """

    name: str
    config: str
    small: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    quantization: dict[str, Any] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package that the config comes from."""
        return self.config.split('::')[0]


_R18, _R50 = [8, 16, 32, 64], [32, 64, 128, 256]  # channels of a ResNet with base_channels=8


def _resnet(depth: int, **others: Any) -> dict[str, Any]:
    size = dict(depth=depth, base_channels=8, stem_channels=8, **others)
    return _below('backbone', **size)


def _below(prefix: str, **settings: Any) -> dict[str, Any]:
    return {f'{prefix}.{key}': value for key, value in settings.items()}


def _dense_head(**others: Any) -> dict[str, Any]:
    """Return settings of a dense detector with a ResNet-18 and an FPN of 16 channels."""
    return {
        **_resnet(18),
        **_below('neck', in_channels=_R18, out_channels=16),
        **_below('bbox_head', in_channels=16, feat_channels=16, num_classes=3, stacked_convs=1),
        **others,
    }


_FOUR_GROUPS = {'bbox_head.norm_cfg': dict(type='GN', num_groups=4)}
_BOX_HEAD = dict(in_channels=16, fc_out_channels=32, num_classes=3)


def _two_stage(channels: list[int], stages: int = 1, **others: Any) -> dict[str, Any]:
    """Return settings of a two-stage detector with an FPN of 16 channels."""
    heads = (
        [f'roi_head.bbox_head.{i}' for i in range(stages)] if stages > 1 else ['roi_head.bbox_head']
    )
    small = {
        **_below('neck', in_channels=channels, out_channels=16),
        **_below('rpn_head', in_channels=16, feat_channels=16),
        'roi_head.bbox_roi_extractor.out_channels': 16,
        **others,
    }
    for head in heads:
        small.update(_below(head, **_BOX_HEAD))
    return small


_MASK = {
    'roi_head.mask_roi_extractor.out_channels': 16,
    **_below(
        'roi_head.mask_head', in_channels=16, conv_out_channels=16, num_convs=1, num_classes=3
    ),
}
_SWIN = _below('backbone', embed_dims=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2))


def _transformer(channels: list[int], width: int = 32, **others: Any) -> dict[str, Any]:
    """Return settings of a DETR with ``width`` channels and one layer of each kind."""
    small: dict[str, Any] = {
        **_resnet(18),
        'num_queries': 10,
        'test_cfg.max_per_img': 10,
        **_below('neck', in_channels=channels, out_channels=width),
        'positional_encoding.num_feats': width // 2,
        **_below('bbox_head', embed_dims=width, num_classes=3),
    }
    attentions = ['encoder.layer_cfg.self_attn_cfg']
    attentions += [f'decoder.layer_cfg.{kind}_attn_cfg' for kind in ('self', 'cross')]
    for attention in attentions:
        small.update(_below(attention, embed_dims=width, num_heads=2))
    for part in ('encoder', 'decoder'):
        small[f'{part}.num_layers'] = 1
        ffn = dict(embed_dims=width, feedforward_channels=32)
        small.update(_below(f'{part}.layer_cfg.ffn_cfg', **ffn))
    return {**small, **others}


_DII_HEAD = [
    dict(
        type='DIIHead',
        num_classes=3,
        num_heads=2,
        num_cls_fcs=1,
        num_reg_fcs=2,
        feedforward_channels=16,
        in_channels=16,
        ffn_act_cfg=dict(type='ReLU', inplace=True),
        dynamic_conv_cfg=dict(
            type='DynamicConv', in_channels=16, feat_channels=8, out_channels=16, input_feat_shape=7
        ),
        loss_bbox=dict(type='L1Loss'),
        loss_iou=dict(type='GIoULoss'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
    )
]
_GN8 = dict(type='GN', num_groups=8)

DETECTORS = (
    Family(
        'SSD',
        'mmdet::ssd/ssd300_coco.py',
        {
            **_below('backbone', depth=11, out_feature_indices=(14, 24)),
            'bbox_head.num_classes': 3,
            **_below(
                'neck',
                out_channels=(512, 1024, 32, 32),
                level_strides=(2, 2),
                level_paddings=(1, 1),
            ),
            'bbox_head.in_channels': (512, 1024, 32, 32),
            'bbox_head.anchor_generator.strides': (8, 16, 32, 64),
            'bbox_head.anchor_generator.ratios': ([2], [2, 3], [2, 3], [2, 3]),
        },
    ),
    Family(
        'SSDLite',
        'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
        {
            'backbone.widen_factor': 0.125,
            **_below('neck', in_channels=(16, 1280), out_channels=(16, 1280, 32, 32, 32, 32)),
            **_below('bbox_head', in_channels=(16, 1280, 32, 32, 32, 32), num_classes=3),
        },
    ),
    Family('RetinaNet', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', _dense_head()),
    Family(
        'FCOS', 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', _dense_head(**_FOUR_GROUPS)
    ),
    Family('ATSS', 'mmdet::atss/atss_r50_fpn_1x_coco.py', _dense_head(**_FOUR_GROUPS)),
    Family('GFL', 'mmdet::gfl/gfl_r50_fpn_1x_coco.py', _dense_head(**_FOUR_GROUPS)),
    Family('VFNet', 'mmdet::vfnet/vfnet_r50_fpn_1x_coco.py', _dense_head(**_FOUR_GROUPS)),
    Family(
        'TOOD',
        'mmdet::tood/tood_r50_fpn_1x_coco.py',
        _dense_head(
            **{'bbox_head.norm_cfg': dict(type='GN', num_groups=4), 'bbox_head.stacked_convs': 2}
        ),
    ),
    Family(
        'YOLOv3',
        'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
        {
            'backbone.widen_factor': 0.125,
            **_below('neck', in_channels=[40, 16, 8], out_channels=[16, 16, 16]),
            **_below('bbox_head', in_channels=[16] * 3, out_channels=[16] * 3, num_classes=3),
        },
        quantization=dict(exclude=['backbone.conv2']),  # is run, but nothing uses its output
    ),
    Family(
        'YOLOX',
        'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
        {
            **_below('backbone', widen_factor=0.125, deepen_factor=0.1),
            **_below('neck', in_channels=[32, 64, 128], out_channels=16),
            **_below('bbox_head', in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3),
            'data_preprocessor.batch_augments': None,
        },
    ),
    Family(
        'RTMDet',
        'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        {
            **_below('backbone', widen_factor=0.125, deepen_factor=0.167, norm_cfg=dict(type='BN')),
            **_below('neck', in_channels=[32, 64, 128], out_channels=16, norm_cfg=dict(type='BN')),
            **_below(
                'bbox_head',
                in_channels=16,
                feat_channels=16,
                num_classes=3,
                norm_cfg=dict(type='BN'),
            ),
            'data_preprocessor.batch_augments': None,
        },
    ),
    Family(
        'CenterNet',
        'mmdet::centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py',
        {
            **_resnet(18),
            **_below('neck', in_channels=64, num_deconv_filters=(16, 16, 16)),
            **_below('bbox_head', in_channels=16, feat_channels=16, num_classes=3),
        },
    ),
    Family(
        'Faster R-CNN',
        'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        _two_stage(_R18, **_resnet(18)),
    ),
    Family(
        'Faster R-CNN with DCNv2',
        'mmdet::dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
        _two_stage(_R50, **_resnet(50)),
        size=96,
    ),
    Family(
        'Faster R-CNN with DCN',
        'mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py',
        _two_stage(_R50, **_resnet(50)),
        size=96,
    ),
    Family(
        'Mask R-CNN',
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        _two_stage(_R18, **_resnet(18), **_MASK),
    ),
    Family(
        'Mask R-CNN with Swin',
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
        _two_stage([8, 16, 32, 64], **_SWIN, **_MASK),
    ),
    Family(
        'Cascade R-CNN',
        'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
        _two_stage(_R18, 3, **_resnet(18)),
    ),
    Family(
        'DetectoRS',
        'mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py',
        {
            **_two_stage(_R50, 3, **_resnet(50)),
            'neck.rfp_steps': 2,
            'neck.aspp_out_channels': 4,
            **_below(
                'neck.rfp_backbone',
                rfp_inplanes=16,
                pretrained=None,
                base_channels=8,
                stem_channels=8,
            ),
        },
        size=96,
    ),
    Family(
        'Sparse R-CNN',
        'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
        {
            **_resnet(18),
            **_below('neck', in_channels=_R18, out_channels=16),
            **_below('rpn_head', num_proposals=10, proposal_feature_channel=16),
            **_below(
                'roi_head',
                num_stages=1,
                stage_loss_weights=[1],
                proposal_feature_channel=16,
                bbox_head=_DII_HEAD,
            ),
            'test_cfg.rcnn.max_per_img': 10,
            'roi_head.bbox_roi_extractor.out_channels': 16,
        },
    ),
    Family('DETR', 'mmdet::detr/detr_r50_8xb2-150e_coco.py', _transformer(_R18[3:])),
    Family(
        'Deformable DETR',
        'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        _transformer(_R18[1:], **{'neck.norm_cfg': _GN8}),
    ),
    Family(
        'DINO',
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        # the original MMDetection encodes reference points with 256 channels, whatever the width
        _transformer(_R18[1:], 256, **{'neck.norm_cfg': _GN8}),
    ),
    Family(
        'Mask2Former',
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        {
            **_resnet(18),
            **_below('panoptic_head', in_channels=_R18, num_queries=10, num_things_classes=3),
            **_below('panoptic_head.pixel_decoder.encoder', num_layers=1),
            **_below('panoptic_head.transformer_decoder', num_layers=1),
            'panoptic_head.loss_cls.class_weight': [1.0, 1.0, 1.0, 0.1],
            'panoptic_fusion_head.num_things_classes': 3,
            'data_preprocessor.batch_augments': None,
            'train_cfg.num_points': 128,
            'test_cfg.max_per_image': 10,
        },
    ),
)


def _classifier(width: int, **backbone: Any) -> dict[str, Any]:
    """Return settings of a classifier of 3 classes whose backbone ends with ``width`` channels."""
    return {
        **_below('backbone', **backbone),
        **_below('head', in_channels=width, num_classes=3),
        'data_preprocessor.num_classes': 3,
    }


_SMALL_SWIN = dict(
    arch=dict(_delete_=True, embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2]),
    img_size=64,
    pad_small_map=True,
)
_SMALL_VIT = dict(
    arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=64,
)
_SMALL_REPVGG = dict(
    _delete_=True,
    num_blocks=[1, 2, 1, 1],
    width_factor=[0.125] * 4,
    group_layer_map=None,
    group_idx=None,
    se_cfg=None,
)
_SMALL_MOBILEONE = dict(
    _delete_=True,
    num_blocks=[1, 2, 1, 1],
    width_factor=[0.125] * 4,
    num_conv_branches=[2] * 4,
    num_se_blocks=[0, 0, 0, 1],
)

CLASSIFIERS = (
    Family(
        'ResNet',
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        _classifier(256, base_channels=8, stem_channels=8),
    ),
    Family(
        'ResNeXt',
        'mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py',
        _classifier(256, base_channels=8, stem_channels=8, groups=4, width_per_group=2),
    ),
    Family(
        'SE-ResNet',
        'mmpretrain::seresnet/seresnet50_8xb32_in1k.py',
        _classifier(256, base_channels=8, stem_channels=8),
    ),
    Family(
        'Res2Net',
        'mmpretrain::res2net/res2net50-w14-s8_8xb32_in1k.py',
        _classifier(256, base_channels=8, stem_channels=8, scales=4),
    ),
    Family(
        'ResNeSt',
        'mmpretrain::resnest/resnest50_32xb64_in1k.py',
        {**_classifier(256, base_channels=8, stem_channels=8), 'head.loss.num_classes': 3},
    ),
    Family('RegNet', 'mmpretrain::regnet/regnetx-400mf_8xb128_in1k.py', _classifier(384)),
    Family(
        'VGG',
        'mmpretrain::vgg/vgg11bn_8xb32_in1k.py',
        {
            'backbone.num_classes': -1,  # its fully connected layers take 120 million weights
            'neck': dict(type='GlobalAveragePooling', _delete_=True),
            'head': dict(type='LinearClsHead', in_channels=512, num_classes=3, _delete_=True),
        },
    ),
    Family(
        'MobileNetV2',
        'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
        _classifier(1280, widen_factor=0.125),
    ),
    Family(
        'MobileNetV3',
        'mmpretrain::mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py',
        _classifier(576),
    ),
    Family(
        'ShuffleNetV2',
        'mmpretrain::shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py',
        _classifier(1024, widen_factor=0.5),
    ),
    Family(
        'EfficientNet', 'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py', _classifier(1280)
    ),
    Family(
        'RepVGG', 'mmpretrain::repvgg/repvgg-A0_8xb32_in1k.py', _classifier(64, arch=_SMALL_REPVGG)
    ),
    Family(
        'MobileOne',
        'mmpretrain::mobileone/mobileone-s0_8xb32_in1k.py',
        _classifier(64, arch=_SMALL_MOBILEONE),
    ),
    Family(
        'DenseNet',
        'mmpretrain::densenet/densenet121_4xb256_in1k.py',
        _classifier(
            32, arch=dict(_delete_=True, growth_rate=8, depths=[2, 2, 2, 2], init_channels=16)
        ),
    ),
    Family(
        'ConvNeXt',
        'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
        _classifier(64, arch=dict(_delete_=True, depths=[1, 1, 2, 1], channels=[8, 16, 32, 64])),
    ),
    Family(
        'PoolFormer',
        'mmpretrain::poolformer/poolformer-s12_32xb128_in1k.py',
        _classifier(
            64,
            arch=dict(
                _delete_=True,
                layers=[1, 1, 1, 1],
                embed_dims=[8, 16, 32, 64],
                mlp_ratios=[4] * 4,
                layer_scale_init_value=1e-5,
            ),
        ),
    ),
    Family(
        'Swin Transformer',
        'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
        _classifier(64, **_SMALL_SWIN),
    ),
    Family(
        'Swin Transformer V2',
        'mmpretrain::swin_transformer_v2/swinv2-tiny-w8_16xb64_in1k-256px.py',
        _classifier(
            64,
            **{
                **_SMALL_SWIN,
                'arch': dict(
                    _delete_=True,
                    embed_dims=8,
                    depths=[1, 2, 1, 1],
                    num_heads=[1, 1, 2, 2],
                    extra_norm_every_n_blocks=0,
                ),
            },
        ),
    ),
    Family(
        'Vision Transformer',
        'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py',
        _classifier(32, **_SMALL_VIT),
    ),
    Family(
        'BEiT',
        'mmpretrain::beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py',
        _classifier(32, **_SMALL_VIT),
    ),
    Family(
        'MLP-Mixer',
        'mmpretrain::mlp_mixer/mlp-mixer-base-p16_64xb64_in1k.py',
        _classifier(
            32,
            arch=dict(
                _delete_=True, embed_dims=32, num_layers=2, tokens_mlp_dims=16, channels_mlp_dims=64
            ),
            img_size=64,
        ),
    ),
    Family('MobileViT', 'mmpretrain::mobilevit/mobilevit-xxsmall_8xb128_in1k.py', _classifier(320)),
)

FAMILIES = (*DETECTORS, *CLASSIFIERS)


def small_config(family: Family) -> Config:
    """Load the float config of a family and make its model small."""
    config = get_config(family.config)
    if 'data_preprocessor' in config:  # the runner passes it to the model
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    config.merge_from_dict({f'model.{key}': value for key, value in family.small.items()})
    _forget_pretrained(config.model)
    return config


@functools.cache
def build(family: Family) -> nn.Module:
    """Build the quantized model of a family; the result is cached."""
    config = small_config(family)
    quantization = {**RECIPE, **family.quantization}
    settings = dict(
        config.model,
        type='mmqnet.QuantizedModel',
        architecture=config.model.type,
        quantization=quantization,
    )
    with DefaultScope.overwrite_default_scope(family.package):
        model = MODELS.build(settings)
        model.init_weights()
    return model


def _forget_pretrained(settings: Any) -> None:
    if isinstance(settings, list | tuple):
        for item in settings:
            _forget_pretrained(item)
    elif isinstance(settings, ConfigDict):
        init_cfg = settings.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            settings.init_cfg = None
        for item in settings.values():
            _forget_pretrained(item)
