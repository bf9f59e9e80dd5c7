"""The benchmark's command, at tiny sizes."""

import importlib.util
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from toy_models import build, calibrated

from mmqnet.command_line.threads import free_cores

TOOLS = Path(__file__).parents[2] / 'tools' / 'benchmarks'
PARTS = ('operator', 'train', 'evaluate', 'distill', 'memory', 'kmeans', 'calibrate', 'deploy')
pytest.importorskip('sklearn')


@pytest.fixture(scope='module')
def tools():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import measuring
        import records

        yield measuring, records


@pytest.fixture
def main(tools, monkeypatch):
    import run as command

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['run.py', *map(str, arguments)])
        command.main()

    return call


def run(out_dir: Path, *arguments: str) -> str:
    command = [sys.executable, '-W', 'ignore', str(TOOLS / 'run.py'), '--quick']
    command += ['--threads', '1', '--out-dir', str(out_dir), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp('benchmarks')
    return out_dir, run(out_dir, '--only', *PARTS)


@pytest.mark.slow
def test_every_part_gives_a_table_and_is_written(finished):
    out_dir, output = finished
    content = json.loads((out_dir / 'results.json').read_text())
    assert list(content['parts']) == list(PARTS)
    conditions = content['conditions']
    assert conditions['threads'] == 1
    assert conditions['scikit-learn'] == metadata.version('scikit-learn')
    assert re.search('none: .|, build [0-9a-f]{12}$', conditions['kernel'])
    for part, rows in content['parts'].items():
        assert f'\n{part}\n' in output
        for case, row in rows.items():
            assert case in output
            assert all(f'{name}  ' in output or f'{name}\n' in output for name in row['ratios'])
    for part in ('train', 'evaluate'):
        seconds = content['parts'][part]['ResNet-18']['raw']['seconds']
        assert set(seconds) == {'float', 'w2-a2'}
    mebibytes = content['parts']['memory']['ResNet-18']['raw']['mebibytes']
    assert 100 < mebibytes['float']['steps'] < 2000
    if importlib.util.find_spec('onnxruntime') and importlib.util.find_spec('openvino'):
        row = content['parts']['deploy']['ResNet-18, w4-a4-int']
        assert {'ORT ours', 'ORT float', 'ORT static', 'torch'} < set(row['raw']['seconds'])
        assert row['ratios']['file / float']['value'] < 0.2
        assert any(layer['onnxruntime'] == 'integer' for layer in row['raw']['layers'])
        has_nncf = importlib.util.find_spec('nncf') is not None
        assert ('OpenVINO: ours / NNCF' in row['ratios']) == has_nncf
        assert ('nncf' in row['left_out']) != has_nncf
    assert (out_dir / 'results.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
def test_peers_that_are_not_installed_are_named(finished):
    _, output = finished
    for peer in ('brevitas', 'torchao'):
        try:
            __import__(peer)
        except ImportError:
            assert f'left out: {peer} (No module named {peer!r})' in output
        else:
            assert f'uniform / {peer}' in output


@pytest.mark.slow
def test_finished_rows_are_kept(finished):
    out_dir, _ = finished
    before = (out_dir / 'results.json').read_bytes()
    output = run(out_dir, '--only', 'memory', 'kmeans')
    assert output.count('kept') == 2
    assert (out_dir / 'results.json').read_bytes() == before


@pytest.mark.slow
def test_accuracy_of_files(tools, configs, float_checkpoint, tmp_path, monkeypatch, capsys):
    pytest.importorskip('onnxruntime')
    import accuracy

    model = build(Config.fromfile(configs / 'quantized.py').model)
    checkpoint = str(tmp_path / 'quantized.pth')
    model = calibrated(model, torch.rand(2, 3, 64, 64))
    save_checkpoint(dict(state_dict=model.state_dict()), checkpoint)
    models = ['--float', configs / 'float.py', float_checkpoint]
    models += ['--ours', configs / 'quantized.py', checkpoint]
    arguments = ['accuracy.py', *models, '--images', 2, '--out-dir', tmp_path]
    arguments += ['--backends', 'onnxruntime']  # OpenVINO takes seconds a file
    monkeypatch.setattr(sys, 'argv', [str(argument) for argument in arguments])
    accuracy.main()
    content = (tmp_path / 'accuracy.json').read_bytes()
    rows = json.loads(content)['parts']['accuracy']
    files = ('float', 'quantize_static', 'quantized')
    assert list(rows) == [f'{file}, ONNX Runtime' for file in files]
    sizes = [row['raw']['bytes'] for row in rows.values()]
    assert min(sizes) > 0
    table = (tmp_path / 'accuracy.md').read_text()
    assert table in capsys.readouterr().out
    assert re.search(r'\| quantized, ONNX Runtime \| -?\d\.\d{3} \| \d+ \| \d+\.\d\d \|', table)
    accuracy.main()  # all of it is kept
    assert (tmp_path / 'accuracy.json').read_bytes() == content


def test_other_conditions_start_anew(tools, tmp_path, capsys):
    measuring, records = tools
    path = tmp_path / 'results.json'
    row = measuring.Row({'a / b': measuring.Ratio(1.5, at_most=2.0)}, dict(seconds=[1.0]))
    records.Records(path, dict(threads=1)).add('part', 'case', row)
    assert records.Records(path, dict(threads=1)).rows == {'part': {'case': row}}
    assert records.Records(path, dict(threads=2)).rows == {}
    assert 'other conditions' in capsys.readouterr().out


@pytest.mark.parametrize('text', ['', '{"conditions": {', '[]', '{}'])
def test_file_that_holds_no_results(main, tmp_path, text):
    (tmp_path / 'results.json').write_text(text)
    with pytest.raises(SystemExit, match=r"results\.json' holds no results .*: delete it, or name"):
        main('--out-dir', tmp_path, '--threads', torch.get_num_threads())


def test_number_of_threads_is_positive(main, capsys):
    with pytest.raises(SystemExit):
        main('--threads', 0)
    assert "--threads: should be a positive integer, but got '0'" in capsys.readouterr().err


def test_no_picture_of_nothing(tools):
    import picture

    assert picture.draw({}) is None


def test_turns_and_median_of_ratios(tools):
    measuring, _ = tools
    order: list[str] = []
    functions = {name: lambda name=name: order.append(name) for name in 'ab'}
    settings = measuring.Settings(threads=1, clock='wall', quick=True)
    seconds = measuring.interleave(functions, dict(a=3, b=2), settings)
    assert ''.join(order) == 'abababa'
    assert [len(seconds[name]) for name in 'ab'] == [3, 2]
    times = dict(a=[2.0, 9.0, 30.0], b=[1.0, 3.0, 10.0])
    assert measuring.median_ratio(times, 'a', 'b') == 3.0


def test_table_shows_targets(tools):
    measuring, records = tools
    rows = {
        'one': measuring.Row({'x': measuring.Ratio(1.04, at_most=1.05)}, {}),
        'two': measuring.Row({'x': measuring.Ratio(1.06, at_most=1.05)}, {}),
        'three': measuring.Row({'y': measuring.Ratio(60.0, at_least=50)}, {}),
    }
    lines = records.table(rows).splitlines()
    assert lines[0].split() == ['x', 'y']
    assert lines[1] == 'one    1.04 (<= 1.05)'
    assert lines[2] == 'two    1.06 (<= 1.05 missed)'
    assert lines[3].endswith('60 (>= 50)')


def test_threads_beside_busy_loops(monkeypatch):
    """One step with one thread, and cores that are not free while loops run."""
    monkeypatch.syspath_prepend(str(TOOLS))
    import threads

    count, seconds = threads.measure('one', steps=1)
    assert count == torch.get_num_threads()
    assert seconds > 0
    with threads.busy_loops(2 * os.cpu_count()):
        time.sleep(0.2)  # until they run
        assert free_cores() == 1
    assert not multiprocessing.active_children()
