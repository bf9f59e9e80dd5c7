"""Classifiers from pixels to scores: export, checker, ONNX Runtime against torch."""

import json

import onnx
import pytest
import torch
from mmengine.config import Config
from onnx_files import run
from torch import nn
from toy_models import build, calibrated, classifier

from mmqnet.export.onnx import count_integer_layers, export_onnx
from mmqnet.export.summary import ExportSummary
from mmqnet.export.verify import compare_codes
from mmqnet.models import QuantizationConfig, convert

pytest.importorskip('mmpretrain')
from mmqnet.export.classification import export_module

W4A4 = dict(
    weight=dict(levels='int4', thresholds='uniform', scale_init='mse'),
    activation=dict(levels='uint4', thresholds='uniform', scale_init='mse'),
)
SIZE = 64


def of(backbone, channels, **parts):
    return {
        **classifier(),
        'backbone': backbone,
        'head': dict(
            type='LinearClsHead',
            num_classes=3,
            in_channels=channels,
            loss=dict(type='CrossEntropyLoss'),
        ),
        **parts,
    }


MODELS = {
    'resnet': classifier(),
    'mobilenet': of(dict(type='MobileNetV2', widen_factor=0.25, out_indices=(2,)), 8),
    'vgg': of(
        dict(type='VGG', depth=11, norm_cfg=dict(type='BN'), num_classes=3),
        0,
        neck=None,
        head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss')),
    ),
}
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72),
    dict(type='CenterCrop', crop_size=SIZE),
    dict(type='PackInputs'),
]


def config_of(model):
    dataset = dict(type='CustomDataset', metainfo=dict(classes=['a', 'b', 'c']), pipeline=PIPELINE)
    return Config(
        dict(model=model, default_scope='mmpretrain', test_dataloader=dict(dataset=dataset))
    )


@torch.no_grad()
def ready(name, quantization=W4A4):
    """Builds a classifier, quantized and calibrated unless ``quantization`` is None."""
    torch.manual_seed(3)
    model = build(MODELS[name], 'mmpretrain')
    if name == 'mobilenet':  # six blocks: the others are of the same kinds
        for other in model.backbone.layers[3:]:
            delattr(model.backbone, other)
        del model.backbone.layers[3:]
    if name == 'vgg':  # not 4096 channels and 7 x 7 pixels
        first, _, _, second, _, _, last = model.backbone.classifier
        first.__init__(512 * 4, 64)
        second.__init__(64, 64)
        last.__init__(64, 3)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.2)
            nn.init.normal_(norm.running_mean, 0, 0.2)
    if quantization is not None:
        model.quantization_report = convert(model, QuantizationConfig.from_dict(quantization))
        calibrated(model, torch.randn(2, 3, SIZE, SIZE))
    return model.eval()


def write(model, name, folder, **options):
    """Exports a classifier; the module, the report and the path."""
    module = export_module(model, config_of(MODELS[name]), shape=(SIZE, SIZE), **options)
    report = export_onnx(
        module,
        [module.example(1)],
        folder / f'{name}.onnx',
        output_names=module.output_names,
        metadata=module.metadata,
    )
    return module, report


@pytest.fixture(scope='module', params=MODELS)
def written(request, tmp_path_factory):
    name = request.param
    model = ready(name)
    return name, model, *write(model, name, tmp_path_factory.mktemp(name))


def pictures(count):
    return torch.randint(0, 256, (count, 3, SIZE, SIZE)).float()


def test_scores_and_codes_agree(written):
    _, model, module, report = written
    for batch in (1, 3):
        x = pictures(batch)
        with torch.no_grad():
            expected = module(x)[0]
            # the preprocessing is that of the model
            data = dict(inputs=[image.flip(0) for image in x])
            inputs = model.data_preprocessor(data)['inputs']
            torch.testing.assert_close(model(inputs, mode='tensor').softmax(1), expected)
        (scores,) = run(report.path, x)
        assert scores.shape == (batch, 3)
        torch.testing.assert_close(scores, expected, rtol=0.1, atol=0.03)
    compared = compare_codes(report.path, module, [[pictures(2)]])
    assert len(compared) > 5
    assert sum(c.different - c.ties for c in compared) <= 1e-3 * sum(c.count for c in compared)


def test_table_of_layers(written):
    name, model, _, report = written
    summary = ExportSummary.of(report, count_integer_layers(report.path), model)
    layers = {layer.name: layer for layer in summary.layers}
    # what the exporter expects is what ONNX Runtime does
    expected = {layer.name for layer in report.integer_layers}
    assert {n for n, layer in layers.items() if layer.onnxruntime == 'integer'} == expected
    assert all(layers[n].openvino == 'u8' for n in expected)
    assert list(layers) == [layer.name for layer in model.quantization_report.layers]
    first, last = summary.layers[0], summary.layers[-1]
    assert (first.reason, last.reason) == ('first layer', 'last layer')
    sums = sum(layer.reason == 'its output is used in float' for layer in summary.layers)
    assert len(expected) + sums == len(layers) - 2
    assert dict(resnet=11, mobilenet=6, vgg=1)[name] == sums
    assert f'{len(expected)} run in integers' in summary.table()
    assert len(json.loads(summary.as_json())['layers']) == len(layers)


def test_metadata(written):
    _, _, module, report = written
    model = onnx.load(report.path)
    onnx.checker.check_model(model, full_check=True)
    found = {item.key: item.value for item in model.metadata_props}
    assert found == module.metadata
    assert json.loads(found['classes']) == ['a', 'b', 'c']
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ['batch', 3, SIZE, SIZE]


def test_float_and_raw_and_normalized_outside(tmp_path):
    model = ready('resnet', None)
    module, report = write(model, 'resnet', tmp_path, preprocess=False, raw=True)
    assert report.layers == ()
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(run(report.path, x)[0], model(x, mode='tensor'))
    assert module.output_names == ('logits',)
    summary = ExportSummary.of(report, count_integer_layers(report.path), model)
    assert {layer.reason for layer in summary.layers} == {'not quantized'}
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer.name for layer in summary.layers] == names


def test_heads_of_other_kinds_are_refused():
    model = ready('resnet', None)
    model.head = nn.Linear(64, 3)
    with pytest.raises(ValueError, match='the head Linear cannot be exported: it should be a Cls'):
        export_module(model, config_of(MODELS['resnet']), shape=(SIZE, SIZE))
    with pytest.raises(TypeError, match='should be an ImageClassifier, but is a Linear'):
        export_module(nn.Linear(2, 2), config_of(MODELS['resnet']), shape=(SIZE, SIZE))
