"""tools/train.py and tools/test.py, and MMDetection's own tools, in processes of their own."""

import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import mmdet
import pytest
import torch
from killed_runs import BALLAST
from mmengine.runner import find_latest_checkpoint
from same_end import differences
from toy_data import make_configs, make_data


@pytest.fixture(scope='module')
def tool(root):
    """Runs a tool that imports everything itself."""

    def run(script, *arguments):
        command = [sys.executable, str(script), *map(str, arguments)]
        environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}
        process = subprocess.run(
            command, cwd=root, env=environment, text=True, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return process.returncode, process.stdout

    return run


# What a resumed run has to find again: moving averages, random augmentations drawn by workers, a
# change of phase in the middle of an epoch.
SURVIVAL = """
_base_ = 'quantized.py'
flip = dict(type='RandomFlip', prob=0.5)
train_dataloader = dict(num_workers=2, persistent_workers=True, dataset=dict(dataset=dict(
    pipeline=[*_base_.pipeline[:2], flip, dict(type='PhotoMetricDistortion'), _base_.pipeline[2]])))
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
default_hooks = dict(
    checkpoint=dict(type='mmqnet.CheckpointHook', max_keep_ckpts=1),
    randomness=dict(type='mmqnet.RandomnessHook'),
    gap=dict(interval=100),
    phases=dict(schedule=[
        dict(begin=0, phase='weights'),
        dict(begin=0.45, phase='activations'),
        dict(begin=0.8, phase='both')]))
"""
BEST = """
_base_ = 'float.py'
default_hooks = dict(checkpoint=dict(
    type='mmqnet.CheckpointHook', max_keep_ckpts=1, save_best='coco/bbox_mAP', rule='greater'))
train_cfg = dict(max_epochs=1, val_interval=1)
"""
# By iterations; a phase begins where a checkpoint is saved, so that a resumed run calibrates.
ITERATIONS = """
_base_ = 'survival.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'))
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=9, val_interval=9)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=3),
    phases=dict(schedule=[
        dict(begin=0, phase='weights'), dict(begin=1 / 3, phase='activations')]))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
"""
KILLED_ITERATIONS = """
_base_ = 'iterations.py'
custom_imports = dict(imports=['killed_runs'])
custom_hooks = [*_base_.custom_hooks, dict(type='KillBeforeIteration', iteration=5)]
"""
KILLED = """
_base_ = 'survival.py'
custom_imports = dict(imports=['killed_runs'])
custom_hooks = [*_base_.custom_hooks, dict({kill})]
"""
MOMENTS = dict(
    calibration="type='KillInCalibration'",
    saving="type='KillInTheMiddleOfSaving', epoch=2",
    phase="type='KillBeforeIteration', iteration=9",
)


@pytest.fixture(scope='module')
def survival(configs):
    """Path of the config, beside one that ends at each of the moments."""
    (configs / 'survival.py').write_text(SURVIVAL)
    for moment, kill in MOMENTS.items():
        (configs / f'killed_in_{moment}.py').write_text(KILLED.format(kill=kill))
    return configs / 'survival.py'


@dataclass
class KilledRun:
    """Work dir of a run that was killed again and again, and what each start printed."""

    work_dir: Path
    outputs: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)

    def note(self, moment, code, output):
        assert code == -signal.SIGKILL, output[-3000:]
        self.outputs[moment] = output
        self.states[moment] = {p.name: p.stat().st_size for p in self.work_dir.glob('*')}
        self.states[moment]['latest'] = find_latest_checkpoint(str(self.work_dir))


@pytest.fixture(scope='module')
def trained(server, survival, float_checkpoint, tmp_path_factory):
    """A run that was killed at four moments; every start has `--resume`."""
    work_dir = tmp_path_factory.mktemp('train') / 'run'
    run = KilledRun(work_dir)
    options = ['--work-dir', work_dir, '--resume',
               '--cfg-options', f'load_from={float_checkpoint}']  # fmt: skip
    for moment in MOMENTS:
        config = survival.with_name(f'killed_in_{moment}.py')
        run.note(moment, *server.run('tools/train.py', config, *options))
    latest = work_dir / 'last_checkpoint'
    server.start('tools/train.py', survival, *options)
    run.note('any', *server.kill_when(lambda: latest.read_text().endswith('epoch_2.pth')))
    latest.write_text('')  # as MMEngine's own hook may leave it
    code, output = server.run('tools/train.py', survival, *options)
    assert code == 0, output[-3000:]
    run.outputs['end'] = output
    return run


@pytest.fixture(scope='module')
def whole(server, survival, float_checkpoint, tmp_path_factory):
    """Return the last checkpoint of an uninterrupted run, what it printed, and its seconds."""
    work_dir = tmp_path_factory.mktemp('whole') / 'run'
    start = time.monotonic()
    options = ['--work-dir', work_dir, '--cfg-options', f'load_from={float_checkpoint}']
    code, output = server.run('tools/train.py', survival, *options)
    assert code == 0, output[-3000:]
    return work_dir / 'epoch_3.pth', output, time.monotonic() - start


class TestSurvival:
    def test_killed_in_calibration(self, trained, float_checkpoint):
        output = trained.outputs['calibration']
        assert f'Load checkpoint from {float_checkpoint}' in output
        assert 'Calibrated' not in output
        assert trained.states['calibration']['latest'] is None
        assert 'Calibrated 19 quantizers' in trained.outputs['saving']

    def test_killed_in_the_middle_of_a_checkpoint(self, trained):
        """The one before is there still, though one is kept only, and is the one to resume from."""
        files = trained.states['saving']
        assert 0 < files['.epoch_2.pth.part'] < BALLAST
        assert 'epoch_2.pth' not in files
        assert files['latest'] == str(trained.work_dir / 'epoch_1.pth')
        assert 'resumed epoch: 1, iter: 6' in trained.outputs['phase']

    def test_killed_at_a_change_of_phase(self, trained):
        for start in ('phase', 'any'):
            assert "Phase 'activations' from iteration 9" in trained.outputs[start]
        assert 'resumed epoch: 1, iter: 6' in trained.outputs['any']

    def test_torn_last_checkpoint(self, trained):
        """A line says so, and the newest complete checkpoint is taken."""
        output = trained.outputs['end']
        expected = trained.work_dir / 'epoch_2.pth'
        assert "/run' is empty: resuming from the newest complete checkpoint" in output
        assert f'Load checkpoint from {expected}' in output
        assert 'resumed epoch: 2, iter: 12' in output
        assert 'Calibrated' not in output
        assert {p.name for p in trained.work_dir.glob('.*')} == set()
        assert {p.name for p in trained.work_dir.glob('*.pth')} == {'epoch_3.pth'}

    def test_ends_with_the_same_bits_as_an_uninterrupted_run(self, trained, whole):
        assert '19 of 28 layers quantized' in whole[1]
        assert differences(whole[0], trained.work_dir / 'epoch_3.pth') == []

    def test_killed_after_a_random_time(self, server, survival, float_checkpoint, whole, tmp_path):
        """At another moment in each run of the tests; pytest shows it if this fails."""
        seed = time.time_ns()
        delay = random.Random(seed).uniform(0, whole[2])
        print(f'seed {seed}: killed after {delay:.2f} of {whole[2]:.2f} seconds')
        options = ['--work-dir', tmp_path / 'run', '--resume',
                   '--cfg-options', f'load_from={float_checkpoint}']  # fmt: skip
        end = time.monotonic() + delay
        server.start('tools/train.py', survival, *options)
        server.kill_when(lambda: time.monotonic() >= end)
        code, output = server.run('tools/train.py', survival, *options)
        assert code == 0, output[-3000:]
        assert differences(whole[0], tmp_path / 'run/epoch_3.pth') == []

    def test_a_training_by_iterations(self, server, survival, float_checkpoint, tmp_path):
        """On two processes; workers load ahead, and the first part of a phase calibrates."""
        config = survival.with_name('iterations.py')
        config.write_text(ITERATIONS)
        killed = survival.with_name('killed_iterations.py')
        killed.write_text(KILLED_ITERATIONS)
        options = ['--launcher', 'pytorch', '--resume',
                   '--cfg-options', f'load_from={float_checkpoint}']  # fmt: skip
        code, output = server.run(
            'tools/train.py', killed, '--work-dir', tmp_path / 'a', *options, processes=2
        )
        assert code == -signal.SIGKILL, output[-3000:]
        for run in ('a', 'b'):
            folder = tmp_path / run
            code, output = server.run(
                'tools/train.py', config, '--work-dir', folder, *options, processes=2
            )
            assert code == 0, output[-3000:]
            assert ('resumed epoch: 0, iter: 3' in output) is (run == 'a')
        assert differences(tmp_path / 'b/iter_9.pth', tmp_path / 'a/iter_9.pth') == []

    def test_killed_before_every_file_operation_of_saving(self, server, survival, tmp_path):
        """A complete checkpoint that `last_checkpoint` names, and a complete best one, remain."""
        config = survival.with_name('best.py')
        config.write_text(BEST)
        code, output = server.run('tests/helpers/crash_points.py', config, tmp_path / 'run')
        assert code == 0, output[-3000:]
        assert 'moments: 33' in output  # 3 checkpoints, 2 of `last_checkpoint`, 2 removed
        best = 'best_coco_bbox_mAP_epoch_{}.pth'.format
        assert output.splitlines()[-5:] == [
            f'{best(1)} {best(2)} epoch_2.pth',
            f'{best(1)} epoch_1.pth',
            f'{best(1)} epoch_1.pth epoch_2.pth',
            f'{best(1)} epoch_2.pth',
            f'{best(2)} epoch_2.pth',
        ]


FAILING = """
_base_ = 'quantized.py'
custom_imports = dict(imports=['killed_runs'])
train_dataloader = dict(num_workers=2)
default_hooks = dict(
    checkpoint=dict(type='mmqnet.CheckpointHook', max_keep_ckpts=1),
    randomness=dict(type='mmqnet.RandomnessHook'), phases=None, gap=None)
custom_hooks = [*_base_.custom_hooks, {fail}]
train_cfg = dict(max_epochs=2)
"""
FAILURES = dict(  # patterns; torch tells of a dead worker in two ways, by which it sees first
    worker=r'DataLoader worker \((pid \d+\) is killed by signal: Killed'
    r'|pid\(s\) \d+\) exited unexpectedly): fewer ',
    data="No such file or directory: '{data}/train/",
    disk='File too large',
)


class MakeFolder:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


class TestFailures:
    @pytest.fixture(scope='class')
    def failed(self, server, float_checkpoint, tmp_path_factory):
        """What a run prints that fails in its second epoch, thrice, and its folder."""
        folder = tmp_path_factory.mktemp('failures')
        data = make_data(folder / 'data')
        configs = make_configs(folder / 'configs', data)
        outputs = {}
        for failure in (*FAILURES, None):
            hook = dict(type='FailBeforeIteration', iteration=6, failure=failure)
            fail = [dict(hook, data=str(data / 'train'))] if failure else []
            text = FAILING.replace('{fail}', repr(fail).strip('[]'))
            (configs / 'failing.py').write_text(text)
            code, outputs[failure] = server.run(
                'tools/train.py', configs / 'failing.py', '--work-dir', folder / 'run', '--resume',
                '--cfg-options', f'load_from={float_checkpoint}',
            )  # fmt: skip
            assert (code != 0) is bool(failure), outputs[failure][-3000:]
            if failure == 'data':
                shutil.move(data / 'train.gone', data / 'train')
        return outputs, folder

    @pytest.mark.parametrize('failure', FAILURES)
    def test_the_last_line_names_the_cause_and_the_remedy(self, failed, failure):
        outputs, folder = failed
        last = outputs[failure].strip().splitlines()[-1]
        start, _, rest = last.partition(' iterations, in epoch 2: ')
        assert re.fullmatch(r'train\.py: error: the training stopped after \d+', start), last
        cause = FAILURES[failure].replace('{data}', re.escape(str(folder / 'data')))
        assert re.search(cause, rest), last
        latest = folder / 'run/epoch_1.pth'
        assert f'--resume goes on from {str(latest)!r}, which is complete' in rest
        assert 'Traceback' not in outputs[failure]

    def test_the_run_goes_on(self, failed):
        outputs, folder = failed
        for failure in ('data', 'disk', None):
            assert 'resumed epoch: 1, iter: 6' in outputs[failure]
        assert {p.name for p in (folder / 'run').glob('*.pth')} == {'epoch_2.pth'}

    def test_a_checkpoint_that_holds_code(self, server, configs, float_checkpoint, tmp_path):
        checkpoint = torch.load(float_checkpoint)
        checkpoint['meta'] = MakeFolder(str(tmp_path / 'made'))
        torch.save(checkpoint, tmp_path / 'hostile.pth')
        code, output = server.run(
            'tools/test.py', configs / 'float.py', tmp_path / 'hostile.pth', '--work-dir', tmp_path
        )
        assert code != 0
        assert re.match(
            r"test\.py: error: '.*/hostile\.pth' holds 'posix\.mkdir', more than weights",
            output.strip().splitlines()[-1],
        )
        assert 'Traceback' not in output
        assert not (tmp_path / 'made').exists()

    def test_a_work_dir_that_cannot_be_written(self, server, configs, tmp_path):
        (tmp_path / 'file').touch()
        work_dir = str(tmp_path / 'file/run')
        code, output = server.run(
            'tools/train.py', configs / 'float.py', '--work-dir', work_dir, '--resume'
        )
        assert code != 0
        (line,) = output.strip().splitlines()
        assert line == (
            f'train.py: error: the work dir {work_dir!r} cannot be written: Not a directory'
        )


@pytest.fixture(scope='module')
def tested(trained, server, configs, tmp_path_factory):
    """Predictions and printed metrics of hard and soft functions."""
    results = {}
    for name, options in dict(hard=[], soft=['--soft']).items():
        folder = tmp_path_factory.mktemp(name)
        code, output = server.run(
            'tools/test.py', configs / 'quantized.py', trained.work_dir / 'epoch_3.pth',
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
assert 'mmqnet.engine' not in sys.modules, 'the test needs it not to be imported'
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
    script = tmp_path / 'stock.py'
    script.write_text(STOCK)
    picture = next(configs.parent.glob('data/val/*.png'))
    code, output = tool(script, configs / 'quantized.py', trained.work_dir / 'epoch_3.pth', picture)
    assert code == 0, output[-3000:]
    assert re.search(r'scores \d+', output)


def test_the_test_tool_of_mmdetection(trained, tested, tool, configs, tmp_path):
    stock = Path(mmdet.__file__).parent / '.mim/tools/test.py'
    code, output = tool(
        stock, configs / 'quantized.py', trained.work_dir / 'epoch_3.pth', '--work-dir', tmp_path
    )
    assert code == 0, output[-3000:]
    assert metrics_in(output) == tested['hard'][1]
