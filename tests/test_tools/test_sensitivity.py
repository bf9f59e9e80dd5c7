"""tools/sensitivity.py and tools/allocate_bits.py on a real detector, and what they refuse."""

import importlib.util
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmqnet.models import build_model

TOOLS = Path(__file__).parents[2] / 'tools'


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tools():
    return load_tool('sensitivity'), load_tool('allocate_bits')


@pytest.fixture(scope='module')
def small(configs):
    """A config that quantizes one stage; it is in the folder of its base."""
    path = configs / 'small.py'
    path.write_text(
        "_base_ = './quantized.py'\n"
        "model = dict(quantization=dict(include=['backbone.layer4']))\n"
        'default_hooks = dict(phases=None, gap=None)\n'
    )
    return path


def arguments(small, checkpoint, folder, *options):
    shared = ('--work-dir', folder, '--num-samples', 4, '--calibration-samples', 2)
    return [str(item) for item in (small, checkpoint, *shared, *options)]


@pytest.fixture(scope='module')
def fast(tools, small, float_checkpoint, tmp_path_factory):
    """The file that the fast estimate has written, with a picture beside it."""
    folder = tmp_path_factory.mktemp('fast')
    choices = ('--choices', 'w2-a4', 'w3-a4', 'w4-a4', 'w4-a8')
    tools[0].main(arguments(small, float_checkpoint, folder, *choices))
    return folder / 'sensitivity_fast.json'


def test_the_estimate_is_told_apart_from_what_is_measured(
    tools, small, float_checkpoint, fast, tmp_path, capsys
):
    choices = ('--choices', 'w2-a4', '--direct', 'coco/bbox_mAP_50', '--compare', fast)
    tools[0].main(arguments(small, float_checkpoint, tmp_path, *choices))
    printed = capsys.readouterr().out
    assert 'Direct: fall of coco/bbox_mAP_50, on 3 samples' in printed
    assert 'rank correlation' in printed
    assert 'Loading and preparing results' not in printed
    found = json.loads((tmp_path / 'sensitivity_direct.json').read_text())
    assert (found['settings']['method'], found['complete']) == ('direct', True)
    other = json.loads(fast.read_text())
    assert (other['settings']['method'], other['complete']) == ('fast', True)
    assert other['reference'] is None
    for path in (fast, tmp_path / 'sensitivity_direct.json'):
        assert path.with_suffix('.png').stat().st_size > 10_000


def test_a_finished_measurement_is_not_repeated(tools, small, float_checkpoint, fast, capsys):
    before = fast.stat().st_mtime_ns
    choices = ('--choices', 'w2-a4', 'w3-a4', 'w4-a4', 'w4-a8')
    tools[0].main(arguments(small, float_checkpoint, fast.parent, *choices))
    assert fast.stat().st_mtime_ns == before
    assert 'Fast estimate: rise of the loss, from gradients of 4 samples' in capsys.readouterr().out


def test_a_measurement_on_other_data_does_not_go_on(tools, small, float_checkpoint, fast):
    options = ('--choices', 'w2-a4', 'w3-a4', 'w4-a4', 'w4-a8')
    options += ('--cfg-options', 'train_dataloader.dataset.times=3')
    with pytest.raises(ValueError, match=r'was measured with other `data`; name another file'):
        tools[0].main(arguments(small, float_checkpoint, fast.parent, *options))


def test_an_allocation_is_a_config_of_the_same_model(tools, small, fast, tmp_path, capsys):
    out = tmp_path / 'sub' / 'mixed.py'
    tools[1].main([str(small), str(fast), '--bits', '2.6', '--gbops', '0.02', '--out', str(out)])
    printed = capsys.readouterr().out
    chosen = dict(line.split('  ') for line in printed.splitlines() if line[:9] == 'backbone.')
    assert set(chosen.values()) <= {'w2-a4', 'w3-a4', 'w4-a4', 'w4-a8'}
    assert len(set(chosen.values())) > 1
    assert chosen['backbone.layer4.0.conv1'][3:] == chosen['backbone.layer4.0.downsample.0'][3:]
    report = build_model(Config.fromfile(out)).quantization_report
    levels = dict(w2='3: -1..1', w3='7: -4..4', w4='15: -7..7')
    for layer in report.quantized:
        weight, activation = chosen[layer.name].split('-a')
        assert layer.weight == levels[weight]
        assert layer.activation.startswith({'4': '16: ', '8': '256: '}[activation])
    bits = sum(layer.num_weights * layer.weight_bits for layer in report.quantized)
    assert bits <= 2.6 * sum(layer.num_weights for layer in report.quantized)
    assert out.with_suffix('.png').stat().st_size > 10_000


@pytest.mark.parametrize('name', ['small', 'quantized', 'float'])
def test_an_allocation_does_not_overwrite_what_it_inherits(tools, small, fast, name):
    out = small.with_name(f'{name}.py')
    before = out.read_text()
    message = (
        rf"--out should be a new file, but '\S+{name}\.py' is the config .* or one that it inh"
    )
    with pytest.raises(ValueError, match=message):
        tools[1].main([str(small), str(fast), '--bits', '3', '--out', str(out)])
    assert out.read_text() == before


def test_metrics_of_coco_where_nothing_is_detected(tools, small, float_checkpoint, fast, tmp_path):
    """MMDetection gives no metric then: 0 with a quantizer, refused of the float model."""
    given = ('--choices', 'w2-a4', 'w3-a4', 'w4-a4', 'w4-a8', '--direct', 'coco/bbox_mAP')
    nothing = ('--cfg-options', 'model.test_cfg.score_thr=0.99999')
    with pytest.raises(ValueError, match=r'^the float model detects nothing on the first 3 sampl'):
        tools[0].main(arguments(small, float_checkpoint, tmp_path, *given, *nothing))
    record = json.loads(fast.read_text())
    record['settings'].update(method='direct', measure='coco/bbox_mAP', num_samples=3)
    record['reference'] = 0.25
    record['errors'] = {name: dict.fromkeys(of) for name, of in record['errors'].items()}
    path = tmp_path / 'sensitivity_direct.json'
    path.write_text(json.dumps(record))
    tools[0].main(arguments(small, float_checkpoint, tmp_path, *given, *nothing))
    found = json.loads(path.read_text())
    assert found['complete']
    assert {error for of in found['errors'].values() for error in of.values()} == {0.25}


def test_the_common_bits_need_no_override(tools, small, fast, tmp_path):
    folder = tmp_path / 'common'
    folder.mkdir()
    record = json.loads(fast.read_text())
    record['choices'] = ['w3-a4']
    (folder / 'one.json').write_text(json.dumps(record))
    tools[1].main(
        [str(small), str(folder / 'one.json'), '--bits', '3', '--out', str(folder / 'a.py')]
    )
    assert Config.fromfile(folder / 'a.py').model.quantization.overrides == {}
    build_model(Config.fromfile(folder / 'a.py'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--choices', 'w4'], r"a choice of bits should be as 'w4-a8', .* but got 'w4'"),
        (['--num-samples', '1'], r'was measured with other `num_samples`: 4 there, 1 now; name'),
        (
            ['--choices', 'w2-a4'],
            r'was measured with other `choices`; name another file with --out',
        ),
        (['--compare', 'no.json'], r'No such file'),
        (['--direct', 'bbox_mAP', '--out', 'x.json'], r"no metric 'bbox_mAP'\. Did you mean 'coco"),
        (['--cfg-options', 'train_dataloader=None'], r'`train_dataloader` should be in'),
    ],
)
def test_what_is_refused(
    tools, small, float_checkpoint, fast, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    choices = ('--choices', 'w2-a4', 'w3-a4', 'w4-a4', 'w4-a8')
    with pytest.raises((ValueError, OSError), match=message):
        tools[0].main(arguments(small, float_checkpoint, fast.parent, *choices, *options))


@pytest.mark.parametrize(
    ('config', 'options', 'message'),
    [
        ('small', ['--bits', '1'], r'1 bits of a weight on average cannot .* allow 2 to 4$'),
        ('quantized', ['--bits', '3'], r'of another model|should be of the model of the config, '),
        ('other', ['--bits', '3'], r'with the `model\.quantization` of the config, but theirs'),
        (
            'float',
            ['--bits', '3'],
            r"`model\.type` is 'SSD\w*|'SingleStageDetector', a float model",
        ),
    ],
)
def test_what_no_allocation_is_made_of(tools, small, fast, tmp_path, config, options, message):
    other = small.with_name('other.py')
    other.write_text(
        f'_base_ = {str(small)!r}\nmodel=dict(quantization=dict(weight=dict(levels="pm2")))'
    )
    given = [str(small.with_name(f'{config}.py')), str(fast), '--out', str(tmp_path / 'a.py')]
    with pytest.raises(ValueError, match=message):
        tools[1].main([*given, *options])
    assert not (tmp_path / 'a.py').exists()


@pytest.mark.parametrize(
    ('tool', 'options', 'message'),
    [
        (0, ['a.pth', '--out', 'a.txt'], "--out should end in .json, but got 'a.txt'"),
        (1, ['a.json', '--out', 'a.py'], 'a budget should be given: --bits, --kib, --gbops, or'),
        (1, ['a.json', '--out', 'a.json', '--bits', '3'], "--out should end in .py, but got 'a.js"),
    ],
)
def test_arguments_that_are_wrong(tools, tool, options, message, capsys):
    with pytest.raises(SystemExit):
        tools[tool].main(['config.py', *options])
    assert message in capsys.readouterr().err
