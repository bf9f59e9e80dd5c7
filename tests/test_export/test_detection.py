"""Detectors from pixels to boxes: against MMDetection's own predictions, and in the runtimes."""

import numpy as np
import onnx
import pytest
import torch
from exported import CASES, SIZE, pictures, predict, small_detector
from families import DETECTORS, small_config
from mmcv.ops import batched_nms
from mmengine.registry import MODELS, DefaultScope

from mmqnet.export.detection import export_module
from mmqnet.export.detection.postprocess import Suppression, detections
from mmqnet.export.runtime import open_session

SHAPE = (SIZE, SIZE)
ONE_STAGE = [name for name in CASES if name != 'Faster R-CNN']


@torch.no_grad()
def assert_equal_to_mmdetection(model, module, images, least=1):
    """The same boxes, scores and labels in the same order, and nothing else."""
    dets, labels = module(images)
    assert dets.shape == (*labels.shape, 5)
    assert dets.shape[1] == module.file.max_per_image
    for found, label, expected in zip(dets, labels, predict(model, images), strict=True):
        count = len(expected)
        assert count >= least
        assert int((label >= 0).sum()) == count
        torch.testing.assert_close(found[:count, :4], expected.bboxes, atol=1e-4, rtol=0)
        torch.testing.assert_close(found[:count, 4], expected.scores, atol=1e-6, rtol=0)
        assert torch.equal(label[:count], expected.labels)
        assert (label[count:] == -1).all()
        assert (found[count:] == 0).all()


@pytest.mark.parametrize('name', CASES)
def test_equals_mmdetection(export, name):
    exported = export(name)
    images = pictures(2)
    assert_equal_to_mmdetection(exported.model, exported.module, images, least=10)
    scores = exported.module(images)[0][..., 4]
    assert scores[scores > 0].std() > 0.03


@pytest.mark.parametrize('name', CASES)
def test_onnx_runtime_equals_torch(export, name):
    exported = export(name)
    session = open_session(exported.path)
    assert session.metadata == exported.module.file
    for images in (pictures(1, seed=4), pictures(3, seed=5)):
        assert_equal_to_torch(session, exported.module, images)


@pytest.mark.parametrize('name', ['SSD', 'Faster R-CNN'])
def test_openvino_equals_torch(export, name):
    exported = export(name)
    session = open_session(exported.path, 'openvino')
    assert session.metadata == exported.module.file
    for images in (pictures(1, seed=4), pictures(3, seed=5)):
        assert_equal_to_torch(session, exported.module, images)


@torch.no_grad()
def assert_equal_to_torch(session, module, images):
    """The same rows, but for the order of those of equal scores."""
    found = session.run(images.numpy())
    expected = module(images)
    assert found['labels'].dtype == np.int64
    for dets, labels, own, label in zip(found['dets'], found['labels'], *expected, strict=True):
        np.testing.assert_array_equal(labels, label.numpy())
        np.testing.assert_allclose(dets[:, 4], own[:, 4].numpy(), atol=1e-4)
        rows = np.column_stack([dets, labels])
        left = list(rows)
        for row in np.column_stack([own.numpy(), label.numpy()]):
            distances = [np.abs(other - row).max() for other in left]
            assert min(distances) < 2e-3
            left.pop(int(np.argmin(distances)))


@pytest.mark.parametrize('name', ['YOLOX', 'RetinaNet'])
def test_batch_is_free_and_size_is_fixed(export, name):
    model = onnx.load(export(name).path)
    (image,) = model.graph.input
    assert image.name == 'input'
    batch, *sizes = image.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [size.dim_value for size in sizes] == [3, SIZE, SIZE]
    assert [output.name for output in model.graph.output] == ['dets', 'labels']
    rows = [o.type.tensor_type.shape.dim[1].dim_value for o in model.graph.output]
    assert rows == [export(name).module.file.max_per_image] * 2


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('RetinaNet', {'test_cfg.nms_pre': 20, 'test_cfg.max_per_img': 500}),
        ('RetinaNet', {'test_cfg.nms.class_agnostic': True}),
        ('RetinaNet', {'test_cfg.min_bbox_size': 20}),
        ('SSD', {'test_cfg.score_thr': 0.3}),
        ('FCOS', {'test_cfg.nms.iou_threshold': 0.2}),
        ('ATSS', {'bbox_head.bbox_coder.clip_border': False}),
        ('YOLOX', {'test_cfg.score_thr': 0.2}),
        ('Faster R-CNN', {'roi_head.bbox_head.reg_class_agnostic': True}),
        ('Faster R-CNN', {'test_cfg.rpn.nms_pre': 15, 'test_cfg.rpn.min_bbox_size': 10}),
        ('Faster R-CNN', {'test_cfg.rcnn.score_thr': 0.2}),
    ],
)
def test_settings(name, changes):
    model, config = small_detector(name, changes)
    module = export_module(model, config, shape=SHAPE)
    assert_equal_to_mmdetection(model, module, pictures(3, seed=6))


@pytest.mark.parametrize('name', ['SSD', 'YOLOX', 'Faster R-CNN'])
def test_nothing_found(name):
    key = 'test_cfg.rcnn.score_thr' if name == 'Faster R-CNN' else 'test_cfg.score_thr'
    model, config = small_detector(name, {key: 0.9999})
    dets, labels = export_module(model, config, shape=SHAPE)(pictures(2))
    assert (dets == 0).all()
    assert (labels == -1).all()


@pytest.mark.parametrize('class_agnostic', [False, True])
@pytest.mark.parametrize('seed', range(10))
def test_suppression_is_that_of_mmcv(seed, class_agnostic):
    """Also where a box that is no candidate has the largest coordinate."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(3, 80, 2, generator=random) * 50 - 10
    boxes = torch.cat([corners, corners + torch.rand(3, 80, 2, generator=random) * 40], -1)
    scores = torch.rand(3, 80, generator=random)
    scores = torch.where(scores < 0.3, 0, scores)
    boxes[scores == 0] *= 100
    labels = torch.randint(4, (3, 80), generator=random)
    suppress = Suppression(0.5, 30, class_agnostic)
    dets, found = detections(*suppress(boxes, scores, labels))
    for i in range(3):
        kept = scores[i] > 0
        settings = dict(type='nms', iou_threshold=0.5, class_agnostic=class_agnostic)
        best, places = batched_nms(boxes[i][kept], scores[i][kept], labels[i][kept], settings)
        count = min(30, len(best))
        torch.testing.assert_close(dets[i, :count], best[:count], atol=0, rtol=0)
        assert torch.equal(found[i, :count], labels[i][kept][places[:count]])
        assert (found[i, count:] == -1).all()


@torch.no_grad()
@pytest.mark.parametrize('name', ['SSD', 'RetinaNet'])
def test_normalized_input(name):
    model, config = small_detector(name)
    module = export_module(model, config, shape=SHAPE, preprocess=False)
    images = pictures(2)
    order = images if module.file.channel_order == 'rgb' else images.flip(1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (module.file.mean, module.file.std))
    expected = export_module(model, config, shape=SHAPE)(images)
    found = module((order - mean) / std)
    torch.testing.assert_close(found[0], expected[0], atol=1e-3, rtol=0)
    assert torch.equal(found[1], expected[1])


@torch.no_grad()
@pytest.mark.parametrize('name', ONE_STAGE)
def test_raw_outputs(name):
    model, config = small_detector(name)
    module = export_module(model, config, shape=SHAPE, raw=True)
    found = dict(zip(module.output_names, module(pictures(2)), strict=True))
    expected = model.bbox_head(model.extract_feat(module.prepare(pictures(2))))
    for kind, maps in zip(('cls_score', 'bbox_pred', 'score_factor'), expected, strict=False):
        for level, values in enumerate(maps):
            assert torch.equal(found.pop(f'{kind}_{level}'), values)
    assert not found
    assert module.metadata['outputs'] == 'raw'


class TestMetadata:
    def test_of_an_image_that_is_padded_after_normalization(self, export):
        file = export('RetinaNet').module.file
        assert (file.task, file.outputs, file.input_size) == ('detection', 'boxes', SHAPE)
        assert (file.classes[0], len(file.classes)) == ('person', 80)
        assert (file.channel_order, file.normalize) == ('rgb', 'inside')
        assert file.mean == (123.675, 116.28, 103.53)
        assert file.std == (58.395, 57.12, 57.375)
        assert file.pad_value == file.mean
        assert (file.keep_ratio, file.resize_scale) == (True, (1333, 800))
        assert (file.score_threshold, file.iou_threshold, file.max_per_image) == (0.05, 0.5, 100)

    def test_of_an_image_that_the_pipeline_pads(self, export):
        file = export('RTMDet').module.file
        assert file.pad_value == (114.0, 114.0, 114.0)
        # the network takes BGR, the file RGB
        assert file.channel_order == 'rgb'
        assert file.mean == (123.675, 116.28, 103.53)

    def test_of_a_normalized_input(self):
        model, config = small_detector('RTMDet')
        file = export_module(model, config, shape=SHAPE, preprocess=False).file
        assert (file.channel_order, file.normalize) == ('bgr', 'outside')
        assert file.mean == (103.53, 116.28, 123.675)
        assert file.pad_value == pytest.approx(
            [(114 - m) / s for m, s in zip(file.mean, file.std, strict=True)]
        )

    def test_classes_of_the_checkpoint(self):
        model, config = small_detector('RetinaNet')
        model.dataset_meta = dict(classes=('cat', 'dog', 'cow'))
        assert export_module(model, config, shape=SHAPE).file.classes == ('cat', 'dog', 'cow')


def build(name):
    family = next(f for f in DETECTORS if f.name == name)
    config = small_config(family)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config.model), config


class TestRefusals:
    @pytest.mark.parametrize(
        ('name', 'error', 'message'),
        [
            ('Mask R-CNN', ValueError, 'StandardRoIHead cannot be exported .* it has masks'),
            ('YOLOv3', ValueError, 'YOLOV3Head cannot .* boxes of a YOLOBBoxCoder'),
            ('CenterNet', ValueError, r'CenterNetHead cannot .* of its own \(predict_by_feat'),
            ('Cascade R-CNN', ValueError, r'CascadeRoIHead cannot .* of its own \(predict_bbox'),
            ('DETR', TypeError, 'should be a SingleStageDetector or a TwoStageDetector'),
        ],
    )
    def test_head(self, name, error, message):
        with pytest.raises(error, match=message):
            export_module(*build(name), shape=SHAPE)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'test_cfg.nms.type': 'soft_nms'}, "`model.test_cfg.nms` should be of type 'nms'"),
            ({'test_cfg.nms.max_num': 5}, '`model.test_cfg.nms` should have `iou_threshold`'),
            ({'test_cfg.max_per_img': -1}, '`model.test_cfg.max_per_img` should be positive'),
        ],
    )
    def test_test_cfg(self, changes, message):
        model, config = build('RetinaNet')
        ((key, value),) = changes.items()
        settings = model.bbox_head.test_cfg
        *path, last = key.split('.')[1:]
        for part in path:
            settings = settings[part]
        settings[last] = value
        with pytest.raises(ValueError, match=message):
            export_module(model, config, shape=SHAPE)

    def test_raw_outputs_of_two_stages(self):
        with pytest.raises(ValueError, match='need a one-stage detector, but FasterRCNN'):
            export_module(*build('Faster R-CNN'), shape=SHAPE, raw=True)

    def test_shape_that_the_model_does_not_take(self):
        with pytest.raises(ValueError, match='should take an input of 40 x 64 pixels'):
            export_module(*build('YOLOX'), shape=(40, 64))

    @pytest.mark.parametrize(
        ('shape', 'error'), [((64,), TypeError), (64, TypeError), ((64, 0), ValueError)]
    )
    def test_shape(self, shape, error):
        with pytest.raises(error, match='`shape` should be'):
            export_module(*build('SSD'), shape=shape)
