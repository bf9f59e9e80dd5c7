"""Batch statistics in real trainings: by epochs, resumed, and by iterations with averaged weights.

The toy training has 6 iterations an epoch; its backbone's batch normalization learns. Its layers
share their functions, which must not be in the way of resuming and averaging either.
"""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from toy_data import make_runner

from mmqnet.calibration import reestimate_on_samples
from mmqnet.engine.hooks import BatchNormReestimationHook

STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


class Validated(Hook):
    """Keeps the state that each validation has seen."""

    priority = 'LOWEST'

    def __init__(self):
        self.states = []

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            self.states.append({k: v.clone() for k, v in runner.model.state_dict().items()})


def train(configs, folder, checkpoint, reestimate=True, **options):
    hook = dict(type='mmqnet.BatchNormReestimationHook', num_samples=5)
    options = dict(
        load_from=checkpoint,
        default_hooks__gap__interval=99,
        model__quantization__weight__granularity='model',
        model__quantization__activation__granularity='model',
        **options,
    )
    if reestimate:
        options['default_hooks__batch_norm'] = hook
    runner = make_runner(configs / 'quantized.py', folder, **options)
    runner.validated = Validated()
    runner.register_hook(runner.validated)
    runner.train()
    return runner


def saved(path):
    return torch.load(path, weights_only=False)['state_dict']


def check_statistics(runner, state):
    """They are those of the weights beside them, computed anew."""
    runner.model.load_state_dict(state)
    names = reestimate_on_samples(runner.model, runner.train_dataloader, 5)
    assert len(names) == 20
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, state[key]), key


BY_EPOCHS = dict(train_cfg__max_epochs=2, train_cfg__val_interval=1)


@pytest.fixture(scope='module')
def whole(configs, float_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp('statistics') / 'whole'
    return train(configs, folder, float_checkpoint, **BY_EPOCHS)


def state_after(runner, name):
    return saved(f'{runner.work_dir}/{name}.pth')


def test_checkpoints_and_validations_have_the_statistics_of_their_weights(whole):
    states = [state_after(whole, f'epoch_{i}') for i in (1, 2)]
    for state, validated in zip(states, whole.validated.states, strict=True):
        assert all(torch.equal(value, validated[key]) for key, value in state.items())
        check_statistics(whole, state)


def test_resumed_trainings_end_with_the_same_bits(whole, configs, tmp_path):
    checkpoint = f'{whole.work_dir}/epoch_1.pth'
    resumed = train(configs, tmp_path / 'resumed', checkpoint, resume=True, **BY_EPOCHS)
    expected = state_after(whole, 'epoch_2')
    for key, value in state_after(resumed, 'epoch_2').items():
        assert torch.equal(value, expected[key]), key


def test_the_weights_learn_as_without(whole, configs, float_checkpoint, tmp_path):
    options = BY_EPOCHS | dict(train_cfg__val_interval=2)
    plain = train(configs, tmp_path / 'plain', float_checkpoint, reestimate=False, **options)
    expected = state_after(plain, 'epoch_2')
    different = set()
    for key, value in state_after(whole, 'epoch_2').items():
        if not torch.equal(value, expected[key]):
            different.add(key.rpartition('.')[2])
    assert different == {'running_mean', 'running_var'}


@pytest.mark.parametrize('update_buffers', [False, True])
def test_by_iterations_with_averaged_weights(configs, float_checkpoint, tmp_path, update_buffers):
    """The average is what is validated and saved."""
    ema = dict(type='EMAHook', momentum=0.3, update_buffers=update_buffers)
    custom = Config.fromfile(configs / 'quantized.py').custom_hooks
    runner = train(
        configs,
        tmp_path / 'run',
        float_checkpoint,
        custom_hooks=[*custom, ema],
        train_cfg=dict(_delete_=True, by_epoch=False, max_iters=5, val_interval=2),
        default_hooks__checkpoint=dict(by_epoch=False, interval=2),
    )
    states = [state_after(runner, f'iter_{i}') for i in (2, 4, 5)]
    for state, validated in zip(states, runner.validated.states, strict=True):
        for key, value in state.items():
            if not key.endswith('num_batches_tracked'):  # EMAHook swaps it, or not
                assert torch.equal(value, validated[key]), key
        check_statistics(runner, state)


def test_frozen_statistics_are_refused_at_the_start(configs, float_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r'all 20 batch normalizations .*`norm_eval=False`'):
        train(configs, tmp_path / 'run', float_checkpoint, model__backbone__norm_eval=True)


@pytest.mark.parametrize(('value', 'error'), [(0, ValueError), (2.5, TypeError), (True, TypeError)])
def test_wrong_number_of_samples(value, error):
    message = r'`BatchNormReestimationHook\.num_samples` should be a positive integer, but got'
    with pytest.raises(error, match=message):
        BatchNormReestimationHook(num_samples=value)
