"""The methods of other papers in a training: phases, an average of the weights, resuming."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmqnet.quantizers import quantizers_of

# A method for each part of the backbone.
MIXED = """
_base_ = 'quantized.py'
model = dict(quantization=dict(
    weight=dict(_delete_=True, type='LSQ', levels=[-2, -1, 0, 1], granularity='channel'),
    activation=dict(_delete_=True, type='LSQ', levels='uint2'),
    overrides={
        'backbone.layer2*': dict(
            weight=dict(type='DoReFa', levels=[-3, -1, 1, 3], granularity='layer', rescale=True),
            activation=dict(type='PACT', levels='uint2')),
        'backbone.layer3*': dict(
            weight=dict(type='TWN', levels='ternary'),
            activation=dict(type='LSQPlus', levels='uint2')),
        'backbone.layer4*': dict(
            weight=dict(type='BWN', levels='binary'),
            activation=dict(type='DoReFa', levels='uint2')),
    }))
default_hooks = dict(temperature=None, gap=None)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""


@pytest.fixture(scope='module')
def mixed(configs, float_checkpoint):
    path = configs / 'mixed.py'
    path.write_text(f'{MIXED}\nload_from = {float_checkpoint!r}\n')
    return path


def test_a_mixed_model_trains_and_resumes_with_the_same_bits(mixed, tmp_path):
    states = []
    for name in ('whole', 'resumed'):
        config = Config.fromfile(mixed)
        config.work_dir = str(tmp_path / name)
        config.experiment_name = name
        if name == 'resumed':
            config.load_from, config.resume = str(tmp_path / 'whole' / 'epoch_2.pth'), True
        runner = Runner.from_cfg(config)
        runner.train()
        states.append(runner.model.state_dict())
    quantizers = quantizers_of(runner.model).values()
    types = {type(quantizer).__name__ for quantizer in quantizers}
    assert types == {'LSQ', 'LSQPlus', 'PACT', 'DoReFa', 'BWN', 'TWN'}
    assert all(q.is_calibrated and q.is_active for q in quantizers)
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    average = torch.load(tmp_path / 'whole' / 'epoch_3.pth', weights_only=False)['state_dict']
    assert any(not torch.equal(average[key], states[0][key]) for key in average)
