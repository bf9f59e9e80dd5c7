"""Wrong, missing and partial checkpoints, before the first iteration of a small SSD."""

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from toy_data import make_runner
from toy_models import calibrated

from mmqnet.command_line import build_runner
from mmqnet.engine.hooks import CheckpointCheckHook


class StopError(Exception):
    """Raised where the first iteration would be."""


class StopAtFirstIteration(Hook):
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise StopError

    before_test_iter = before_train_iter


def build(config):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(copy.deepcopy(config))


@pytest.fixture(scope='module')
def files(configs, float_checkpoint, tmp_path_factory):
    """Checkpoints, right and wrong, by name."""
    folder = tmp_path_factory.mktemp('checkpoints')
    floating = torch.load(float_checkpoint)['state_dict']
    quantized = Config.fromfile(configs / 'quantized.py').model
    trained = calibrated(build(quantized), torch.rand(2, 3, 64, 64)).state_dict()
    more_classes = Config.fromfile(configs / 'float.py').model
    more_classes.bbox_head.num_classes = 7
    whole = Path(float_checkpoint).read_bytes()
    states = dict(
        float=floating,
        quantized=trained,
        bare=floating,
        parallel={f'module.{key}': value for key, value in floating.items()},
        backbone={k: v for k, v in floating.items() if k.startswith('backbone.')},
        classes=build(more_classes).state_dict(),
        other={f'student.{key}': value for key, value in floating.items()},
        wide={k: torch.cat([v, v]) for k, v in floating.items() if v.dim()},
        empty={},
    )
    for name, state in states.items():
        torch.save(state if name == 'bare' else dict(state_dict=state), folder / f'{name}.pth')
    torch.save(dict(meta=dict(epoch=1)), folder / 'meta.pth')
    torch.save(torch.zeros(3), folder / 'tensor.pth')
    (folder / 'truncated.pth').write_bytes(whole[: len(whole) // 2])
    (folder / 'text.pth').write_text('epoch = 1\n')
    (folder / 'nothing.pth').write_bytes(b'')
    (folder / 'pickle.pth').write_bytes(pickle.dumps([1, 2]))
    # the format of torch before 1.6, which checkpoints of the model zoos still have
    torch.save(dict(state_dict=floating), folder / 'old.pth', _use_new_zipfile_serialization=False)
    old = (folder / 'old.pth').read_bytes()
    (folder / 'old-truncated.pth').write_bytes(old[: len(old) // 2])
    return folder


def start(config, folder, path, test=False, **options):
    """Run until the first iteration, and return the log."""
    runner = make_runner(config, folder, load_from=str(path), **options)
    for hook in (CheckpointCheckHook(), StopAtFirstIteration()):
        runner.register_hook(hook)
    with pytest.raises(StopError):
        runner.test() if test else runner.train()
    return next(folder.glob('*/*.log')).read_text()


def refused(config, folder, path, message, error=ValueError, **options):
    with pytest.raises(error, match=f'(?s){re.escape(str(path))}.*{message}') as caught:
        start(config, folder, path, **options)
    assert caught.type is error
    return str(caught.value)


WRONG_FILES = {
    'truncated': 'is truncated: its end is missing',
    'old-truncated': 'cannot be read as a checkpoint: ',
    'text': 'cannot be read as a checkpoint: ',
    'nothing': 'cannot be read as a checkpoint: EOFError',
    'pickle': 'cannot be read as a checkpoint|is no checkpoint: it holds a list',
    'tensor': 'is no checkpoint: it holds a Tensor in place of named weights',
    'meta': r'holds no `backbone\..* is it of another model\? Its keys are `meta`',
    'empty': r'holds no `backbone\..* is it of another model\? It is empty',
    'other': r'holds no `backbone\..* is it of another model\? Its keys are `student\.',
}


@pytest.mark.parametrize('name', WRONG_FILES)
def test_wrong_files(configs, files, tmp_path, name):
    refused(configs / 'float.py', tmp_path / 'r', files / f'{name}.pth', WRONG_FILES[name])


@pytest.mark.parametrize('name', ['truncated', 'text', 'other'])
def test_wrong_files_in_a_test(configs, files, tmp_path, name):
    path = files / f'{name}.pth'
    refused(configs / 'float.py', tmp_path / 'r', path, WRONG_FILES[name], test=True)


@pytest.mark.parametrize('name', ['truncated', 'text', 'other'])
def test_wrong_files_in_a_quantized_training(configs, files, tmp_path, name):
    path = files / f'{name}.pth'
    refused(configs / 'quantized.py', tmp_path / 'r', path, WRONG_FILES[name])


def test_weights_of_another_width(configs, files, tmp_path):
    """All keys match, but no shape."""
    with pytest.raises(ValueError, match=r'`backbone\.conv1\.weight` should be .* no other weight'):
        start(configs / 'float.py', tmp_path / 'r', files / 'wide.pth')


def test_wrong_files_to_resume_from(configs, files, tmp_path):
    path = files / 'truncated.pth'
    refused(configs / 'float.py', tmp_path / 'r', path, 'is truncated', resume=True)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(meta=None), '`meta` .* should hold `epoch` and `iter`'),
        (dict(meta=dict(epoch=1, iter=-1)), '`meta` .* should hold `epoch` and `iter`'),
        (dict(message_hub=[]), 'should hold the `message_hub` of a training'),
        (
            dict(optimizer=dict(state={0: 1.0})),
            '`optimizer` .* should be the state of an optimizer',
        ),
    ],
)
def test_a_training_cannot_resume_from_a_part(configs, files, tmp_path, changes, message):
    saved = torch.load(files / 'float.pth')
    whole = dict(meta=dict(epoch=1, iter=6), message_hub=dict(resumed_keys={}), optimizer={})
    torch.save({**saved, **whole, **changes}, tmp_path / 'part.pth')
    runner = make_runner(
        configs / 'float.py', tmp_path / 'r', load_from=str(tmp_path / 'part.pth'), resume=True
    )
    runner.register_hook(CheckpointCheckHook())
    with pytest.raises(ValueError, match=message):
        runner.train()


def test_entries_that_are_no_tensors(configs, files, tmp_path):
    saved = torch.load(files / 'float.pth')
    saved['state_dict']['backbone.conv1.weight'] = 'text'
    torch.save(saved, tmp_path / 'text.pth')
    message = r'`backbone\.conv1\.weight` should be a tensor, but is of the type str'
    with pytest.raises(ValueError, match=message):
        start(configs / 'float.py', tmp_path / 'r', tmp_path / 'text.pth')


def test_the_latest_of_an_interrupted_run(configs, files, tmp_path):
    """As MMDetection's own `--resume`, which leaves the search to the runner."""
    (tmp_path / 'last_checkpoint').write_text(str(files / 'truncated.pth'))
    runner = make_runner(configs / 'float.py', tmp_path, resume=True)
    runner.register_hook(CheckpointCheckHook())
    with pytest.raises(ValueError, match=r'truncated\.pth. is truncated'):
        runner.train()


def test_a_file_that_does_not_exist(configs, tmp_path):
    refused(
        configs / 'float.py', tmp_path / 'r', tmp_path / 'no.pth', 'not exist', FileNotFoundError
    )


@pytest.mark.parametrize('name', ['float', 'bare', 'parallel', 'old'])
@pytest.mark.parametrize('config', ['float', 'quantized'])
def test_right_files(configs, files, tmp_path, name, config):
    log = start(configs / f'{config}.py', tmp_path / 'r', files / f'{name}.pth')
    assert 'holds a part of the model' not in log


def test_a_quantized_checkpoint_goes_on_in_its_config(configs, files, tmp_path):
    log = start(configs / 'quantized.py', tmp_path / 'r', files / 'quantized.pth')
    assert 'holds a part of the model' not in log


@pytest.mark.parametrize('test', [False, True], ids=['train', 'test'])
def test_a_quantized_checkpoint_in_a_float_config(configs, files, tmp_path, test):
    """Only our command lines can see this: they register the hook for such a config."""
    config = Config.fromfile(configs / 'float.py')
    config.merge_from_dict(
        dict(work_dir=str(tmp_path), launcher='none', load_from=str(files / 'quantized.pth'))
    )
    runner = build_runner(config)
    message = (
        r'quantized\.pth. is of a quantized model and holds `backbone\.\S+_quantizer`, .* and \d+ '
        'others, but the model of the config is a float one'
    )
    with pytest.raises(ValueError, match=message):
        runner.test() if test else runner.train()


@pytest.mark.parametrize('kind', ['activation', 'weight'])
def test_a_checkpoint_with_more_quantizers_than_the_config(configs, files, tmp_path, kind):
    """Such as w3-a8 for w3-a32."""
    options = {f'model__quantization__{kind}': None, 'default_hooks__phases': None}
    name = dict(activation='input', weight='weight')[kind]
    message = rf'holds `backbone\.\S+\.{name}_quantizer`.* has no such quantizers: .* float model'
    refused(configs / 'quantized.py', tmp_path / 'r', files / 'quantized.pth', message, **options)


@pytest.mark.parametrize(
    ('name', 'parts'),
    [
        ('backbone', r'\d+ missing \(`neck\.'),
        ('classes', r'6 of another shape \(`bbox_head\.cls_convs\.'),
    ],
)
def test_a_part_of_the_model_is_warned_of_in_one_line(configs, files, tmp_path, name, parts):
    log = start(configs / 'float.py', tmp_path / 'r', files / f'{name}.pth')
    (line,) = (line for line in log.splitlines() if 'holds a part of the model' in line)
    assert 'WARNING' in line
    assert f'{name}.pth' in line
    assert re.search(parts, line)


class TestRandomWeights:
    def warnings(self, configs, folder, **options):
        runner = make_runner(configs / 'quantized.py', folder, **options)
        runner.register_hook(StopAtFirstIteration())
        with pytest.raises(StopError):
            runner.train()
        return next(folder.glob('*/*.log')).read_text().count('calibrated on random weights')

    def test_neither_loaded_nor_resumed(self, configs, tmp_path):
        assert self.warnings(configs, tmp_path / 'r') == 1

    def test_meant(self, configs, tmp_path):
        options = dict(default_hooks__calibration__from_scratch=True)
        assert self.warnings(configs, tmp_path / 'r', **options) == 0

    def test_loaded(self, configs, tmp_path, float_checkpoint):
        assert self.warnings(configs, tmp_path / 'r', load_from=float_checkpoint) == 0

    def test_nothing_to_resume(self, configs, tmp_path):
        assert self.warnings(configs, tmp_path / 'r', resume=True) == 1

    @pytest.mark.parametrize('part', ['backbone', 'whole'])
    def test_pretrained(self, configs, tmp_path, files, part):
        trained = dict(type='Pretrained', checkpoint=str(files / 'float.pth'))
        if part == 'backbone':
            options = dict(model__backbone__init_cfg=dict(**trained, prefix='backbone'))
        else:
            options = dict(model__init_cfg=trained)
        assert self.warnings(configs, tmp_path / 'r', **options) == 0
