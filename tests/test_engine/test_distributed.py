"""Training on two processes, as tools/dist_train.sh starts them; two starts would take long."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import all_reduce_params
from mmengine.runner import Runner
from synthetic_data import write_coco, write_imagenet
from toy_models import build, classifier, quantized, ready, weight_config

from mmqnet.quantizers import QuantizationNetwork

# The demo as it is, with the CPU fragment, on a few pictures.
DEMO = """
_base_ = [{demo!r}, {cpu!r}]
env_cfg = _base_.cpu_env_cfg
custom_imports = dict(imports=['rank_states'])
custom_hooks = [
    dict(type='RankStates'), dict(type='SyncBuffersHook'),
    dict(type='ThenTrain', configs={others!r})]
small = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
train_dataloader = dict(batch_size=2, **small)
val_dataloader = dict(batch_size=2, **small)
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
default_hooks = dict(
    calibration=dict(num_samples=8),
    phases=dict(type='mmqnet.PhaseHook', schedule=[
        dict(begin=0, phase='weights'),
        dict(begin=1 / 3, phase='activations'),
        dict(begin=1 / 2, phase='both')]))
load_from = None
"""
# One step with batches of {batch} on each process. The normalization keeps its statistics, since
# those of a batch are of one process; the loss is a mean over the samples, as SSD's is not.
ONE_STEP = """
default_scope = 'mmpretrain'
work_dir = {work_dir!r}
model = {model!r}
train_dataloader = dict(
    batch_size={batch}, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', data_root={data!r}, ann_file='meta/train.txt', data_prefix='train',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(
    constructor='mmqnet.QuantOptimWrapperConstructor', clip_grad=dict(max_norm=5),
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-3))
custom_imports = dict(imports=['rank_states'])
custom_hooks = [dict(type='RankStates')]
default_hooks = dict(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=4),
    temperature=dict(type='mmqnet.TemperatureHook', weight=dict(slope=10)),
    checkpoint=dict(type='mmqnet.CheckpointHook'),
    distillation={distillation!r})
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
randomness = dict(seed=0)
"""


def write_one_step(folder, name, batch, data, teacher=None, **backbone):
    path = folder / f'{name}.py'
    # uniform: of the activations only the range counts, not which of them were sampled
    activation = dict(levels='uint8', thresholds='uniform')
    model = quantized(
        classifier(**{'norm_eval': True, 'zero_init_residual': False, **backbone}),
        weight=dict(levels='pm4'),
        activation=activation,
    )
    path.write_text(ONE_STEP.format(
        work_dir=str(folder / name), model=model, batch=batch, data=str(data),
        distillation=teacher and dict(type='mmqnet.DistillationHook', teacher=teacher),
    ))  # fmt: skip
    return str(path)


def write_teacher(folder):
    """Save a float model that disagrees with the random weights of the others."""
    path = folder / 'teacher.pth'
    if not path.exists():
        model = build(classifier(zero_init_residual=False), 'mmpretrain')
        torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture(scope='module')
def folder(root, tmp_path_factory):
    """Where a run on two processes has trained the demo, then one step of classifiers."""
    folder = tmp_path_factory.mktemp('distributed')
    splits = {s: (f'annotations/{s}.json', s, n) for s, n in (('train', 12), ('val', 3))}
    write_coco(folder / 'digits', splits, tuple('0123456789'))
    write_imagenet(folder / 'classes', 4, 1)
    others = [
        write_one_step(folder, 'two', 2, folder / 'classes'),
        write_one_step(folder, 'taught', 2, folder / 'classes', write_teacher(folder)),
        write_one_step(folder, 'sync', 2, folder / 'classes', norm_eval=False,
                       norm_cfg=dict(type='SyncBN')),
    ]  # fmt: skip
    bases = dict(
        demo=str(root / 'configs/demo/ssd_r18_w3-a8u_digits.py'),
        cpu=str(root / 'configs/_base_/cpu.py'),
    )
    (folder / 'demo.py').write_text(
        DEMO.format(**bases, others=others, data=str(folder / 'digits'))
    )
    helpers = Path(__file__).parents[1] / 'helpers'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, 'PORT': str(port),
        'PYTHONPATH': f'{root}{os.pathsep}{helpers}',
    }  # fmt: skip
    result = subprocess.run(
        ['bash', 'tools/dist_train.sh', str(folder / 'demo.py'), '2',
         '--work-dir', str(folder / 'demo')],
        cwd=root, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


def states(folder, name):
    """For each process the states before the first iteration and after each."""
    return [torch.load(folder / name / f'rank_{rank}.pth') for rank in (0, 1)]


class TestDemo:
    def test_all_phases_on_two_processes(self, folder):
        (log,) = (path.read_text() for path in folder.glob('demo/*/*.log'))
        assert re.findall(r"Phase '(\w+)' from iteration (\d+)", log) == [
            ('weights', '0'),
            ('activations', '2'),
            ('both', '3'),
        ]
        assert 'find_unused_parameters' not in log
        assert re.findall(r'Calibrated (\d+) quantizers', log) == ['15', '12']
        assert 'coco/bbox_mAP' in log
        assert 'gap/soft/coco/bbox_mAP' in log

    def test_calibration_and_every_step_give_the_same_bits_on_both(self, folder):
        first, second = states(folder, 'demo')
        assert len(first) == 7
        parameters = [key for key in first[0] if 'running' not in key and 'num_batches' not in key]
        assert len(parameters) > 100
        for a, b in zip(first, second, strict=True):
            for key in parameters:
                assert torch.equal(a[key], b[key]), key

    def test_all_parameters_learn_in_their_phases(self, folder):
        saved, _ = states(folder, 'demo')
        scales = [k for k in saved[0] if k.endswith('input_quantizer.log_alpha')]
        weights = [k for k in saved[0] if f'{k}_quantizer.levels' in saved[0]]
        assert len(scales) == 12
        assert len(weights) == 15

        def moved(keys, first, last):
            return {k for k in keys if not torch.equal(saved[first][k], saved[last][k])}

        assert not moved(scales, 0, 2)
        assert moved(weights, 0, 2) == set(weights)
        assert not moved(weights, 2, 3)
        assert moved(scales, 2, 3) == set(scales)
        assert moved(scales + weights, 3, 6) == {*scales, *weights}
        assert all(value.isfinite().all() for value in saved[-1].values())


# of 0.9 a third of the triple is another number
UNEVEN = (-0.9, -0.43, 0.0, 0.22, 0.86)


def average_buffers(rank, folder):
    """What SyncBuffersHook does at the end of an epoch, on one of three processes."""
    store = f'file://{folder}/store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=3)
    quantizer = ready(QuantizationNetwork(weight_config(UNEVEN)))
    all_reduce_params(quantizer.buffers(), op='mean')
    torch.save(quantizer.state_dict(), folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


class TestSyncBuffersHook:
    """It averages all buffers of a model over the processes, those of quantizers too."""

    def test_two_processes_keep_every_bit(self, folder):
        first, second = (of_rank[-1] for of_rank in states(folder, 'demo'))
        saved = torch.load(folder / 'demo' / 'epoch_2.pth', weights_only=False)['state_dict']
        kinds = ('levels', 'thresholds', 'temperature', 'mode', 'enabled', 'calibrated')
        buffers = [key for key in saved if key.endswith(tuple(f'.{kind}' for kind in kinds))]
        assert len(buffers) == 27 * len(kinds)
        for key in buffers:
            assert torch.equal(saved[key], first[key]), key
        statistics = 'backbone.layer1.0.bn1.running_mean'
        assert not torch.equal(first[statistics], second[statistics])
        torch.testing.assert_close(saved[statistics], (first[statistics] + second[statistics]) / 2)

    def test_more_processes_round_and_their_checkpoint_is_accepted(self, tmp_path):
        torch.multiprocessing.start_processes(
            average_buffers, (tmp_path,), nprocs=3, start_method='fork'
        )
        found, *others = (torch.load(tmp_path / f'{rank}.pth') for rank in range(3))
        assert all(torch.equal(found[key], other[key]) for other in others for key in found)
        assert not torch.equal(found['levels'], torch.tensor(UNEVEN))
        QuantizationNetwork(weight_config(UNEVEN)).load_state_dict(found)
        with pytest.raises(ValueError, match='levels'):
            QuantizationNetwork(weight_config((*UNEVEN[:-1], 0.87))).load_state_dict(found)


class TestOneStep:
    @pytest.fixture(scope='class')
    def alone(self, folder):
        """States of one process with the whole batch."""
        return self.train_alone(folder, 'one')

    def train_alone(self, folder, name, *teacher):
        path = write_one_step(folder, name, 4, folder / 'classes', *teacher)
        Runner.from_cfg(Config.fromfile(path)).train()
        return torch.load(folder / name / 'rank_0.pth')

    def test_two_processes_calibrate_as_one(self, folder, alone):
        for key, value in states(folder, 'two')[1][0].items():
            torch.testing.assert_close(value, alone[0][key], rtol=1e-5, atol=1e-6, msg=key)

    @staticmethod
    def check_step(alone, found):
        """Check one step; what differs is the order of summation, steps are many times as large."""
        before, after = alone
        for key, value in found.items():
            step = (after[key].float() - before[key].float()).abs().max()
            difference = (value.float() - after[key].float()).abs().max()
            assert difference <= max(1e-3 * step, 1e-6), key
        assert sum(not torch.equal(before[key], after[key]) for key in before) > 100

    def test_two_processes_learn_as_one(self, folder, alone):
        self.check_step(alone, states(folder, 'two')[1][1])

    def test_two_processes_learn_from_a_teacher_as_one(self, folder, alone):
        taught = self.train_alone(folder, 'one_taught', write_teacher(folder))
        self.check_step(taught, states(folder, 'taught')[1][1])
        assert not torch.equal(taught[1]['head.fc.weight'], alone[1]['head.fc.weight'])

    def test_sync_bn_is_refused_by_torch_on_cpus(self, folder):
        for rank in (0, 1):
            reason = (folder / 'sync' / f'error_{rank}.txt').read_text()
            assert reason == 'SyncBatchNorm layers only work with GPU modules'
