"""What a config's test pipeline says about a model's input."""

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmqnet.export.input_format import classes_of, default_shape, input_format

MEAN, STD = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]


def config_of(*pipeline, **preprocessor):
    return Config(
        dict(
            model=dict(data_preprocessor=preprocessor),
            test_dataloader=dict(dataset=dict(pipeline=list(pipeline))),
        )
    )


@pytest.mark.parametrize(
    ('name', 'shape', 'keep_ratio', 'classes'),
    [
        ('mmdet::ssd/ssd300_coco.py', (300, 300), False, 80),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', (1344, 1344), True, 80),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', (416, 416), True, 80),
        ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', (640, 640), True, 80),
        ('mmdet::pascal_voc/ssd300_voc0712.py', (300, 300), False, 20),
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', (224, 224), False, 1000),
    ],
)
def test_upstream_configs(name, shape, keep_ratio, classes):
    config = get_config(name)
    assert default_shape(config) == shape
    found = input_format(config, MEAN, STD, inside=True)
    assert found['keep_ratio'] is keep_ratio
    assert found['resize_edge'] == (256 if 'in1k' in name else 0)
    assert len(classes_of(config)) == classes


def test_how_pictures_are_resized():
    how = dict(type='ResizeEdge', scale=9, edge='short', backend='pillow', interpolation='bicubic')
    found = input_format(config_of(how), MEAN, STD, inside=True)
    keys = ('resize_edge', 'resize_backend', 'resize_interpolation')
    assert [found[key] for key in keys] == [9, 'pillow', 'bicubic']
    with pytest.raises(ValueError, match=r"ResizeEdge should be 'short', but got 'long'"):
        input_format(config_of(dict(how, edge='long')), MEAN, STD, inside=True)


def test_no_size():
    with pytest.raises(ValueError, match=r"but got \['LoadImageFromFile'\]; name the shape"):
        default_shape(config_of(dict(type='LoadImageFromFile')))


@pytest.mark.parametrize('inside', [True, False])
@pytest.mark.parametrize('is_rgb', [True, False])
def test_padding_of_the_preprocessor_is_after_normalization(is_rgb, inside):
    found = input_format(config_of(bgr_to_rgb=is_rgb, pad_value=2), MEAN, STD, inside)
    expected = (12.0, 24.0, 38.0) if inside else (2.0, 2.0, 2.0)
    assert found['pad_value'] == (expected if is_rgb or not inside else expected[::-1])
    assert found['channel_order'] == ('rgb' if is_rgb or inside else 'bgr')
    flips = inside and not is_rgb
    assert found['mean'] == (tuple(MEAN[::-1]) if flips else tuple(MEAN))
    assert found['std'] == (tuple(STD[::-1]) if flips else tuple(STD))


@pytest.mark.parametrize('is_rgb', [True, False])
def test_padding_of_the_pipeline_is_of_raw_bgr(is_rgb):
    config = config_of(dict(type='Pad', pad_val=dict(img=(12, 24, 34))), bgr_to_rgb=is_rgb)
    assert input_format(config, MEAN, STD, inside=True)['pad_value'] == (34, 24, 12)
    found = input_format(config, MEAN, STD, inside=False)['pad_value']
    assert found == ((24, 2, -4.5) if is_rgb else (2, 2, 1))


def test_classes_of_a_wrapped_dataset():
    dataset = dict(type='CocoDataset', metainfo=dict(classes=('cat',)))
    loader = dict(dataset=dict(type='ConcatDataset', datasets=[dataset]))
    assert classes_of(Config(dict(test_dataloader=loader))) == ('cat',)
    assert classes_of(Config(dict())) == ()
