"""CalibrationHook(match_outputs=True) in real trainings; the toy detector's neck has biases."""

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from toy_data import make_runner

from mmqnet.calibration import calibrate_on_samples, match_on_samples
from mmqnet.engine.hooks import CalibrationHook
from mmqnet.quantizers import quantizers_of

EMA = dict(type='EMAHook', momentum=0.3)


class Start(Hook):
    """Keeps what the first iteration starts from, of the model and of its average."""

    priority = 'LOWEST'

    def before_train(self, runner):
        models = [runner.model]
        models += [h.ema_model.module for h in runner.hooks if isinstance(h, EMAHook)]
        self.states = [{k: v.clone() for k, v in m.state_dict().items()} for m in models]


def train(configs, folder, checkpoint, match=True, **options):
    settings = dict(
        load_from=checkpoint,
        model__quantization__include=['neck'],
        default_hooks__calibration__match_outputs=match,
        default_hooks__phases=None,
        default_hooks__gap=None,
        train_cfg__max_epochs=2,
        train_cfg__val_interval=9,
        **options,
    )
    runner = make_runner(configs / 'quantized.py', folder, **settings)
    runner.start = Start()
    runner.register_hook(runner.start)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def whole(configs, float_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp('matched') / 'whole'
    return train(configs, folder, float_checkpoint, custom_hooks=[EMA])


def final_state(runner):
    return torch.load(f'{runner.work_dir}/epoch_2.pth', weights_only=False)['state_dict']


def test_it_starts_with_the_outputs_matched(whole, configs, float_checkpoint):
    model = whole.model
    model.load_state_dict(torch.load(float_checkpoint)['state_dict'])
    for quantizer in quantizers_of(model).values():
        quantizer.calibrated.fill_(False)
        quantizer.refresh()
    names = calibrate_on_samples(model, whole.train_dataloader, 4)
    matched = match_on_samples(model, whole.train_dataloader, names, 4)
    assert matched == [f'neck.extra_layers.0.{i}.conv' for i in (0, 1)]
    given = torch.load(float_checkpoint)['state_dict']
    for key, value in model.state_dict().items():
        assert torch.equal(value, whole.start.states[0][key]) or key.endswith('temperature'), key
    changed = {k for k, v in given.items() if not torch.equal(v, whole.start.states[0][k])}
    assert changed == {f'{name}.{key}' for name in matched for key in ('weight', 'bias')}


def test_the_average_starts_with_the_same(whole):
    model, average = whole.start.states
    assert all(torch.equal(value, average[key]) for key, value in model.items())


def test_a_resumed_training_ends_with_the_same_bits(whole, configs, tmp_path):
    checkpoint = f'{whole.work_dir}/epoch_1.pth'
    resumed = train(configs, tmp_path / 'resumed', checkpoint, resume=True, custom_hooks=[EMA])
    expected = final_state(whole)
    assert all(torch.equal(value, expected[k]) for k, value in final_state(resumed).items())


def test_it_is_off_by_default(configs, float_checkpoint, tmp_path):
    given = torch.load(float_checkpoint)['state_dict']
    runner = train(configs, tmp_path / 'run', float_checkpoint, match=False)
    assert all(torch.equal(value, runner.start.states[0][k]) for k, value in given.items())


def test_a_model_without_such_layers_is_refused_at_the_start(configs, float_checkpoint, tmp_path):
    include = dict(model__quantization__include=['backbone'])
    hook = dict(default_hooks__calibration__match_outputs=True)
    runner = make_runner(
        configs / 'quantized.py', tmp_path / 'run', load_from=float_checkpoint, **include, **hook
    )
    with pytest.raises(ValueError, match=r'no quantized layer of \w+ has a bias'):
        runner.train()


def test_wrong_type():
    message = r'`CalibrationHook\.match_outputs` should be True or False, .*1'
    with pytest.raises(TypeError, match=message):
        CalibrationHook(match_outputs=1)
