"""tools/train.py and tools/test.py, and MMDetection's own tools, in processes of their own."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmdet
import pytest
import torch


@pytest.fixture(scope='module')
def tool(root):
    """Starts a tool; `wait=False` gives the process."""

    def start(script, *arguments, wait=True):
        command = [sys.executable, str(script), *map(str, arguments)]
        environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}
        process = subprocess.Popen(
            command, cwd=root, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if not wait:
            return process
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    return start


def state_of(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def trained(tool, configs, float_checkpoint, tmp_path_factory):
    """Work dir of a run that was killed after its first checkpoint and resumed.

    Both start with `--resume`: without a checkpoint yet, the float weights are loaded.
    """
    work_dir = tmp_path_factory.mktemp('train') / 'run'
    arguments = [
        'tools/train.py', configs / 'quantized.py', '--work-dir', work_dir, '--resume',
        '--cfg-options', f'load_from={float_checkpoint}',
    ]  # fmt: skip
    process = tool(*arguments, wait=False)
    deadline = time.monotonic() + 600
    latest = work_dir / 'last_checkpoint'
    while process.poll() is None and not (latest.exists() and latest.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    killed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, killed[-3000:]
    assert f'Load checkpoint from {float_checkpoint}' in killed
    code, output = tool(*arguments)
    assert code == 0, output[-3000:]
    return work_dir, output


def test_a_killed_run_resumes_and_ends_with_the_same_bits(
    trained, tool, configs, float_checkpoint, tmp_path
):
    work_dir, output = trained
    assert 'resumed epoch: ' in output
    assert 'Calibrated' not in output
    code, whole = tool(
        'tools/train.py', configs / 'quantized.py', '--work-dir', tmp_path / 'whole',
        '--cfg-options', f'load_from={float_checkpoint}',
    )  # fmt: skip
    assert code == 0, whole[-3000:]
    assert 'Calibrated 35 quantizers' in whole
    assert '19 of 28 layers quantized' in whole
    expected, found = state_of(tmp_path / 'whole/epoch_3.pth'), state_of(work_dir / 'epoch_3.pth')
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


@pytest.fixture(scope='module')
def tested(trained, tool, configs, tmp_path_factory):
    """Predictions and printed metrics of hard and soft functions."""
    results = {}
    for name, options in dict(hard=[], soft=['--soft']).items():
        folder = tmp_path_factory.mktemp(name)
        code, output = tool(
            'tools/test.py', configs / 'quantized.py', trained[0] / 'epoch_3.pth',
            '--work-dir', folder, '--out', folder / 'out.pkl', *options,
        )  # fmt: skip
        assert code == 0, output[-3000:]
        results[name] = pickle.loads((folder / 'out.pkl').read_bytes()), metrics_in(output)
    return results


def metrics_in(output):
    return re.findall(r'coco/bbox_mAP\w*: +[-\d.]+', output)


def test_test_writes_predictions_and_prints_metrics(tested):
    for predictions, metrics in tested.values():
        assert len(predictions) == 3
        assert len(metrics) >= 6


def test_soft_functions_give_other_predictions(tested):
    hard, soft = ([p['pred_instances']['scores'] for p in tested[k][0]] for k in ('hard', 'soft'))
    assert any(len(a) != len(b) or not torch.equal(a, b) for a, b in zip(hard, soft, strict=True))


@pytest.mark.parametrize(
    ('script', 'arguments', 'message'),
    [
        ('test', ['{config}', 'missing.pth'], "the checkpoint 'missing.pth' does not exist"),
        (
            'train',
            ['{config}', '--cfg-options', 'train_dataloader.dataset.dataset.data_root=/nowhere'],
            "`train_dataloader.dataset.dataset.ann_file`: '/nowhere/train.json' does not exist",
        ),
    ],
)
def test_missing_files_are_named_at_once(tool, configs, tmp_path, script, arguments, message):
    arguments = [a.format(config=configs / 'float.py') for a in arguments]
    started = tmp_path / 'run'
    code, output = tool(f'tools/{script}.py', *arguments, '--work-dir', started)
    assert code != 0
    assert message in output.splitlines()[-1]
    assert not started.exists()


STOCK = """
import sys
from mmdet.apis import DetInferencer, inference_detector, init_detector
assert 'mmqnet' not in sys.modules, 'the point is that nobody has imported it'
config, checkpoint, picture = sys.argv[1:]
model = init_detector(config, checkpoint, device='cpu')
assert type(model).__name__ == 'SingleStageDetector'
assert len(model.quantization_report.quantized) == 19
result = inference_detector(model, picture)
inferencer = DetInferencer(config, checkpoint, device='cpu', show_progress=False)
found = inferencer(picture)['predictions'][0]
scores = result.pred_instances.scores.tolist()
assert found['scores'] == scores, (found['scores'], scores)
print('scores', len(scores))
"""


def test_stock_apis_build_the_quantized_model(trained, tool, configs, tmp_path):
    work_dir, _ = trained
    script = tmp_path / 'stock.py'
    script.write_text(STOCK)
    picture = next(configs.parent.glob('data/val/*.png'))
    code, output = tool(script, configs / 'quantized.py', work_dir / 'epoch_3.pth', picture)
    assert code == 0, output[-3000:]
    assert re.search(r'scores \d+', output)


def test_the_test_tool_of_mmdetection(trained, tested, tool, configs, tmp_path):
    stock = Path(mmdet.__file__).parent / '.mim/tools/test.py'
    code, output = tool(
        stock, configs / 'quantized.py', trained[0] / 'epoch_3.pth', '--work-dir', tmp_path
    )
    assert code == 0, output[-3000:]
    assert metrics_in(output) == tested['hard'][1]
