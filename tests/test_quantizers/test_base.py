"""The contract, with the quantizer that the documentation shows: the very code of its page."""

import copy
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn
from toy_data import make_configs, make_data, write_float_checkpoint

from mmqnet.calibration import calibrate
from mmqnet.export.onnx import count_integer_layers, export_onnx
from mmqnet.export.verify import compare_codes
from mmqnet.layers import QuantConv2d
from mmqnet.models import QuantizationConfig, convert
from mmqnet.quantizers import (
    HasTemperature,
    Mode,
    Quantizer,
    Sample,
    build_quantizer,
    quantizer_config,
    quantizers_of,
)
from mmqnet.registry import QUANTIZERS

MODULE = 'quantizers_of_the_documentation'


@pytest.fixture(scope='module')
def page(root, tmp_path_factory):
    """The blocks of the page, and the folder of the module with the quantizer."""
    text = (root / 'docs/custom_quantizer.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)
    folder = tmp_path_factory.mktemp('documentation')
    (folder / f'{MODULE}.py').write_text(blocks[0])
    sys.path.insert(0, str(folder))
    yield SimpleNamespace(code=blocks[0], config=blocks[1], folder=folder)
    sys.path.remove(str(folder))
    QUANTIZERS.module_dict.pop('LearnedStep', None)


@pytest.fixture(scope='module')
def learned_step(page):
    __import__(MODULE)
    return sys.modules[MODULE].LearnedStep


def build(learned_step, role='weight', scale_shape=(), **config):
    settings = dict(type='LearnedStep', levels='int4' if role == 'weight' else 'uint4') | config
    return build_quantizer(quantizer_config(settings, role, role), scale_shape)


def test_the_example_is_short(page):
    assert len(page.code.splitlines()) < 40


class TestQuantizer:
    @pytest.mark.parametrize('per_channel', [False, True])
    def test_fits_learns_and_evaluates(self, learned_step, per_channel):
        granularity = 'channel' if per_channel else 'layer'
        conv = QuantConv2d(
            3, 4, 3,
            weight_quantizer=dict(type='LearnedStep', levels='int4', granularity=granularity),
            input_quantizer=dict(type=learned_step, levels='uint4'),
        )  # fmt: skip
        x = torch.rand(2, 3, 8, 8)
        assert len(calibrate(conv, [x], conv)) == 2
        assert conv.weight_quantizer.log_step.numel() == (4 if per_channel else 1)
        conv(x).square().sum().backward()
        for name, parameter in conv.named_parameters():
            assert parameter.grad.isfinite().all(), name
        soft, hard = conv(x), conv.eval()(x)
        torch.testing.assert_close(soft, hard)  # it rounds in training too

    def test_it_exports_and_runs_in_integers(self, learned_step, tmp_path):
        weight, activation = (dict(type='LearnedStep', levels=x) for x in ('int4', 'uint4'))
        quantizers = dict(weight_quantizer=weight, input_quantizer=activation)
        model = nn.Sequential(
            QuantConv2d(3, 4, 3, **quantizers), nn.ReLU(), QuantConv2d(4, 4, 3, **quantizers)
        )
        x, path = torch.rand(2, 3, 12, 12), tmp_path / 'model.onnx'
        calibrate(model, [x], model)
        export_onnx(model.eval(), [x], path, output_names=['output'])
        first, second = count_integer_layers(path, openvino=False)
        assert first.onnxruntime
        assert not second.onnxruntime  # its output is float
        for found in compare_codes(path, model, [(x,)]):
            assert found.equal_but_ties >= 0.995

    @given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50))
    def test_codes_and_output_follow_from_the_staircase(self, learned_step, values):
        quantizer, x = build(learned_step), torch.tensor(values)
        calibrate_by_hand(quantizer, x)
        staircase = quantizer.eval().staircase(x)
        codes = quantizer.codes(x)
        assert torch.equal(quantizer(x), staircase.quantize(x))
        assert torch.equal(quantizer(x), staircase.alpha * staircase.levels[codes.long()])

    def test_modes(self, learned_step):
        quantizer, x = build(learned_step), torch.randn(64, requires_grad=True)
        with pytest.raises(RuntimeError, match='not been calibrated'):
            quantizer(x)
        calibrate_by_hand(quantizer, x)
        quantizer.set_mode(Mode.FLOAT)
        assert torch.equal(quantizer(x), x)
        quantizer.set_mode(Mode.FIXED)
        quantizer(x).sum().backward()
        assert not x.grad.any()
        assert not quantizer.log_step.grad.any()

    def test_signed_inputs_left_in_float(self, learned_step):
        quantizer = build(learned_step, 'activation', signed_levels=None)
        calibrate_by_hand(quantizer, torch.randn(64))
        assert not quantizer.is_active

    def test_it_has_no_temperature(self, learned_step):
        assert not isinstance(build(learned_step), HasTemperature)
        assert list(build(learned_step).scalars()) == ['log_step']

    def test_copies_and_checkpoints(self, learned_step):
        source = build(learned_step)
        calibrate_by_hand(source, torch.randn(64))
        target = build(learned_step)
        target.load_state_dict(source.state_dict())
        x = torch.randn(64)
        for quantizer in (target, copy.deepcopy(source)):
            assert torch.equal(quantizer.eval()(x), source.eval()(x))

    def test_a_checkpoint_of_another_method_is_refused(self, learned_step):
        source = build_quantizer(quantizer_config(dict(levels='int4'), 'weight', 'weight'))
        model = nn.Module()
        model.q = build(learned_step)
        state = {f'q.{key}': value for key, value in source.state_dict().items()}
        with pytest.raises(ValueError, match=r'holds `q\.log_alpha` and lacks `q\.log_step`.*type'):
            model.load_state_dict(state)

    def test_shared_by_all_layers(self, learned_step):
        model = type('Net', (nn.Module,), dict(forward=lambda m, x: m.b(m.a(x))))()
        model.a, model.b = nn.Linear(4, 4), nn.Linear(4, 4)
        weight = dict(type='LearnedStep', levels='int4', granularity='model')
        convert(model, QuantizationConfig(weight=weight, keep_float=[]))
        calibrate(model, [torch.randn(2, 4)], model)
        assert list(quantizers_of(model)) == ['shared_weight_quantizer']
        assert model(torch.randn(2, 4)).isfinite().all()


def calibrate_by_hand(quantizer, x):
    x = x.detach().reshape(1, -1)
    quantizer.initialize(Sample(x, x.abs().amax(1), signed=bool((x < 0).any())))


@pytest.mark.parametrize(
    ('override', 'names'),
    [
        (dict(type='LearnedStep'), ('LearnedStep', 7)),
        (dict(levels='int4'), ('QuantizationNetwork', 15)),
    ],
)
def test_an_override_may_take_another_method(learned_step, override, names):
    config = QuantizationConfig(
        weight=dict(levels='pm4', thresholds='uniform'), overrides={'a': dict(weight=override)}
    )
    weight = config.for_layer('a').weight
    assert (weight.type, len(weight.levels)) == names


def test_methods_are_abstract():
    with pytest.raises(TypeError, match='abstract'):
        Quantizer(quantizer_config(dict(levels='int4'), 'weight', 'weight'))


CONFIG = """
_base_ = {base!r}
{page}
model['quantization'].update(include=['backbone'])
default_hooks.update(phases=dict(type='mmqnet.PhaseHook', schedule=[
    dict(begin=0, phase='weights'), dict(begin=1 / 3, phase='both')]))
"""


@pytest.fixture(scope='module')
def config(page, tmp_path_factory):
    """Path of a config with the lines of the page, for a training of three epochs."""
    folder = tmp_path_factory.mktemp('run')
    make_configs(folder / 'configs', make_data(folder / 'data'))
    checkpoint = write_float_checkpoint(folder / 'configs', folder / 'float.pth')
    base = folder / 'configs' / 'quantized.py'
    text = base.read_text().replace(
        "weight=dict(levels='pm4'), activation=dict(levels='uint4')", ''
    )
    base.write_text(f'{text}\nload_from = {str(checkpoint)!r}\n')
    path = folder / 'configs' / 'own.py'
    lines = page.config.replace('my_quantizers', MODULE)
    path.write_text(CONFIG.format(base='quantized.py', page=lines))
    return path


def test_it_trains_evaluates_and_resumes_with_the_same_bits(config, root, page):
    states = {}
    for name, options in dict(whole={}, resumed=dict(resume=True)).items():
        settings = Config.fromfile(config)
        settings.work_dir = str(config.parent.parent / name)
        settings.experiment_name = name
        if options:
            settings.load_from = str(config.parent.parent / 'whole' / 'epoch_2.pth')
            settings.resume = True
        runner = Runner.from_cfg(settings)
        runner.train()
        states[name] = runner.model.state_dict()
    assert len(quantizers_of(runner.model)) == 35
    assert all(q.is_calibrated and q.is_active for q in quantizers_of(runner.model).values())
    for key, value in states['whole'].items():
        assert torch.equal(value, states['resumed'][key]), key
    command = [sys.executable, 'tools/test.py', str(config),
               str(config.parent.parent / 'whole' / 'epoch_3.pth'),
               '--work-dir', str(config.parent.parent / 'test')]  # fmt: skip
    environment = dict(PYTHONPATH=f'{root}:{page.folder}', OMP_NUM_THREADS='1')
    result = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'coco/bbox_mAP' in result.stdout
