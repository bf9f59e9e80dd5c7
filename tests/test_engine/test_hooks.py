"""The hooks in real runs of MMEngine's Runner: three epochs, three phases, resumed or not.

The data set is repeated twice, so that a runner's epoch of 6 iterations is two passes over it.
"""

import copy
import json
import logging
import random
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import load_checkpoint
from toy_data import make_runner

from mmqnet.calibration import calibrate_on_samples
from mmqnet.engine.hooks import (
    BatchNormReestimationHook,
    CalibrationHook,
    CheckpointHook,
    PhaseHook,
    SoftHardGapHook,
    TemperatureHook,
)
from mmqnet.engine.partial_validation import PartialValidation
from mmqnet.layers import activation_quantizers, parameter_roles, weight_quantizers
from mmqnet.quantizers import Mode, Quantizer, Staircase, quantizers_of

STEPS = 18
PER_EPOCH = 6


@dataclass(eq=False)
class Recorder(Hook):
    """Notes at each iteration what the other hooks have set, and what the step has changed."""

    temperatures: list = field(default_factory=list)
    modes: list = field(default_factory=list)
    changed: list = field(default_factory=list)
    calibrated: list = field(default_factory=list)
    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        weights = list(weight_quantizers(runner.model).values())
        inputs = list(activation_quantizers(runner.model).values())
        self.temperatures.append(
            tuple({float(q.temperature) for q in kind} for kind in (weights, inputs))
        )
        self.modes.append(tuple({int(q.mode) for q in kind} for kind in (weights, inputs)))
        self.before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
        if runner.iter == PER_EPOCH:
            self.calibrated.append(
                {n: q.beta.clone() for n, q in quantizers_of(runner.model).items()}
            )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        after = dict(runner.model.named_parameters())
        self.changed.append({n for n, p in self.before.items() if not torch.equal(p, after[n])})


class WithoutTemperature(Quantizer):
    """Rounds, and learns nothing."""

    def fit(self, sample):
        pass

    def learn(self, x):
        return self.staircase(x).quantize(x)

    def staircase(self, x):
        middles = (self.levels[1:] + self.levels[:-1]) / 2
        return Staircase(self.levels, middles, torch.tensor(1.0), torch.tensor(1.0))


@dataclass
class Run:
    runner: object
    recorder: Recorder
    folder: object

    @property
    def state(self):
        return {k: v.clone() for k, v in self.runner.model.state_dict().items()}


def train(configs, folder, *hooks, **options):
    runner = make_runner(configs / 'quantized.py', folder, **options)
    recorder = Recorder()
    for hook in (recorder, *hooks):
        runner.register_hook(hook)
    runner.train()
    return Run(runner, recorder, folder)


@pytest.fixture(scope='module')
def whole(configs, float_checkpoint, tmp_path_factory):
    """An uninterrupted run."""
    return train(configs, tmp_path_factory.mktemp('runs') / 'whole', load_from=float_checkpoint)


@pytest.fixture(scope='module')
def resumed(configs, whole):
    """The same run, resumed from its first epoch."""
    folder = whole.folder.parent / 'resumed'
    checkpoint = str(whole.folder / 'epoch_1.pth')
    return train(configs, folder, load_from=checkpoint, resume=True)


def scalars(run):
    (path,) = run.folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestTemperature:
    def test_true_epochs(self, whole):
        """T = 10 * pass up to the cap of 45 for weights, 2 * pass for activations."""
        passes = [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3 + [6] * 3
        expected = [({min(45.0, 10.0 * p)}, {2.0 * p}) for p in passes]
        assert whole.recorder.temperatures == expected

    def test_resumed(self, whole, resumed):
        assert resumed.recorder.temperatures == whole.recorder.temperatures[PER_EPOCH:]

    def test_by_progress(self, configs, float_checkpoint, tmp_path):
        config = dict(weight=dict(start=1, end=19), by='progress')
        hook = dict(type='mmqnet.TemperatureHook', **config)
        run = train(
            configs,
            tmp_path / 'run',
            load_from=float_checkpoint,
            default_hooks__temperature=dict(_delete_=True, **hook),
            train_cfg__max_epochs=1,
            train_cfg__val_interval=2,
        )
        weights = [next(iter(pair[0])) for pair in run.recorder.temperatures]
        assert weights == pytest.approx([1, 4, 7, 10, 13, 16])
        assert all(pair[0] == pair[1] for pair in run.recorder.temperatures)

    def test_slopes_that_would_overflow_at_the_end(self, configs, tmp_path):
        runner = make_runner(configs / 'quantized.py', tmp_path)
        runner.train_loop  # noqa: B018 -- builds it
        hook = TemperatureHook(weight=dict(slope=2e29))
        with pytest.raises(ValueError, match=r'temperature` should be at most 5e\+29 .*overflow'):
            hook.before_train(runner)

    def test_a_model_without_temperatures(self, configs, tmp_path):
        runner = make_runner(configs / 'quantized.py', tmp_path)
        for name, quantizer in quantizers_of(runner.model).items():
            parent, _, attribute = name.rpartition('.')
            other = WithoutTemperature(quantizer.config, quantizer.scale_shape)
            setattr(runner.model.get_submodule(parent), attribute, other)
        with pytest.raises(ValueError, match=r'no quantizer \(WithoutTemperature\) has a temp'):
            TemperatureHook(weight=dict(slope=1)).before_train(runner)

    def test_logged(self, whole):
        logged = [line for line in scalars(whole) if 'temperature_weight' in line]
        assert [line['temperature_weight'] for line in logged][:4] == [10, 10, 10, 20]
        assert logged[-1]['temperature_activation'] == 12


LEARNED, FIXED, FLOAT = {int(Mode.LEARNED)}, {int(Mode.FIXED)}, {int(Mode.FLOAT)}


class TestPhases:
    def test_each_third_has_its_own(self, whole):
        assert whole.recorder.modes == (
            [(LEARNED, FLOAT)] * 6 + [(FIXED, LEARNED)] * 6 + [(LEARNED, LEARNED)] * 6
        )

    def test_resumed(self, whole, resumed):
        assert resumed.recorder.modes == whole.recorder.modes[PER_EPOCH:]

    def parts(self, run):
        roles = parameter_roles(run.runner.model)
        of_weights = tuple(weight_quantizers(run.runner.model))
        return {
            'weights': {n for n, r in roles.items() if r == 'quantized'},
            'weight scales': {n for n in roles if n.startswith(of_weights)},
            'activation scales': {
                n for n, r in roles.items() if r == 'scale' and not n.startswith(of_weights)
            },
            'other': {n for n, r in roles.items() if r == 'other'},
        }

    @pytest.mark.parametrize(
        ('iterations', 'frozen'),
        [
            (range(6), ['activation scales']),
            (range(6, 12), ['weights', 'weight scales']),
            (range(12, 18), []),
        ],
    )
    def test_what_is_frozen_keeps_every_bit(self, whole, iterations, frozen):
        """With momentum from the phase before and a strong weight decay."""
        parts = self.parts(whole)
        changed = set().union(*(whole.recorder.changed[i] for i in iterations))
        for name, parameters in parts.items():
            if name in frozen:
                assert not changed & parameters, name
            else:
                # batch normalization cancels the output scales of the layer before it
                learn = {n for n in parameters if not n.endswith('.log_alpha')}
                assert len(changed & learn) > 0.9 * len(learn), name

    def test_adamw(self, configs, float_checkpoint, tmp_path):
        """Its decay is apart from the gradients, and its state counts steps."""
        run = train(
            configs,
            tmp_path / 'run',
            load_from=float_checkpoint,
            optim_wrapper__optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.5),
            train_cfg__val_interval=9,
        )
        parts = self.parts(run)
        changed = run.recorder.changed
        assert not set().union(*changed[:6]) & parts['activation scales']
        assert not set().union(*changed[6:12]) & (parts['weights'] | parts['weight scales'])
        assert set().union(*changed[12:]) > parts['weights']

    @pytest.mark.parametrize(
        ('model', 'phases', 'message'),
        [
            (dict(activation=None), ['weights', 'activations'], r"schedule\[1\].* 'activations'"),
            (dict(weight=None), ['activations', 'both', 'weights'], r"schedule\[2\].* 'weights'"),
            (None, ['both'], r"`PhaseHook\.schedule\[0\]\.phase` is 'both', but"),
        ],
    )
    def test_phases_without_quantizers(self, configs, tmp_path, model, phases, message):
        """A third of the training would go by with nothing to learn."""
        config = configs / ('float.py' if model is None else 'quantized.py')
        options = {f'model__quantization__{key}': value for key, value in (model or {}).items()}
        runner = make_runner(config, tmp_path / 'run', **options)
        schedule = [dict(begin=i / 9, phase=phase) for i, phase in enumerate(phases)]
        with pytest.raises(ValueError, match=f'{message}.* the model has no quantizers'):
            PhaseHook(schedule).before_train(runner)

    @pytest.mark.parametrize('kind', ['weight', 'activation'])
    def test_both_with_one_kind_only(self, configs, tmp_path, kind):
        runner = make_runner(
            configs / 'quantized.py', tmp_path / 'run', **{f'model__quantization__{kind}': None}
        )
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        PhaseHook([dict(begin=0, phase='both')]).before_train(runner)


class TestResume:
    def test_ends_with_the_same_bits(self, whole, resumed):
        assert len(resumed.recorder.changed) == STEPS - PER_EPOCH
        state = resumed.state
        for key, value in whole.state.items():
            assert torch.equal(value, state[key]), key

    def test_a_checkpoint_carries_mode_and_temperature(self, whole):
        saved = torch.load(whole.folder / 'epoch_2.pth', weights_only=False)['state_dict']
        modes = {key: int(value) for key, value in saved.items() if key.endswith('.mode')}
        weights = {m for key, m in modes.items() if 'weight_quantizer' in key}
        inputs = {m for key, m in modes.items() if 'input_quantizer' in key}
        assert weights == FIXED
        assert inputs == LEARNED
        temperatures = {float(v) for k, v in saved.items()
                        if k.endswith('weight_quantizer.temperature')}  # fmt: skip
        assert temperatures == {40.0}


class RandomState(Hook):
    """Notes the states of the random generators before or after calibration."""

    def __init__(self, priority):
        self.priority = priority

    def before_train(self, runner):
        self.state = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002


class TestCalibration:
    def test_once(self, whole):
        """Weights at the beginning, activations when their phase begins."""
        log = next(whole.folder.glob('*/*.log')).read_text()
        assert re.findall(r'Calibrated (\d+) quantizers', log) == ['19', '16']
        assert len(quantizers_of(whole.runner.model)) == 35

    def test_activations_on_the_weights_of_that_moment(self, configs, whole):
        runner = make_runner(configs / 'quantized.py', whole.folder.parent / 'by_hand')
        model = runner.model
        load_checkpoint(model, str(whole.folder / 'epoch_1.pth'))
        inputs = activation_quantizers(model)
        assert not any(quantizer.is_calibrated for quantizer in inputs.values())
        for quantizer in inputs.values():
            quantizer.set_mode(Mode.LEARNED)
        train = runner.build_dataloader(runner.cfg.train_dataloader)
        assert calibrate_on_samples(model, train, num_samples=4) == list(inputs)
        (expected,) = whole.recorder.calibrated
        for name, quantizer in quantizers_of(model).items():
            assert torch.equal(quantizer.beta, expected[name]), name

    def test_what_is_calibrated_already_is_left_when_resumed(self, resumed):
        log = next(resumed.folder.glob('*/*.log')).read_text()
        assert re.findall(r'Calibrated (\d+) quantizers', log) == ['16']

    def test_modes_of_a_checkpoint_from_a_phase_are_set_again(self, configs, whole, tmp_path):
        """`load_from` a training in its phase 'weights', by a config without phases."""
        checkpoint = str(whole.folder / 'epoch_1.pth')
        run = train(
            configs,
            tmp_path / 'run',
            load_from=checkpoint,
            default_hooks__phases=None,
            train_cfg__max_epochs=1,
            train_cfg__val_interval=2,
        )
        log = next(run.folder.glob('*/*.log')).read_text()
        assert 'Mode of the quantizers of activations: learned (was float)' in log
        assert set(run.recorder.modes[0][0] | run.recorder.modes[0][1]) == {int(Mode.LEARNED)}
        # batch normalization cancels the gradient of alpha
        learned = {n for n in parameter_roles(run.runner.model) if n.endswith('log_beta')}
        assert learned <= set.union(*run.recorder.changed)

    def test_random_state_and_order_of_samples_stay(self, configs, float_checkpoint, tmp_path):
        before, after = RandomState('HIGH'), RandomState('LOW')
        train(
            configs,
            tmp_path / 'run',
            before,
            after,
            load_from=float_checkpoint,
            train_cfg__max_epochs=1,
            train_cfg__val_interval=2,
        )
        assert torch.equal(before.state[0], after.state[0])
        assert before.state[1] == after.state[1]
        assert (before.state[2] == after.state[2]).all()

    @pytest.mark.parametrize(
        ('value', 'error'),
        [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ('1', TypeError)],
    )
    def test_wrong_number_of_samples(self, value, error):
        message = rf'`CalibrationHook\.num_samples` should be a positive integer, .* {value!r}'
        with pytest.raises(error, match=message):
            CalibrationHook(num_samples=value)

    @pytest.mark.parametrize('hook', [CalibrationHook, BatchNormReestimationHook])
    @pytest.mark.parametrize(
        ('seed', 'error'),
        [('x', TypeError), (None, TypeError), (-1, ValueError), (2**32, ValueError)],
    )
    def test_wrong_seed(self, hook, seed, error):
        message = rf'`{hook.__name__}\.seed` should be an integer from 0 to .* but got {seed!r}'
        with pytest.raises(error, match=message):
            hook(seed=seed)

    def test_float_weights_that_are_not_finite(self, configs, float_checkpoint, tmp_path):
        checkpoint = torch.load(float_checkpoint)
        checkpoint['state_dict']['backbone.layer1.0.conv1.weight'][0] = float('nan')
        torch.save(checkpoint, tmp_path / 'bad.pth')
        with pytest.raises(ValueError, match=r'`backbone\.layer1\.0\.conv1\.weight` are'):
            train(configs, tmp_path / 'run', load_from=str(tmp_path / 'bad.pth'))


class TestGap:
    def test_curve_is_in_the_log(self, whole):
        (line,) = (line for line in scalars(whole) if 'gap/coco/bbox_mAP' in line)
        soft, hard = line['gap/soft/coco/bbox_mAP'], line['gap/hard/coco/bbox_mAP']
        assert line['gap/coco/bbox_mAP'] == soft - hard
        assert line['step'] == 3

    def test_hard_is_what_validation_gives(self, configs, whole, tmp_path):
        """With as many samples as there are the hard evaluation is that of the validation."""
        runner = make_runner(
            configs / 'quantized.py',
            tmp_path / 'run',
            load_from=str(whole.folder / 'epoch_3.pth'),
            default_hooks__gap__num_samples=100,
            # no training set is needed to validate
            train_dataloader__dataset__dataset__ann_file='missing.json',
        )
        metrics = runner.val()
        (line,) = (
            x for x in scalars(Run(runner, None, tmp_path / 'run')) if 'gap/coco/bbox_mAP' in x
        )
        assert line['gap/hard/coco/bbox_mAP'] == metrics['coco/bbox_mAP']
        assert not any(
            quantizer.evaluate_soft for quantizer in quantizers_of(runner.model).values()
        )

    @pytest.mark.parametrize('averages', [False, True])
    def test_hard_is_what_a_training_validates(self, configs, float_checkpoint, tmp_path, averages):
        """An average with its batch statistics, in place of the weights that it is made of."""
        hooks = [dict(type='EMAHook', momentum=0.1)] if averages else []
        run = train(
            configs,
            tmp_path / 'run',
            load_from=float_checkpoint,
            default_hooks__gap__num_samples=100,
            default_hooks__batch_norm=dict(type='mmqnet.BatchNormReestimationHook', num_samples=4),
            custom_hooks=hooks,
            train_cfg__max_epochs=1,
            train_cfg__val_interval=1,
        )
        names = 'coco/bbox_mAP', 'gap/hard/coco/bbox_mAP'
        (validated,), (hard,) = (
            [line[name] for line in scalars(run) if name in line] for name in names
        )
        assert hard == validated

    def test_a_resumed_run_measures_at_the_same_moments(self, configs, whole, tmp_path):
        """At every second epoch: after the second, which is the first one of this run."""
        run = train(
            configs,
            tmp_path / 'run',
            load_from=str(whole.folder / 'epoch_1.pth'),
            resume=True,
            default_hooks__gap__interval=2,
            train_cfg__val_interval=1,
        )
        lines = [line for line in scalars(run) if 'coco/bbox_mAP' in line]
        assert [line['step'] for line in lines] == [2, 3]
        gaps = [line for line in scalars(run) if 'gap/coco/bbox_mAP' in line]
        assert [line['step'] for line in gaps] == [2]

    def wrapped(self, configs, kind):
        """The validation set in a wrapper, which takes no `indices`."""
        dataset = Config.fromfile(configs / 'quantized.py').val_dataloader.dataset
        if kind == 'ConcatDataset':
            parts = [dict(dataset, indices=[0, 1]), dict(dataset, indices=[2])]
            return dict(_delete_=True, type=kind, datasets=parts)
        more = dict(oversample_thr=1e-9) if kind == 'ClassBalancedDataset' else dict(times=1)
        return dict(_delete_=True, type=kind, dataset=dataset, **more)

    @pytest.mark.parametrize('kind', ['ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset'])
    def test_wrapped_data_sets(self, configs, whole, tmp_path, kind):
        runner = make_runner(
            configs / 'quantized.py',
            tmp_path / 'run',
            load_from=str(whole.folder / 'epoch_3.pth'),
            default_hooks__gap__num_samples=100,
            val_dataloader__dataset=self.wrapped(configs, kind),
        )
        metrics = runner.val()
        (line,) = (
            x for x in scalars(Run(runner, None, tmp_path / 'run')) if 'gap/coco/bbox_mAP' in x
        )
        assert line['gap/hard/coco/bbox_mAP'] == metrics['coco/bbox_mAP']
        part = PartialValidation(runner, num_samples=2)
        assert [d.img_id for b in part._loader for d in b['data_samples']] == [0, 1]

    @pytest.mark.parametrize('indices', [[2, 0, 1], -2])
    def test_the_users_choice_of_images(self, configs, tmp_path, indices):
        runner = make_runner(
            configs / 'quantized.py', tmp_path / 'run', val_dataloader__dataset__indices=indices
        )
        whole = [d.img_id for b in runner.val_dataloader for d in b['data_samples']]
        part = PartialValidation(runner, num_samples=2)
        assert [d.img_id for b in part._loader for d in b['data_samples']] == whole[:2]

    @pytest.mark.parametrize('blind', ['hard', 'soft'])
    def test_where_one_side_detects_nothing(self, configs, whole, tmp_path, blind, monkeypatch):
        """COCO's metric gives nothing then: it counts as 0, and the training goes on."""
        runner = make_runner(
            configs / 'quantized.py',
            tmp_path / 'run',
            load_from=str(whole.folder / 'epoch_3.pth'),
        )
        runner.load_or_resume()
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, SoftHardGapHook))
        threshold = runner.model.bbox_head.test_cfg
        validate = PartialValidation.__call__

        def with_threshold(self, model):
            soft = next(iter(quantizers_of(model).values())).evaluate_soft
            threshold.score_thr = 1.0 if (blind == 'soft') == soft else -1.0
            return validate(self, model)

        monkeypatch.setattr(PartialValidation, '__call__', with_threshold)
        hook.after_val_epoch(runner)
        sides = {kind: hook._last[f'gap/{kind}/coco/bbox_mAP'] for kind in ('hard', 'soft')}
        assert sides[blind] == 0
        assert f'gap/{blind}/coco/bbox_mAP_50' in hook._last

    def test_metrics_of_each_data_set_are_refused_at_the_start(self, configs, tmp_path):
        metric = Config.fromfile(configs / 'quantized.py').val_evaluator
        evaluator = dict(
            _delete_=True,
            type='MultiDatasetsEvaluator',
            metrics=[metric, metric],
            dataset_prefixes=['a', 'b'],
        )
        runner = make_runner(configs / 'quantized.py', tmp_path / 'run', val_evaluator=evaluator)
        message = r"`val_dataloader\.dataset`.*'MultiDatasetsEvaluator'.*`default_hooks\.gap=None`"
        with pytest.raises(ValueError, match=message):
            SoftHardGapHook().before_train(runner)

    @pytest.mark.parametrize('argument', ['interval', 'num_samples'])
    def test_mistakes(self, argument):
        with pytest.raises(ValueError, match=rf'`SoftHardGapHook\.{argument}` .* but got 0'):
            SoftHardGapHook(**{argument: 0})


class FreshWeights(Hook):
    """Compares the model in a validation with one that has nothing kept from before."""

    priority = 'LOWEST'

    def __init__(self):
        self.swapped, self.stale = [], []

    def before_val_epoch(self, runner):
        self.first = None

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(batch_idx))
        with torch.no_grad():
            out = runner.model.backbone(x)[-1]
            self.stale.append(not torch.equal(out, copy.deepcopy(runner.model).backbone(x)[-1]))
        averages = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
        self.swapped.append(
            not torch.equal(
                averages.backbone.layer4[0].conv1.weight,
                runner.model.backbone.layer4[0].conv1.weight,
            )
        )


class Log(Hook):
    """Keeps the lines of the log, from the first hook of a training to the last."""

    def __init__(self):
        self.handler = logging.Handler(logging.INFO)
        self.lines = []
        self.handler.emit = lambda record: self.lines.append(record.getMessage())

    def before_run(self, runner):
        runner.logger.addHandler(self.handler)

    def after_run(self, runner):
        runner.logger.removeHandler(self.handler)


@pytest.fixture(scope='module')
def short(configs, float_checkpoint, tmp_path_factory):
    """A training of one epoch by a schedule of epochs, whose gap is wide by decree."""
    log = Log()
    folder = tmp_path_factory.mktemp('short') / 'run'
    run = train(
        configs, folder, log, load_from=float_checkpoint, train_cfg__max_epochs=1,
        train_cfg__val_interval=1, default_hooks__phases=None,
        default_hooks__scales=dict(type='mmqnet.ScaleLogHook'),
        default_hooks__gap=dict(type=WideGap, num_samples=2),
    )  # fmt: skip
    return run, log.lines


class WideGap(SoftHardGapHook):
    """Evaluates as its parent does, and makes the hard functions worse."""

    def _get_validation(self, runner):
        validate = super()._get_validation(runner)

        class Decreed:
            num_samples, has_coco = validate.num_samples, validate.has_coco

            def __call__(self, model):
                validate(model)
                is_soft = any(q.evaluate_soft for q in quantizers_of(model).values())
                return {'coco/bbox_mAP': 0.5 if is_soft else 0.3}

        return Decreed()


class TestShortTraining:
    def test_scales_of_the_first_and_the_last_iteration(self, short):
        lines = [
            line for line in scalars(short[0]) if any(key.startswith('alpha/') for key in line)
        ]
        assert [line['step'] for line in lines] == [1, 6]

    def test_tables_of_the_gap_say_whose_they_are(self, short):
        expected = [f'Soft/hard gap: the {kind} functions on the first 2 images'
                    for kind in ('hard', 'soft')]  # fmt: skip
        assert [line for line in short[1] if line.startswith('Soft/hard gap')] == expected

    def test_far_from_the_staircase(self, short):
        gap, temperature = (line for line in short[1] if 'far from the staircase' in line)
        assert re.match(
            r'The training ends at T = 20, .*soft and hard weights differ by \d%', temperature
        )
        assert 'coco/bbox_mAP is 0.3 with hard functions, with which the' in gap
        assert 'and 0.5 with soft ones' in gap

    def test_near_the_staircase(self, configs, float_checkpoint, tmp_path):
        log = Log()
        train(
            configs, tmp_path / 'run', log, load_from=float_checkpoint, train_cfg__max_epochs=1,
            default_hooks__phases=None, default_hooks__gap=None,
            default_hooks__temperature=dict(
                _delete_=True, type='mmqnet.TemperatureHook', by='progress',
                weight=dict(start=10, end=200)),
        )  # fmt: skip
        assert not [line for line in log.lines if 'far from the staircase' in line]


class TestEMA:
    """With `update_buffers=True`, as YOLOX and RTMDet have it."""

    @pytest.fixture(scope='class')
    def run(self, configs, float_checkpoint, tmp_path_factory):
        check = FreshWeights()
        ema = dict(type='EMAHook', momentum=0.1, update_buffers=True)
        config = Config.fromfile(configs / 'quantized.py')
        run = train(
            configs,
            tmp_path_factory.mktemp('ema') / 'run',
            check,
            load_from=float_checkpoint,
            custom_hooks=[*config.custom_hooks, ema],
            train_cfg__val_interval=1,
        )
        run.check = check
        return run

    def test_validation_is_never_stale(self, run):
        assert len(run.check.stale) == 3 * 2
        assert not any(run.check.stale)
        assert all(run.check.swapped)

    def test_the_saved_average_quantizes_as_the_model_does(self, run):
        saved = torch.load(run.folder / 'epoch_3.pth', weights_only=False)['state_dict']
        for key, value in run.state.items():
            if key.endswith(('.mode', '.enabled', '.calibrated', '.levels', '.temperature')):
                assert torch.equal(saved[key], value), key
        key = 'backbone.layer4.0.conv1.weight'
        assert not torch.equal(saved[key], run.state[key])


class TestConfigs:
    def test_temperature(self):
        with pytest.raises(ValueError, match=r"`TemperatureHook\.activation` .*'slpe'"):
            TemperatureHook(weight=dict(slope=1), activation=dict(slpe=1))

    def test_phases(self):
        with pytest.raises(ValueError, match=r"`PhaseHook\.schedule\[0\]\.phase` .*'weight'"):
            PhaseHook([dict(begin=0, phase='weight')])

    def test_checkpoint(self):
        with pytest.raises(ValueError, match=r"`CheckpointHook` has the unknown key 'max_keep'"):
            CheckpointHook(max_keep=3)

    def test_temperature_by_a_list(self):
        message = r"`by` should be 'epoch' or .* got \['epoch'\]"
        with pytest.raises(ValueError, match=message):
            TemperatureHook(weight=dict(slope=1), by=['epoch'])
