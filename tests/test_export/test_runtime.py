"""Exported files as models: pictures in, boxes of the pictures out."""

import subprocess
import sys
import textwrap

import mmcv
import numpy as np
import onnx
import pytest
import torch
from exported import SIZE, small_detector
from families import CLASSIFIERS, small_config
from mmcv.transforms import CenterCrop
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.datasets.transforms import ResizeEdge
from mmpretrain.structures import DataSample
from onnx import TensorProto, helper
from PIL import Image

from mmqnet.export.classification import export_module
from mmqnet.export.metadata import FileMetadata
from mmqnet.export.onnx import export_onnx
from mmqnet.export.runtime import (
    ExportedClassifier,
    ExportedDetector,
    evaluate_exported,
    open_session,
)
from mmqnet.export.runtime.images import crop_center, resize, to_input

BACKENDS = ('onnxruntime', 'openvino')


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def batch_of(pictures, size=None, keep_ratio=False):
    """What a test pipeline of MMDetection and its collate function give."""
    inputs, samples = [], []
    for image in pictures:
        if keep_ratio:
            resized = mmcv.imrescale(image, size)
        else:
            resized = mmcv.imresize(image, size)
        factors = (resized.shape[1] / image.shape[1], resized.shape[0] / image.shape[0])
        meta = dict(ori_shape=image.shape[:2], img_shape=resized.shape[:2], scale_factor=factors)
        inputs.append(torch.from_numpy(resized.transpose(2, 0, 1).copy()))
        samples.append(DetDataSample(metainfo=meta))
    return dict(inputs=inputs, data_samples=samples)


def assert_same(found, expected, tolerance=0.02):
    assert len(found) == len(expected) > 5
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=0)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.bboxes, expected.bboxes, atol=tolerance, rtol=0)


class TestDetector:
    @pytest.mark.parametrize('backend', BACKENDS)
    def test_step_equals_that_of_the_model(self, export, backend):
        """Boxes in pixels of the original images, which are not square."""
        exported = export('SSD')
        pictures = [picture(48, 100), picture(96, 64, 1), picture(64, 64, 2)]
        detector = ExportedDetector(exported.path, backend, threads=1)
        with torch.no_grad():
            expected = exported.model.test_step(batch_of(pictures, (SIZE, SIZE)))
        found = detector.test_step(batch_of(pictures, (SIZE, SIZE)))
        for own, other in zip(found, expected, strict=True):
            assert_same(own.pred_instances, other.pred_instances)

    @pytest.mark.parametrize(
        ('name', 'backend'),
        [*(('RetinaNet', backend) for backend in BACKENDS), ('Faster R-CNN', 'onnxruntime')],
    )
    def test_images_with_padding(self, export, name, backend):
        """Boxes end at the image, before NMS, as MMDetection's do."""
        exported = export(name)
        pictures = [picture(80, 128), picture(128, 100, 1)]
        detector = ExportedDetector(exported.path, backend)
        assert detector.metadata.channel_of_padding == 0
        with torch.no_grad():
            expected = exported.model.test_step(batch_of(pictures, (SIZE, SIZE), keep_ratio=True))
        found = detector.test_step(batch_of(pictures, (SIZE, SIZE), keep_ratio=True))
        for own, other in zip(found, expected, strict=True):
            assert_same(own.pred_instances, other.pred_instances)

    @pytest.mark.parametrize('backend', BACKENDS)
    def test_call_with_a_picture(self, export, backend):
        exported = export('SSD')
        image = picture(50, 90)
        found = ExportedDetector(exported.path, backend)(image)
        assert found.metainfo['ori_shape'] == (50, 90)
        with torch.no_grad():
            (expected,) = exported.model.test_step(batch_of([image], (SIZE, SIZE)))
        assert_same(found.pred_instances, expected.pred_instances)

    def test_call_keeps_the_ratio(self, export):
        found = ExportedDetector(export('RetinaNet').path)(picture(40, 128))
        assert found.metainfo['img_shape'] == (20, 64)
        assert (found.pred_instances.bboxes[:, 3] <= 40 + 1e-3).all()

    def test_pipeline_of_another_size(self, export):
        detector = ExportedDetector(export('SSD').path)
        with pytest.raises(ValueError, match='images of 3 x 64 x 64, the input of the file, but'):
            detector.test_step(batch_of([picture(50, 50)], (96, 96)))
        detector = ExportedDetector(export('RetinaNet').path)
        with pytest.raises(ValueError, match=r'at most 3 x 64 x 64, .* but got 3 x 48 x 96'):
            detector.test_step(batch_of([picture(50, 100)], (96, 96), keep_ratio=True))

    def test_picture_of_another_shape(self, export):
        detector = ExportedDetector(export('SSD').path)
        with pytest.raises(ValueError, match=r'of shape \(h, w, 3\), in BGR, but got \(3, 8, 8\)'):
            detector(np.zeros((3, 8, 8), np.uint8))


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """A small model, and the path of its export."""
    config = small_config(next(f for f in CLASSIFIERS if f.name == 'ResNet'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model).eval()
    torch.nn.init.normal_(model.head.fc.weight)
    module = export_module(model, config, shape=(SIZE, SIZE))
    path = str(tmp_path_factory.mktemp('export') / 'resnet.onnx')
    names, metadata = module.output_names, module.metadata
    export_onnx(module, [module.example()], path, output_names=names, metadata=metadata)
    return model, path


class TestClassifier:
    @pytest.mark.parametrize('backend', BACKENDS)
    def test_step_equals_that_of_the_model(self, classifier, backend):
        model, path = classifier
        images = torch.from_numpy(np.stack([picture(SIZE, SIZE, i) for i in range(3)]))
        images = images.permute(0, 3, 1, 2).contiguous()

        def batch():
            return dict(inputs=images, data_samples=[DataSample() for _ in images])

        with torch.no_grad():
            expected = model.test_step(batch())
        for found, other in zip(
            ExportedClassifier(path, backend).test_step(batch()), expected, strict=True
        ):
            torch.testing.assert_close(found.pred_score, other.pred_score, atol=1e-4, rtol=0)
            assert torch.equal(found.pred_label, other.pred_label)

    def test_call_with_a_picture(self, classifier):
        model, path = classifier
        exported, image = ExportedClassifier(path), picture(300, 400)
        found = exported(image)
        image = crop_center(resize(image, exported.metadata)[0], exported.metadata)
        inputs = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            (expected,) = model.test_step(dict(inputs=inputs, data_samples=[DataSample()]))
        torch.testing.assert_close(found.pred_score, expected.pred_score, atol=1e-4, rtol=0)
        with pytest.raises(ValueError, match="of a detection model with the outputs 'boxes'"):
            ExportedDetector(path)


class TestSession:
    def test_wrong_files(self, tmp_path, export):
        text = tmp_path / 'model.onnx'
        text.write_text('no model')
        with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx' does not exist"):
            open_session('nowhere.onnx')
        for backend, name in zip(BACKENDS, ('ONNX Runtime', 'OpenVINO'), strict=True):
            with pytest.raises(ValueError, match=f'^{name} cannot run .*{text.name}.*: [^\n]+$'):
                open_session(str(text), backend)
        with pytest.raises(
            ValueError, match=r"`backend` should be .*'openvino', 'litert' or 'exec"
        ):
            open_session(export('SSD').path, 'tensorrt')

    @pytest.mark.parametrize('backend', BACKENDS)
    def test_file_of_others(self, backend, tmp_path):
        path = write_addition(tmp_path / 'other.onnx', {})
        with pytest.raises(ValueError, match='should be one that mmqnet has exported, but its me'):
            open_session(path, backend)

    def test_data_type_that_openvino_lacks(self, tmp_path):
        path = write_addition(tmp_path / 'int2.onnx', ADDITION, TensorProto.INT2)
        assert open_session(path).metadata.input_size == (4, 4)
        with pytest.raises(ValueError, match=r"OpenVINO cannot run '.*int2.onnx': [^\n]+ype"):
            open_session(path, 'openvino')

    @pytest.mark.parametrize('backend', BACKENDS)
    def test_missing_package(self, backend, export, monkeypatch):
        monkeypatch.setitem(sys.modules, backend, None)
        with pytest.raises(ImportError, match=rf'`{backend}` .*pip install mmqnet\[export\]'):
            open_session(export('SSD').path, backend)

    @pytest.mark.parametrize('backend', BACKENDS)
    def test_fixed_batch(self, backend, tmp_path):
        """More or fewer images are run in parts."""
        path = write_addition(tmp_path / 'fixed.onnx', ADDITION, batch=2)
        session = open_session(path, backend)
        images = np.arange(5 * 48, dtype=np.float32).reshape(5, 3, 4, 4)
        np.testing.assert_array_equal(
            session.run(images)['dets'], images + np.float32([0, 1, -1, 1])
        )

    def test_openvino_takes_one_image_at_a_time(self, export):
        """With an open batch it can confuse biases, see ``OpenVINOSession``."""
        assert open_session(export('SSD').path).batch == 0
        session = open_session(export('SSD').path, 'openvino')
        assert session.batch == 1
        images = torch.rand(3, 3, SIZE, SIZE).mul(255).numpy()
        together = session.run(images)['dets']
        for image, dets in zip(images, together, strict=True):
            np.testing.assert_array_equal(session.run(image[None])['dets'][0], dets)

    def test_images_of_another_size(self, export):
        session = open_session(export('SSD').path)
        with pytest.raises(ValueError, match=r'of shape \(3, 64, 64\), .* but got \(3, 32, 64\)'):
            session.run(np.zeros((1, 3, 32, 64), np.float32))

    def test_task(self, export):
        with pytest.raises(ValueError, match="of a classification model with the outputs 'scores'"):
            ExportedClassifier(export('SSD').path)

    @pytest.mark.parametrize('threads', [0, -1, 1.5])
    def test_threads(self, export, threads):
        with pytest.raises((TypeError, ValueError), match='`threads` should be a positive integer'):
            ExportedDetector(export('SSD').path, threads=threads)


ADDITION = dict(task='detection', outputs='boxes', input_size='[4, 4]')


def write_addition(path, metadata, kind=TensorProto.INT8, batch='N'):
    """Write a file whose output is its input plus a constant of a data type."""
    nodes = [
        helper.make_node('Cast', ['constant'], ['row'], to=TensorProto.FLOAT),
        helper.make_node('Add', ['input', 'row'], ['dets']),
    ]
    shape = [batch, 3, 4, 4]
    values = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ('input', 'dets'))
    given, made = values
    constant = helper.make_tensor('constant', kind, [4], [0, 1, -1, 1])
    graph = helper.make_graph(nodes, 'addition', [given], [made], [constant])
    opset = helper.make_opsetid('', 25 if kind == TensorProto.INT2 else 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=13)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return str(path)


class TestImages:
    metadata = FileMetadata(
        'detection', 'boxes', (8, 10), keep_ratio=True, pad_value=(1.0, 2.0, 3.0)
    )

    def test_padding_and_order_of_channels(self):
        image = picture(6, 9)
        found = to_input(image.transpose(2, 0, 1), self.metadata)
        np.testing.assert_array_equal(found[:, :6, :9], image[..., ::-1].transpose(2, 0, 1))
        for channel, value in zip(found, self.metadata.pad_value, strict=True):
            assert (channel[6:] == value).all()
            assert (channel[:, 9:] == value).all()

    def test_normalization(self):
        file = self.metadata.with_changes(
            channel_order='bgr', normalize='outside', mean=(1.0, 2.0, 4.0), std=(2.0, 4.0, 8.0)
        )
        image = picture(8, 10)
        expected = (image - np.float32([1, 2, 4])) / np.float32([2, 4, 8])
        found = to_input(image.transpose(2, 0, 1), file)
        np.testing.assert_allclose(found, expected.transpose(2, 0, 1))

    @pytest.mark.parametrize(
        ('shape', 'limits', 'expected'),
        [
            ((16, 10), (0, 0), (8, 5)),
            ((4, 5), (0, 0), (8, 10)),
            ((4, 5), (10, 6), (6, 8)),  # the shorter side has a limit
            ((5, 4), (6, 6), (6, 5)),
        ],
    )
    def test_resize(self, shape, limits, expected):
        file = self.metadata.with_changes(resize_scale=limits)
        image, (wide, high) = resize(picture(*shape), file)
        assert image.shape[:2] == expected
        assert (high, wide) == (expected[0] / shape[0], expected[1] / shape[1])

    def test_short_edge_and_crop(self):
        file = FileMetadata('classification', 'scores', (8, 8), resize_edge=12)
        image, _ = resize(picture(24, 36), file)
        assert image.shape == (12, 18, 3)
        np.testing.assert_array_equal(crop_center(image, file), image[2:10, 5:13])

    @pytest.mark.parametrize('shape', [(24, 36), (25, 37), (37, 25), (29, 41), (10, 9)])
    @pytest.mark.parametrize(
        'how', [{}, dict(interpolation='bicubic'), dict(interpolation='bicubic', backend='pillow')]
    )
    def test_short_edge_and_crop_are_those_of_the_pipeline(self, shape, how):
        image = picture(*shape)
        settings = {f'resize_{key}': value for key, value in how.items()}
        file = FileMetadata('classification', 'scores', (8, 8), resize_edge=13, **settings)
        found = crop_center(resize(image, file)[0], file)
        results = CenterCrop(8)(ResizeEdge(13, edge='short', **how)(dict(img=image)))
        np.testing.assert_array_equal(found, results['img'])


def test_metadata_survive_strings():
    file = FileMetadata(
        'detection', 'boxes', (8, 10), ('å', 'b'), layers={'conv': {'weight': 3, 'input': 8}}
    )
    strings = file.to_strings()
    assert all(isinstance(value, str) for value in strings.values())
    assert FileMetadata.from_strings({**strings, 'of others': '?'}, 'file') == file
    with pytest.raises(ValueError, match='`task` should be'):
        FileMetadata.from_strings({**strings, 'task': 'segmentation'}, 'file')
    for name, text in dict(input_size='[0, 9]', mean='[1]', clip_border='1', layers='[').items():
        with pytest.raises(ValueError, match=f'`{name}` in the metadata of .* is damaged'):
            FileMetadata.from_strings({**strings, name: text}, 'file')


def test_evaluation_drops_what_looks_at_layers():
    _, config = small_detector('SSD')
    config.default_hooks.gap = dict(type='mmqnet.SoftHardGapHook')
    evaluate_exported(config, 'ssd.onnx', 'openvino')
    assert config.model == dict(type='mmqnet.ExportedDetector', path='ssd.onnx', backend='openvino')
    assert 'gap' not in config.default_hooks
    assert {'logger', 'visualization'} <= set(config.default_hooks)
    assert config.custom_hooks == []


def test_detectors_of_two_stages_are_refused_without_nms():
    config = Config(dict(default_scope='mmdet', model=dict(type='FasterRCNN')))
    with pytest.raises(ValueError, match=r"takes one-stage detectors, but `model\.type` is 'Fast"):
        evaluate_exported(config, 'a.tflite', 'litert')


BLOCKED = """
import runpy, sys
for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmqnet', 'cv2'):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('size', [(30, 40), (150, 90)])
def test_the_demo_resizes_as_the_evaluation_does(root, monkeypatch, backend, size):
    monkeypatch.syspath_prepend(str(root / 'demo'))
    import detect_onnx

    image = picture(100, 80, 3)
    found = detect_onnx.resize(Image.fromarray(image), size, backend)
    expected = mmcv.imresize(image, size, backend=backend)
    assert np.abs(np.asarray(found).astype(int) - expected).max() <= 1


@pytest.mark.parametrize('name', ['SSD', 'RetinaNet'])
def test_demo_without_a_framework(root, export, name, tmp_path):
    """The same boxes as with the class, up to the resizing of another library."""
    exported, out = export(name), tmp_path / 'out.png'
    image = picture(SIZE, SIZE, 5)  # is not resized
    mmcv.imwrite(image, str(tmp_path / 'in.png'))
    command = [sys.executable, '-c', textwrap.dedent(BLOCKED), str(root / 'demo/detect_onnx.py')]
    command += [exported.path, str(tmp_path / 'in.png'), '--out', str(out), '--score', '0.5']
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    found = ExportedDetector(exported.path)(image).pred_instances
    lines = result.stdout.splitlines()
    assert len(lines) == int((found.scores >= 0.5).sum()) > 0
    classes = exported.module.file.classes
    for line, label, score in zip(lines, found.labels, found.scores, strict=False):
        name, printed, *_ = line.rsplit(' [')[0].rpartition(' ')[::2]
        assert name == classes[label]
        assert float(printed) == pytest.approx(float(score), abs=2e-3)
    assert (mmcv.imread(str(out)) != image).any()

    turned = Image.fromarray(image[..., ::-1]).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / 'phone.png', exif=b'Exif\0\0' + _orientation(6))
    command[5] = str(tmp_path / 'phone.png')
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.stdout == result.stdout, again.stderr
    command[5] = str(tmp_path / 'none.png')
    missing = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert missing.stderr.endswith("none.png' does not exist\n")


def _orientation(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()
