"""Training on two processes: all three phases, without looking for unused parameters."""

import os
import re
import subprocess
import sys

import pytest
import torch


@pytest.fixture(scope='module')
def run(root, configs, float_checkpoint, tmp_path_factory):
    """The work dir of a whole run on two processes."""
    work_dir = tmp_path_factory.mktemp('distributed') / 'run'
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2',
        '--rdzv-backend=c10d', '--rdzv-endpoint=127.0.0.1:0', 'tools/train.py',
        str(configs / 'distributed.py'), '--launcher', 'pytorch', '--work-dir', str(work_dir),
        '--cfg-options', f'load_from={float_checkpoint}',
    ]  # fmt: skip
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
    result = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return work_dir


def test_all_phases_on_two_processes(run):
    log = next(run.glob('*/*.log')).read_text()
    assert re.findall(r"Phase '(\w+)' from iteration (\d+)", log) == [
        ('weights', '0'),
        ('activations', '3'),
        ('both', '6'),
    ]
    assert 'find_unused_parameters' not in log
    assert log.count('Calibrated 35 quantizers') == 1
    assert 'coco/bbox_mAP' in log


def test_all_parameters_learn(run):
    saved = [
        torch.load(run / f'epoch_{i}.pth', weights_only=False)['state_dict'] for i in (1, 2, 3)
    ]
    scales = [k for k in saved[0] if k.endswith('input_quantizer.log_alpha')]
    weights = [k for k in saved[0] if k.endswith('weight') and f'{k}_quantizer.levels' in saved[0]]
    assert len(scales) == 16
    assert len(weights) == 19
    for keys, resting in ((scales, 0), (weights, 1)):
        for key in keys:
            if resting:
                assert torch.equal(saved[0][key], saved[1][key]), key
            assert not torch.equal(saved[1][key], saved[2][key]), key
    assert all(value.isfinite().all() for value in saved[2].values())
