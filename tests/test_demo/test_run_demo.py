"""The demo's runner: reuse, resume, errors and the table; small commands replace long ones."""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

DEMO = Path(__file__).parents[2] / 'demo'


@pytest.fixture(scope='module')
def modules():
    """The demo's modules; their folder is on the path while they are imported."""
    sys.path.insert(0, str(DEMO))
    try:
        yield importlib.import_module('run_demo'), importlib.import_module('results')
    finally:
        sys.path.remove(str(DEMO))


@pytest.fixture
def demo(modules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modules[0].OUT_DIR.mkdir(parents=True)
    return modules[0]


@pytest.fixture
def training(tmp_path):
    """A config of two epochs, and a function that leaves what its training leaves."""
    file = tmp_path / 'toy.py'
    file.write_text('train_cfg = dict(max_epochs=2)\nlr = 1.0\n')

    def leave(*epochs: int, noted: int | None = None) -> Path:
        work_dir = tmp_path / 'work_dirs' / 'toy'
        work_dir.mkdir(exist_ok=True)
        config = Config.fromfile(file)
        config.work_dir = str(work_dir)
        config.resume = True
        config.dump(work_dir / 'toy.py')
        for epoch in epochs:
            (work_dir / f'epoch_{epoch}.pth').write_text('')
        last = work_dir / f'epoch_{noted or epochs[-1]}.pth'
        (work_dir / 'last_checkpoint').write_text(str(last))
        return work_dir

    return file, leave


@pytest.fixture
def commands(demo, monkeypatch, training):
    """The commands that would have been run; each leaves a finished training."""
    seen = []

    def run(title, minutes, command):
        seen.append(command)
        training[1](1, 2)

    monkeypatch.setattr(demo, 'run', run)
    return seen


def test_run_shows_the_gist_and_logs_all(demo, capsys):
    code = "print('a secret'); print('x - INFO - Epoch(train) [1][50/60]')"
    demo.run('A step', 0.5, ['python', '-c', code])
    out = capsys.readouterr().out
    assert '== A step (about 30 s)' in out
    assert 'Epoch(train) [1][50/60]\n' in out
    assert 'done in' in out
    assert 'a secret\n' not in out
    assert 'a secret\n' in demo.LOG.read_text()


def test_a_failing_step_shows_its_last_lines(demo, capsys):
    with pytest.raises(demo.DemoError, match=r'"A step" failed with exit code 1; .*log\.txt'):
        demo.run('A step', 1, ['python', '-c', 'raise ValueError("the reason")'])
    assert 'the reason' in capsys.readouterr().out


def test_training_is_done_once(demo, training, commands, capsys):
    file, _ = training
    final = demo.train('Training', file, 1, [])
    assert final == Path('work_dirs/toy/epoch_2.pth')
    assert commands == [['python', 'tools/train.py', str(file)]]
    assert demo.train('Training', file, 1, []) == final
    assert len(commands) == 1
    assert f'reusing {final}' in capsys.readouterr().out


def test_interrupted_training_is_resumed(demo, training, commands):
    file, leave = training
    leave(1)
    demo.train('Training', file, 1, [])
    assert commands == [['python', 'tools/train.py', str(file), '--resume']]


def test_a_checkpoint_that_was_being_written_does_not_count(demo, training, commands):
    file, leave = training
    leave(1, 2, noted=1)
    demo.train('Training', file, 1, [])
    assert commands == [['python', 'tools/train.py', str(file), '--resume']]


def test_without_a_whole_checkpoint_training_starts_anew(demo, training, commands):
    file, leave = training
    (leave(1) / 'epoch_1.pth').unlink()
    demo.train('Training', file, 1, [])
    assert commands == [['python', 'tools/train.py', str(file)]]


def test_training_with_another_config_is_kept_aside(demo, training, commands, capsys):
    file, leave = training
    leave(1, 2)
    file.write_text('train_cfg = dict(max_epochs=2)\nlr = 0.1\n')
    demo.train('Training', file, 1, [])
    assert 'the config has changed (lr): the former training is kept' in capsys.readouterr().out
    assert '--resume' not in commands[0]
    assert Path('work_dirs/toy.old1/epoch_2.pth').exists()
    file.write_text('train_cfg = dict(max_epochs=2)\nlr = 0.2\n')
    demo.train('Training', file, 1, [])
    assert Path('work_dirs/toy.old2/epoch_2.pth').exists()


def test_training_on_newer_data_starts_anew(demo, training, commands, tmp_path, capsys):
    file, leave = training
    leave(1, 2)
    stamp = tmp_path / 'digits.json'
    stamp.write_text('')
    os.utime(stamp, (2**32, 2**32))
    demo.train('Training', file, 1, [stamp])
    assert f'{stamp} is newer' in capsys.readouterr().out
    assert len(commands) == 1


def test_a_training_without_result_is_an_error(demo, training, monkeypatch):
    monkeypatch.setattr(demo, 'run', lambda *args: None)
    with pytest.raises(demo.DemoError, match=r'epoch_2\.pth is not there'):
        demo.train('Training', training[0], 1, [])


def test_evaluation_is_read_and_reused(demo, training, monkeypatch):
    file, leave = training
    checkpoint = leave(2) / 'epoch_2.pth'
    seen = []

    def run(title, minutes, command):
        seen.append(command)
        folder = demo.OUT_DIR / 'soft' / '20260101'
        folder.mkdir(parents=True)
        (folder / '20260101.json').write_text(json.dumps({'coco/bbox_mAP': 0.5}))

    monkeypatch.setattr(demo, 'run', run)
    for _ in range(2):
        metrics = demo.evaluate('quantized', file, checkpoint, 'soft', '--soft')
        assert metrics == {'coco/bbox_mAP': 0.5}
    command = ['python', 'tools/test.py', str(file), str(checkpoint)]
    assert seen == [[*command, '--work-dir', str(demo.OUT_DIR / 'soft'), '--soft']]


def test_evaluation_without_metrics_is_an_error(demo, training, monkeypatch):
    file, leave = training
    checkpoint = leave(2) / 'epoch_2.pth'
    monkeypatch.setattr(demo, 'run', lambda *args: None)
    with pytest.raises(demo.DemoError, match='left no metrics below'):
        demo.evaluate('quantized', file, checkpoint, 'hard')


def make_rows(results, hard: float) -> list:
    def metrics(value):
        return {f'coco/bbox_mAP{suffix}': value for suffix in ('', '_50', '_75')}

    return [
        results.Row('float', metrics(0.8), '32 / 32', 4096.0),
        results.Row('w3-a8u, soft', metrics(0.79), '3 / 8', None),
        results.Row('w3-a8u, hard', metrics(hard), '3 / 8', 384.0, 0.97),
    ]


@pytest.mark.parametrize(('hard', 'verdict'), [(0.78, 'reached'), (0.6, 'missed')])
def test_results(modules, tmp_path, hard, verdict):
    results = modules[1]
    text = results.write_results(tmp_path, 'results', make_rows(results, hard))
    assert '| float | 32 / 32 | 4 KiB | 0.800 | 0.800 | 0.800 | 1.000 |  |' in text
    assert '| w3-a8u, soft | 3 / 8 |  | 0.790 |' in text
    assert f'| {hard / 0.8:.3f} | 0.97: {verdict} |' in text
    assert (tmp_path / 'results.md').read_text() == text
    written = json.loads((tmp_path / 'results.json').read_text())['rows']
    assert written[-1]['share_of_float'] == pytest.approx(hard / 0.8)
    assert [row['target'] for row in written] == [None, None, 0.97]
    assert [row['backbone_bytes'] for row in written] == [4096.0, None, 384.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['results.json', 'results.md']


@pytest.mark.parametrize('all_bits', [False, True])
def test_one_table_of_all_that_was_trained(modules, demo, monkeypatch, all_bits, capsys):
    trained, evaluated = [], []
    config = Config(dict(train_cfg=dict(max_epochs=2)))

    def train(title, config_file, minutes, needs):
        assert (DEMO.parent / config_file).is_file()
        trained.append(demo.recipe_of(config_file) if needs[1:] else 'float')
        return Path(config_file.stem, 'epoch_2.pth')

    def evaluate(title, config_file, checkpoint, name, *options):
        evaluated.append((name, checkpoint.parent.name, options))
        return {f'coco/bbox_mAP{suffix}': 0.5 for suffix in ('', '_50', '_75')}

    def export(title, config_file, checkpoint, name):
        path = demo.OUT_DIR / f'{name}.onnx'
        path.write_bytes(bytes(2048))
        return path

    monkeypatch.setattr(demo, 'run', lambda *args: None)
    monkeypatch.setattr(demo, 'export', export)
    monkeypatch.setattr(demo, 'time_files', lambda files, config: [2.0, 1.0])
    monkeypatch.setattr(demo, 'draw', lambda *args: None)
    monkeypatch.setattr(demo, 'train', train)
    monkeypatch.setattr(demo, 'evaluate', evaluate)
    monkeypatch.setattr(demo.Config, 'fromfile', staticmethod(lambda _: config))
    monkeypatch.setattr(demo, 'describe_backbone', lambda _: modules[1].Backbone(4e6, 4e5, '3 / 8'))
    demo.demo(all_bits)
    recipes = list(demo.TARGETS) if all_bits else ['w3-a8-int']
    assert trained == ['float', *recipes]
    assert len(evaluated) == 3 + 2 * len(recipes)
    assert ('w3-a8-int-soft', 'ssd_r18_w3-a8-int_digits', ('--soft',)) in evaluated
    table = Path('work_dirs/demo', 'all_bits.md' if all_bits else 'results.md').read_text()
    assert table in capsys.readouterr().out
    for recipe in recipes:
        assert f'| {recipe}, hard | 3 / 8 | 391 KiB |' in table
    assert 'mAP of torch ± 0.002: reached | 2 KiB | 1.0 |' in table


def test_export_is_reused(demo, monkeypatch, tmp_path):
    checkpoint = tmp_path / 'epoch_2.pth'
    checkpoint.write_text('')
    os.utime(checkpoint, (0, 0))
    seen = []

    def run(title, minutes, command):
        seen.append(command)
        Path(command[-1]).write_text('')

    monkeypatch.setattr(demo, 'run', run)
    for _ in range(2):
        assert demo.export('float', Path('a.py'), checkpoint, 'float').is_file()
    out = str(demo.OUT_DIR / 'float.onnx')
    assert seen == [['python', 'tools/export.py', 'a.py', str(checkpoint), '--out', out]]


def test_the_picture_is_drawn_by_a_tool_that_takes_these_arguments(demo, monkeypatch):
    seen = []
    monkeypatch.setattr(demo, 'run', lambda title, minutes, command: seen.append(command))
    demo.draw(Path('float.pth'), Path('quantized.pth'), Path('int.onnx'))
    ((_, script, *arguments),) = seen
    spec = importlib.util.spec_from_file_location('analyze', DEMO.parent / script)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    parsed = tool.parse_args(arguments)
    assert [(title, checkpoint) for title, _, checkpoint in parsed.model] == [
        ('float', 'float.pth'),
        ('quantized', 'quantized.pth'),
        ('ONNX Runtime', 'int.onnx'),
    ]
    assert Path(parsed.out) == demo.OUT_DIR / 'detections.jpg'


def test_describe_backbone(modules):
    config = Config.fromfile(DEMO.parent / modules[0].QUANTIZED_CONFIG)
    backbone = modules[1].describe_backbone(config)
    assert backbone.bits == '3 / 8'
    assert 8 < backbone.float_bytes / backbone.packed_bytes < 32 / 3
