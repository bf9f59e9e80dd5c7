"""tools/test.py with exported files, in processes of their own."""

import pickle
import re
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from mmqnet.export.detection import export_module
from mmqnet.export.onnx import export_onnx


@pytest.fixture(scope='module')
def exported(configs, float_checkpoint, tmp_path_factory):
    """Path of the exported float model."""
    config = Config.fromfile(configs / 'float.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    load_checkpoint(model, float_checkpoint)
    module = export_module(model, config, shape=(64, 64))
    path = tmp_path_factory.mktemp('export') / 'float.onnx'
    names, metadata = module.output_names, module.metadata
    export_onnx(module, [module.example()], path, output_names=names, metadata=metadata)
    return path


@pytest.fixture(scope='module')
def of_checkpoint(server, configs, float_checkpoint, tmp_path_factory):
    """What the tool makes of the checkpoint."""
    return run(server, configs / 'float.py', float_checkpoint, tmp_path_factory.mktemp('torch'))


def run(server, config, file, folder, *options):
    """Return the predictions and the printed metrics."""
    out = folder / 'out.pkl'
    arguments = [config, file, '--work-dir', folder, '--out', out, *options]
    code, output = server.run('tools/test.py', *arguments)
    assert code == 0, output[-3000:]
    return pickle.loads(out.read_bytes()), re.findall(r'coco/bbox_mAP\w*: +[-\d.]+', output)


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_equals_the_checkpoint(server, configs, exported, of_checkpoint, backend, tmp_path):
    """With the quantized config too, whose hooks look at layers that a file has not."""
    config = configs / 'quantized.py'
    predictions, metrics = run(server, config, exported, tmp_path, '--backend', backend)
    expected, expected_metrics = of_checkpoint
    assert metrics == expected_metrics
    assert len(metrics) == 6
    for found, other in zip(predictions, expected, strict=True):
        found, other = found['pred_instances'], other['pred_instances']
        assert len(found['scores']) == len(other['scores']) > 0
        torch.testing.assert_close(found['scores'], other['scores'], atol=1e-4, rtol=0)


def test_several_processes(configs, exported, of_checkpoint, root, tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2']
    command += ['--rdzv-backend=c10d', '--rdzv-endpoint=127.0.0.1:0', root / 'tools' / 'test.py']
    command += [configs / 'distributed.py', exported, '--backend', 'onnxruntime']
    command += ['--launcher', 'pytorch', '--work-dir', tmp_path]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    assert re.findall(r'coco/bbox_mAP\w*: +[-\d.]+', result.stdout)[-6:] == of_checkpoint[1]


def test_exported_file_without_a_backend(server, configs, exported, tmp_path):
    config = configs / 'float.py'
    code, output = server.run('tools/test.py', config, exported, '--work-dir', tmp_path)
    assert code != 0
    assert output.strip().endswith("float.onnx' needs --backend onnxruntime or openvino")


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--soft'], 'error: --backend onnxruntime takes neither --tta nor --soft'),
        ([], "ONNX Runtime cannot run '.*float.pth'"),
    ],
)
def test_refusals(server, configs, float_checkpoint, options, message, tmp_path):
    code, output = server.run(
        'tools/test.py', configs / 'float.py', float_checkpoint,
        '--backend', 'onnxruntime', '--work-dir', tmp_path, *options,
    )  # fmt: skip
    assert code != 0
    assert re.search(message, output.strip().splitlines()[-1])


def test_times_of_files_in_turns(root, configs, exported, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(root / 'demo'))
    from timing import time_files

    found = time_files([exported, exported], Config.fromfile(configs / 'float.py'), 2)
    assert len(found) == 2
    assert all(0 < milliseconds < 10_000 for milliseconds in found)
    assert capsys.readouterr().out == ''
