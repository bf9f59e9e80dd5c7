"""LiteRT and ExecuTorch against the model; `make test-litert` runs this in its environment."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import SIZE, predict, small_detector
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from qdq_cases import CASES, network
from toy_models import build, calibrated, classifier, quantized

pytest.importorskip('ai_edge_litert', reason='`make test-litert` runs it in its environment')
pytest.importorskip('executorch', reason='`make test-litert` runs it in its environment')
from mmqnet.export.classification import export_module as export_classifier
from mmqnet.export.detection import export_module
from mmqnet.export.executorch import ExecuTorch
from mmqnet.export.litert import LiteRT
from mmqnet.export.qdq.export import compared, export_qdq
from mmqnet.export.runtime import (
    ExportedClassifier,
    ExportedDetector,
    ExportedRawDetector,
    evaluate_exported,
    open_session,
)

TARGETS = dict(litert=LiteRT, executorch=ExecuTorch)
# Operators on floats: those of float layers, and what XNNPACK does not take.
IN_FLOAT = dict(
    litert=dict(depthwise={'CONV_2D', 'SUM', 'MEAN', 'MUL', 'QUANTIZE', 'DEQUANTIZE'}),
    executorch=dict(
        depthwise={'convolution', 'mean', 'hardtanh'},
        joined={'upsample_nearest2d'},
        requantized={'upsample_nearest2d'},
    ),
)
# A bias is rounded to products of scales, which are large where inputs have few levels.
LEAST_EQUAL = dict(few_bits=0.985, requantized=0.985)


@pytest.mark.parametrize('backend', TARGETS)
@pytest.mark.parametrize('name', CASES)
def test_codes_of_each_layer(tmp_path, name, backend):
    model, x = network(name)
    target, path = TARGETS[backend](), tmp_path / 'net'
    names = [f'y{i}' for i in range(len(model(x)))]
    report, made = export_qdq(target, model, [x], path, output_names=names)
    assert report.num_bytes == path.stat().st_size
    report = compared(report, target, made, model, names, [[x]])
    least = min(codes.equal_but_ties for codes in report.codes)
    assert least >= LEAST_EQUAL.get(name, 0.998)
    assert max(output.mean_difference for output in report.outputs) < 0.02
    if name != 'mixed':
        floats = {op for op, counts in report.operators.items() if set(counts) - {'int8'}}
        assert floats <= IN_FLOAT[backend].get(name, set()), report.operators


@pytest.fixture(scope='module', params=TARGETS)
def detector(request, tmp_path_factory):
    """A float SSD, whose boxes are MMDetection's but for the rounding of floats."""
    model, config = small_detector('SSD')
    module = export_module(model, config, shape=(SIZE, SIZE), raw=True)
    path = str(tmp_path_factory.mktemp(request.param) / 'ssd')
    export_qdq(
        TARGETS[request.param](),
        module,
        [module.example(1)],
        path,
        output_names=module.output_names,
        metadata=module.metadata,
    )
    return model, config, path, request.param


def test_boxes_are_those_of_mmdetection(detector):
    model, config, path, backend = detector
    test = Config(dict(default_scope='mmdet', model=config.model))
    evaluate_exported(test, path, backend)
    assert test.model.type == 'mmqnet.ExportedRawDetector'
    with DefaultScope.overwrite_default_scope('mmdet'):
        found = MODELS.build(test.model)
    assert isinstance(found, ExportedRawDetector)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    rgb = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()).float()[None]
    (wanted,), sample = predict(model, rgb), found(image)
    got = sample.pred_instances
    assert len(got) == len(wanted) > 5
    torch.testing.assert_close(got.bboxes, wanted.bboxes, rtol=1e-3, atol=1e-2)
    assert torch.equal(got.labels, wanted.labels)


def test_refused_files(detector, tmp_path):
    _, _, path, backend = detector
    with pytest.raises(ValueError, match="of a detection model with the outputs 'boxes' for a Exp"):
        ExportedDetector(path, backend)
    text = tmp_path / 'text'
    text.write_text('no model, but some text that is long enough for a header')
    with pytest.raises(ValueError, match=f'cannot run .*{text.name}.*: [^\n]+$'):
        open_session(str(text), backend)


@pytest.mark.parametrize('backend', TARGETS)
def test_classifier(tmp_path, backend):
    integers = dict(
        weight=dict(levels='pm4', granularity='channel'),
        activation=dict(levels='uint8', thresholds='uniform'),
        include=['*'],
        exclude=[],
        keep_float=[],
        sums=dict(levels='uint8'),
    )
    config = classifier(zero_init_residual=False)  # branches that are not 0
    model = build(quantized(config, **integers), 'mmpretrain')
    calibrated(model, torch.randn(2, 3, 32, 32)).eval()
    loader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(32, 32))]))
    config = Config(dict(model=classifier(), test_dataloader=loader))
    module = export_classifier(model, config, shape=(32, 32))
    path = tmp_path / 'resnet'
    report, _ = export_qdq(
        TARGETS[backend](),
        module,
        [module.example(1)],
        path,
        output_names=module.output_names,
        metadata=module.metadata,
    )
    in_float = {layer.name for layer in report.layers if layer.reason}
    assert in_float <= {'backbone.layer4.1', 'head.fc'}  # their outputs are used in float
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()).float()[None]
    got = ExportedClassifier(str(path), backend)(image).pred_score
    torch.testing.assert_close(got, module(x)[0][0], rtol=0, atol=0.02)
    assert json.loads(report.as_json())['runtime'] == report.runtime


def test_environment_is_complete():
    """What `make setup-litert` installs beside the stack."""
    root = Path(__file__).parents[2]
    for name in ('litert', 'executorch'):
        lines = (root / 'requirements' / f'{name}.txt').read_text().splitlines()
        for line in lines:
            package = line.partition('=')[0].partition('>')[0].strip().replace('-', '_')
            if package and not package.startswith('#'):
                assert importlib.util.find_spec(package), line
