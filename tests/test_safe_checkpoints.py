"""What may be in a checkpoint, and how others are refused; on both stacks."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import load_checkpoint, save_checkpoint

from mmqnet import safe_checkpoints
from mmqnet.models import read_checkpoint
from mmqnet.safe_checkpoints import checkpoint_classes, safe_loading

NEEDS_SAFE_GLOBALS = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='torch before 2.5'
)


class Hostile:
    """Makes a folder where it is loaded with full pickle."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture(params=[True, False], ids=['zip', 'before torch 1.6'])
def hostile(request, tmp_path):
    """Path of a checkpoint that makes the folder `ran` beside it."""
    path = tmp_path / 'hostile.pth'
    content = dict(state_dict=dict(weight=torch.zeros(2)), meta=Hostile(tmp_path / 'ran'))
    torch.save(content, path, _use_new_zipfile_serialization=request.param)
    return path


def checkpoint_of_everything():
    hub = MessageHub.get_instance('everything')
    hub.update_scalar('train/loss', 0.5)
    hub.update_info('best', np.float64(0.25))
    hub.update_info('single', np.float32(0.25))
    hub.update_info('count', np.int64(3))
    hub.update_info('mask', np.array([True, False]))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedules = [
        OneCycleLR(optimizer, eta_max=0.1, total_steps=9, anneal_strategy=kind).state_dict()
        for kind in ('cos', 'linear')
    ]
    return dict(
        message_hub=hub.state_dict(), param_schedulers=schedules, state_dict={}, meta=dict(epoch=1)
    )


@pytest.mark.parametrize('strict', [True, False], ids=['tools', 'stock'])
def test_checkpoint_with_numpy_numbers_and_schedules_loads_silently(tmp_path, strict, capsys):
    path = str(tmp_path / 'checkpoint.pth')
    save_checkpoint(checkpoint_of_everything(), path)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        if strict:
            with safe_loading():
                loaded = load_checkpoint(torch.nn.Module(), path)
        else:
            loaded = load_checkpoint(torch.nn.Module(), path)
    hub = loaded['message_hub']
    assert [schedule['anneal_func'] for schedule in loaded['param_schedulers']] == [
        OneCycleParamScheduler._annealing_cos,
        OneCycleParamScheduler._annealing_linear,
    ]
    assert hub['runtime_info']['best'] == 0.25
    assert hub['log_scalars']['train/loss'].current() == 0.5
    printed = ''.join(capsys.readouterr())
    assert 'safely' not in printed
    assert printed.count('\n') <= 1


@NEEDS_SAFE_GLOBALS
def test_allowed_classes_are_enough_and_needed(tmp_path):
    """With the check on, whichever MMEngine is installed."""
    path = tmp_path / 'checkpoint.pth'
    torch.save(checkpoint_of_everything(), path)
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(Exception, match='HistoryBuffer'):
            torch.load(path, weights_only=True)
        with torch.serialization.safe_globals(checkpoint_classes()):
            loaded = torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(before)
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 0.5


def test_code_in_a_checkpoint_does_not_run(hostile, capsys):
    message = r"hostile\.pth' holds 'posix\.mkdir', more than weights.*add --trust-checkpoint"
    for read in (read_checkpoint, lambda path: load_checkpoint(torch.nn.Module(), path)):
        with safe_loading(), pytest.raises(ValueError, match=message) as error:
            read(str(hostile))
        assert '\n' not in str(error.value)
    assert not (hostile.parent / 'ran').exists()
    assert 'Falling back' not in ''.join(capsys.readouterr())


def test_code_in_a_downloaded_checkpoint_does_not_run(hostile, tmp_path, monkeypatch):
    """MMEngine downloads with torch.hub, which asks for full pickle."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    with safe_loading(), pytest.raises(pickle.UnpicklingError, match='mkdir'):
        torch.hub.load_state_dict_from_url(hostile.as_uri(), file_name='hostile.pth')
    assert not (tmp_path / 'ran').exists()


def test_a_trusted_checkpoint_is_loaded_whole(hostile):
    with safe_loading(trust=True):
        assert read_checkpoint(str(hostile))['state_dict']['weight'].shape == (2,)
    assert (hostile.parent / 'ran').is_dir()


def test_the_choice_ends_with_its_block(monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'yes')
    before = dict(os.environ)
    with safe_loading():
        assert 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ
        with safe_loading(trust=True):
            assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ
    assert dict(os.environ) == before


@NEEDS_SAFE_GLOBALS
def test_hostile_function_of_a_saved_class_is_refused(tmp_path):
    class Reaching:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    path = tmp_path / 'hostile.pth'
    torch.save(dict(value=Reaching()), path)
    with safe_loading(), pytest.raises(ValueError, match='should not ask for'):
        read_checkpoint(str(path))


@pytest.mark.parametrize(
    ('owner', 'name'),
    [
        (HistoryBuffer, '__class__'),
        (HistoryBuffer, 'nothing'),
        (OneCycleParamScheduler, 'step'),
        (torch, 'load'),
        (dict, 'get'),
    ],
)
def test_stand_in_for_getattr_gives_what_checkpoints_hold_only(owner, name):
    assert safe_checkpoints._saved_function(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(TypeError, match='should not ask'):
        safe_checkpoints._saved_function(owner, name)
