"""The log line about activations that calibration or a checkpoint leaves in float."""

import copy
import re

import torch
from mmengine.runner import load_checkpoint, save_checkpoint
from toy_models import build, calibrated, classifier, quantized

from mmqnet.calibration import calibrate
from mmqnet.layers import activation_quantizers
from mmqnet.quantizers import Mode

LINE = r'Activations that stay in float: (.*)'


def lines(capsys):
    captured = capsys.readouterr()
    return re.findall(LINE, captured.out + captured.err)


def load(model, tmp_path):
    """Loads the model's state into a new one, as a tool loads a checkpoint."""
    save_checkpoint(dict(state_dict=model.state_dict()), str(tmp_path / 'a.pth'))
    load_checkpoint(build(quantized(classifier()), 'mmpretrain'), str(tmp_path / 'a.pth'))


def test_saved_while_only_weights_were_quantized(tmp_path, capsys):
    model = calibrated(build(quantized(classifier()), 'mmpretrain'), torch.randn(2, 3, 32, 32))
    load(model, tmp_path)
    assert lines(capsys) == []
    quantizers = activation_quantizers(model)
    for quantizer in quantizers.values():
        quantizer.set_mode(Mode.FLOAT)
    load(model, tmp_path)
    count = len(quantizers)
    expected = f"{count} of {count} (all): they were saved in the phase 'weights'"
    assert lines(capsys) == [expected]


def test_signed_input_without_levels(tmp_path, capsys):
    model = calibrated(build(quantized(classifier()), 'mmpretrain'), torch.randn(2, 3, 32, 32))
    name, quantizer = next(iter(activation_quantizers(model).items()))
    quantizer.enabled.fill_(False)
    load(model, tmp_path)
    (line,) = lines(capsys)
    assert f'1 of {len(activation_quantizers(model))} ({name}): their input takes negative' in line


def test_signed_input_at_calibration(capsys):
    """Once, where the quantizer is calibrated: not those that are calibrated later."""
    pact = dict(activation=dict(type='PACT', levels='uint4'), keep_float=['last'])
    model = build(quantized(classifier(), **pact), 'mmpretrain')
    quantizers = activation_quantizers(model)
    *_, waiting = quantizers.values()
    waiting.set_mode(Mode.FLOAT)
    x = torch.randn(2, 3, 32, 32)
    calibrate(model, [x], model)
    (line,) = lines(capsys)
    assert f'1 of {len(quantizers)} (backbone.conv1.input_quantizer): their input takes ' in line
    assert 'phase' not in line
    waiting.set_mode(Mode.LEARNED)
    calibrated(model, x)
    assert lines(capsys) == []


def test_a_float_checkpoint_says_nothing(tmp_path, capsys):
    model = build(classifier(), 'mmpretrain')
    load(copy.deepcopy(model), tmp_path)
    assert lines(capsys) == []
