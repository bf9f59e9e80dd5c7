"""tools/analyze.py on a small real model, its checkpoints and images."""

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from synthetic_data import write_imagenet
from toy_models import build, calibrated, classifier, quantized

from mmqnet.failures import one_line_errors
from mmqnet.quantizers import quantizers_of
from mmqnet.sensitivity import Choice, Sensitivities

pytest.importorskip('mmpretrain')
TOOL = Path(__file__).parents[2] / 'tools' / 'analyze.py'
LAYER = 'backbone.layer1.0.conv2'
W3A2 = dict(weight=dict(levels='pm4'), activation=dict(levels='uint2'))


def loader(root: Path, split: str) -> dict:
    dataset = dict(
        type='CustomDataset',
        data_root=str(root),
        ann_file=f'meta/{split}.txt',
        data_prefix=split,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    sampler = dict(type='DefaultSampler', shuffle=False)
    return dict(batch_size=2, num_workers=1, dataset=dataset, sampler=sampler)


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> Path:
    """A folder with configs, checkpoints and images; the current one during the test."""
    root = tmp_path_factory.mktemp('analyze')
    write_imagenet(root / 'data', 3, 3)
    common = dict(
        default_scope='mmpretrain',
        train_dataloader=loader(root / 'data', 'train'),
        val_dataloader=loader(root / 'data', 'val'),
    )
    for name, model in (('float', classifier()), ('quantized', quantized(classifier(), **W3A2))):
        Config(dict(model=model, **common)).dump(root / f'{name}.py')
    model = build(classifier(), 'mmpretrain')
    save_checkpoint(dict(state_dict=model.state_dict()), str(root / 'float.pth'))
    model = calibrated(
        build(quantized(classifier(), **W3A2), 'mmpretrain'), torch.randn(2, 3, 96, 96)
    )
    save_checkpoint(dict(state_dict=model.state_dict()), str(root / 'quantized.pth'))
    (root / 'broken.pth').write_text('no checkpoint')
    return root


@pytest.fixture
def analyze(files, monkeypatch, capsys):
    """Runs the tool; what it prints."""
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, 'argv', [str(TOOL)])
    spec = importlib.util.spec_from_file_location('analyze', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args: str) -> str:
        with one_line_errors():
            tool.main(list(args))
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    'args',
    [
        ('staircase', 'quantized.py', 'quantized.pth', LAYER),
        ('staircase', 'quantized.py', 'quantized.pth', LAYER, '--data', '2'),
        ('curves', 'quantized.py', 'quantized.pth', LAYER, '--temperatures', '2', '30'),
        ('curves', 'quantized.py', 'quantized.pth', 'backbone.layer1.0', '--data', '1'),
        ('overview', 'quantized.py', 'quantized.pth', '--data', '1'),
        ('overview', 'quantized.py', 'quantized.pth'),
        ('staircase', 'quantized.py', 'float.pth', LAYER, '--calibrate', '2'),
    ],
)
def test_pictures(analyze, tmp_path, args):
    out = tmp_path / 'picture.png'
    assert f'written to {out}' in analyze(*args, '--out', str(out))
    assert out.read_bytes().startswith(b'\x89PNG')
    assert list(tmp_path.iterdir()) == [out]


def test_gap_as_svg(analyze, tmp_path):
    log = tmp_path / 'run' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"gap/soft/top1": 60.0, "gap/hard/top1": 59.0, "step": 1}\n')
    analyze('gap', str(tmp_path), '--out', str(tmp_path / 'gap.svg'))
    assert '<svg' in (tmp_path / 'gap.svg').read_text()


def exported(model, config, meta, folder):
    """Export a detector; return the path."""
    pytest.importorskip('onnxruntime')
    from mmqnet.export.detection import export_module
    from mmqnet.export.onnx import export_onnx

    model.dataset_meta, path = meta, str(folder / 'quantized.onnx')
    module = export_module(model.eval(), config, shape=(64, 64))
    names, metadata = module.output_names, module.metadata
    export_onnx(module, [module.example()], path, output_names=names, metadata=metadata)
    return path


def test_detections_of_a_float_and_a_quantized_model(analyze, configs, float_checkpoint, tmp_path):
    config = Config.fromfile(configs / 'quantized.py')
    model = calibrated(build(config.model), torch.rand(2, 3, 64, 64))
    meta = dict(dataset_meta=dict(classes=('red', 'green', 'blue')))
    checkpoint = str(tmp_path / 'quantized.pth')
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    rows = [
        ('float', configs / 'float.py', float_checkpoint),
        ('3 bits', configs / 'quantized.py', checkpoint),
        ('runtime', 'none.py', exported(model, config, meta['dataset_meta'], tmp_path)),
    ]
    arguments = [str(argument) for row in rows for argument in ('--model', *row)]
    folder = Path(config.val_dataloader.dataset.data_root, 'val')
    arguments += ['--images', str(folder), '--num-images', '2', '--score-thr', '0.01']
    analyze('detections', *arguments, '--out', str(tmp_path / 'picture.svg'))
    picture = (tmp_path / 'picture.svg').read_text()
    assert all(f'<!-- {title} -->' in picture for title, *_ in rows)
    assert re.search('<!-- (red|green|blue) 0[.][0-9]{2} -->', picture)
    with pytest.raises(SystemExit, match=r"checkpoint 'nowhere\.pth' does not exist"):
        analyze(
            'detections',
            *('--model', 'a', 'a.py', 'nowhere.pth'),
            *arguments[12:],
            '--out',
            'a.png',
        )
    of_one = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('digit',))))
    save_checkpoint(of_one, str(tmp_path / 'digit.pth'))
    for row, message in (
        (('b', configs / 'float.py', checkpoint), r'of a quantized model|holds `\S+`, for which'),
        (('b', 'float.py', 'float.pth'), r"the model of 'float\.py' is no detector"),
        (('b', configs / 'quantized.py', float_checkpoint), 'it is of the float model'),
        (('b', configs / 'quantized.py', tmp_path / 'digit.pth'), 'should have the same classes'),
        (('3 bits', configs / 'quantized.py', checkpoint), None),
    ):
        more = [*arguments[4:8], '--model', *map(str, row), *arguments[12:]]
        with pytest.raises(SystemExit, match=message):
            analyze('detections', *more, '--out', str(tmp_path / 'no.png'))
        assert not (tmp_path / 'no.png').exists()
    empty = tmp_path / 'empty'
    empty.mkdir()
    wrong = tmp_path / 'wrong.png'
    wrong.write_text('no picture')
    for path, message in (
        (empty, r'no pictures \(\.jpg, .*\) in .*empty'),
        (tmp_path / 'nowhere', "nowhere' does not exist"),
        (wrong, r"wrong\.png' cannot be read as a picture"),
    ):
        arguments[arguments.index('--images') + 1] = str(path)
        with pytest.raises(SystemExit, match=message):
            analyze('detections', *arguments, '--out', str(tmp_path / 'a.png'))
    report = tmp_path / 'report.html'
    analyze('report', *map(str, rows[1][1:]), '--data', '2', '--out', str(report))
    page = report.read_text()
    assert 'data:image/jpeg;base64,' in page
    assert '<dd>2</dd>' in page


def test_report_is_one_page_that_needs_no_other_file(analyze, files, tmp_path):
    out = tmp_path / 'report.html'
    log = tmp_path / 'scalars.json'
    log.write_text(
        '{"gap/soft/top1": 60.0, "gap/hard/top1": 58.5, "step": 1}\n'
        '{"gap/soft/top1": 61.0, "gap/hard/top1": 60.5, "step": 2}\n'
    )
    analyze(
        *('report', 'quantized.py', 'quantized.pth', '--data', '1', '--log', str(log)),
        *('--out', str(out)),
    )
    page = out.read_text()
    assert 'a gap of 0.5' in page
    assert 'float: last layer' in page
    assert page.count(f'<code>{LAYER.replace(".", ".<wbr>")}</code>') == 1
    quantizers = quantizers_of(build(quantized(classifier(), **W3A2), 'mmpretrain'))
    pictures = re.findall(r'<svg.*?</svg>', page)
    assert len(pictures) == len(quantizers)
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert 'http' not in page.replace('http-equiv', '')


def test_report_has_a_column_of_what_was_measured(analyze, tmp_path):
    errors = {
        f'{LAYER}.weight_quantizer': {3: 0.125, 4: 0.5},
        f'{LAYER}.input_quantizer': {2: None},
    }
    settings = dict(method='direct', measure='loss', num_samples=1, quantization={})
    path = tmp_path / 'sensitivity.json'
    Sensitivities(settings, [Choice(3, 2)], [], errors).save(path)
    out = tmp_path / 'report.html'
    analyze(
        *('report', 'quantized.py', 'quantized.pth', '--sensitivity', str(path)),
        *('--out', str(out)),
    )
    page = out.read_text()
    assert page.count('<th>sensitivity</th>') == 1
    assert page.count('<td>0.12</td></tr>') == 1
    assert page.count('<td></td></tr>') == page.count('<tr><td><code>') - 1


def test_report_without_data_and_log_says_so(analyze, tmp_path):
    out = tmp_path / 'report.html'
    analyze('report', 'quantized.py', 'quantized.pth', '--out', str(out))
    assert '--data N' in out.read_text()
    assert 'No log of the gap hook' in out.read_text()
    with pytest.raises(SystemExit, match=r"a report should end in '\.html'"):
        analyze('report', 'quantized.py', 'quantized.pth', '--out', 'report.png')


def test_layers_of_a_config(analyze):
    text = analyze('layers', 'quantized.py')
    assert text.count('backbone.layer1.0.conv2') == 1
    assert 'last layer' in text


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (
            ('quantized.py', 'quantized.pth', 'backbone.layer1.0.conv'),
            "Did you mean 'backbone.layer1",
        ),
        (('quantized.py', 'quantized.pth', 'backbone.conv1'), "'backbone.conv1' (Conv2d) does not"),
        (
            ('quantized.py', 'quantized.pth', 'backbone.layer1.0.conv1', '--data', '1'),
            "the residual block 'backbone.layer1.0' quantizes it",
        ),
        (('nowhere.py', 'quantized.pth', LAYER), "config file 'nowhere.py' does not exist"),
        (('quantized.py', 'nowhere.pth', LAYER), "checkpoint 'nowhere.pth' does not exist"),
        (('quantized.py', 'broken.pth', LAYER), "'broken.pth' cannot be read as a checkpoint"),
        (('quantized.py', 'float.pth', LAYER), 'it is of the float model'),
        (('float.py', 'float.pth', LAYER), "'ImageClassifier', a float model"),
        (('quantized.py', 'other.pth', LAYER), "'other.pth' holds no `backbone.conv1.weight`, "),
        (('quantized.py', 'wide.pth', LAYER), 'should be of the shape (8, 8, 3, 3), but is (16, '),
        (
            (
                *('quantized.py', 'quantized.pth', LAYER, '--data', '1'),
                *('--cfg-options', 'val_dataloader.dataset.ann_file=x.txt'),
            ),
            '`val_dataloader.dataset.ann_file`',
        ),
    ],
)
def test_one_line_says_what_is_wrong(analyze, files, tmp_path, args, message):
    save_checkpoint(dict(state_dict={'a': torch.zeros(1)}), str(files / 'other.pth'))
    wide = {f'{LAYER[:-1]}1.weight': torch.zeros(16, 8, 3, 3)}
    save_checkpoint(dict(state_dict=wide), str(files / 'wide.pth'))
    with pytest.raises(SystemExit) as error:
        analyze('staircase', *args, '--out', str(tmp_path / 'a.png'))
    assert str(error.value).startswith('analyze.py: error: ')
    assert message in str(error.value)
    assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('option', 'value'), [('--data', '0'), ('--calibrate', 'x')])
def test_counts_are_positive(analyze, capsys, option, value):
    with pytest.raises(SystemExit):
        analyze('staircase', 'a.py', 'a.pth', 'x', '--out', 'a.png', option, value)
    assert f'should be a positive integer, but got {value!r}' in capsys.readouterr().err


def test_unfit_picture_name_is_told_first(analyze):
    with pytest.raises(SystemExit, match='a picture should end in'):
        analyze('staircase', 'nowhere.py', 'a.pth', 'x', '--out', 'picture')
