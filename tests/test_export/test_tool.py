"""tools/export.py on a small real model, its checkpoint and pictures."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import onnx
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from synthetic_data import write_imagenet
from toy_models import build, calibrated, classifier, quantized

pytest.importorskip('mmpretrain')
TOOL = Path(__file__).parents[2] / 'tools' / 'export.py'
W4A4 = dict(
    weight=dict(levels='int4', thresholds='uniform'),
    activation=dict(levels='uint4', thresholds='uniform'),
)


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> Path:
    """A folder with configs, checkpoints and pictures."""
    root = tmp_path_factory.mktemp('export')
    write_imagenet(root / 'data', 2, 2)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(48, 32)),
        dict(type='PackInputs'),
    ]
    dataset = dict(
        type='CustomDataset',
        data_root=str(root / 'data'),
        ann_file='meta/val.txt',
        data_prefix='val',
        pipeline=pipeline,
    )
    loader = dict(
        num_workers=0,
        batch_size=1,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    evaluator = dict(type='Accuracy', topk=(1,))
    common = dict(default_scope='mmpretrain', test_dataloader=loader, test_evaluator=evaluator)
    for name, model in (('float', classifier()), ('quantized', quantized(classifier(), **W4A4))):
        Config(dict(model=model, **common)).dump(root / f'{name}.py')
        model = build(model, 'mmpretrain')
        if name == 'quantized':
            calibrated(model, torch.randn(2, 3, 32, 48))
        save_checkpoint(dict(state_dict=model.state_dict()), str(root / f'{name}.pth'))
    return root


@pytest.fixture
def export(files, monkeypatch, capsys):
    """Runs the tool in the folder; what it prints."""
    monkeypatch.chdir(files)
    spec = importlib.util.spec_from_file_location('export', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args: str) -> str:
        tool.main(list(args))
        return capsys.readouterr().out

    return run


def test_stages_table_and_json(export, files):
    printed = export('quantized.py', 'quantized.pth', '--out', 'out/a.onnx', '--verify', '2')
    stages = [line for line in printed.splitlines() if line.startswith('[')]
    assert [line.split(' (')[0] for line in stages] == [
        '[1/4] Loading the model',
        '[2/4] Exporting',
        '[3/4] Loading the file in the runtimes',
        '[4/4] Comparing codes, results and metrics on 2 pictures',
    ]
    assert 'of 21 layers 8 run in integers in ONNX Runtime, 19 in OpenVINO' in printed
    assert 'Least share of equal codes' in printed
    assert 'of 2 pictures matched' in printed
    assert re.search(r'accuracy/top1 on 2 pictures: (\d+) in torch, \1 in the file', printed)
    written = json.loads((files / 'out/a.onnx.json').read_text())
    assert written['report']['num_bytes'] == (files / 'out/a.onnx').stat().st_size
    assert sum(layer['onnxruntime'] == 'integer' for layer in written['layers']) == 8
    assert all(found['equal_but_ties'] > 0.99 for found in written['agreement'])
    assert [metric['difference'] for metric in written['metrics']] == [0.0]
    shape = onnx.load(files / 'out/a.onnx').graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in shape] == [0, 3, 32, 48]


@pytest.mark.parametrize(('name', 'package'), [('litert', 'litert_torch'), ('executorch',) * 2])
def test_missing_package_names_its_extra(export, files, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    hint = rf'`{package}.*pip install mmqnet\[{name}\], or `make setup-litert` in a checkout$'
    with pytest.raises(ImportError, match=hint):
        export('quantized.py', 'quantized.pth', '--format', name, '--out', 'd.bin')
    assert not list(files.glob('*d.bin*'))


@pytest.mark.parametrize('name', ['litert', 'executorch'])
def test_detectors_need_raw(export, root, name):
    config = str(root / 'configs/demo/ssd_r18_digits.py')
    with pytest.raises(ValueError, match=f'--format {name} has no NMS: add --raw'):
        export(config, 'float.pth', '--format', name, '--out', 'e.bin')


def test_float_model_of_another_shape(export, files):
    printed = export('float.py', 'float.pth', '--out', 'b.onnx', '--shape', '64', '32', '--raw')
    assert 'of 21 layers 0 run in integers' in printed
    graph = onnx.load(files / 'b.onnx').graph
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == [0, 3, 64, 32]
    assert graph.output[0].name == 'logits'


@pytest.mark.parametrize(
    ('args', 'error', 'message'),
    [
        (('quantized.py', 'float.pth'), ValueError, "'float.pth' does not hold `backbone"),
        (('quantized.py', 'nowhere.pth'), FileNotFoundError, "'nowhere.pth' does not exist"),
        (('nowhere.py', 'float.pth'), FileNotFoundError, "'nowhere.py' does not exist"),
        (
            ('quantized.py', 'quantized.pth', '--format', 'litert', '--thresholds', 'grid'),
            SystemExit,
            '2',  # of the parser, which has printed why
        ),
    ],
)
def test_refusals_leave_no_file(export, files, args, error, message):
    with pytest.raises(error, match=message):
        export(*args, '--out', 'c.onnx')
    assert not list(files.glob('*c.onnx*'))


def test_a_folder_is_told_before_the_work(export, files, capsys):
    with pytest.raises(SystemExit, match='2'):
        export('quantized.py', 'quantized.pth', '--out', str(files))
    assert 'is a folder' in capsys.readouterr().err
