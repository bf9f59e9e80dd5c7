"""Parameter groups by the role of a parameter in quantization."""

import inspect
import re

import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from torch import nn
from toy_models import build, calibrated, classifier, quantized

from mmqnet.layers import QuantLinear, parameter_roles


@pytest.fixture(scope='module')
def model():
    return calibrated(build(quantized(classifier()), 'mmpretrain'), torch.randn(2, 3, 32, 32))


def groups(model, paramwise_cfg=None):
    """From parameter name to its (lr, weight_decay)."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmqnet.QuantOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01),
            paramwise_cfg=paramwise_cfg,
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    assert set(found) == set(names.values())
    return found


def by_role(model, found):
    roles = parameter_roles(model)
    return {role: {found[n] for n, r in roles.items() if r == role} for role in set(roles.values())}


def test_scales_have_no_weight_decay_by_default(model):
    assert by_role(model, groups(model)) == dict(
        quantized={(0.1, 0.01)}, scale={(0.1, 0.0)}, other={(0.1, 0.01)}
    )


def test_each_role_has_its_own(model):
    config = dict(
        quantized=dict(lr=1e-5), other=dict(lr_mult=1e-3, weight_decay=0.0), scale=dict(lr=0.7)
    )
    assert by_role(model, groups(model, config)) == dict(
        quantized={(1e-5, 0.01)}, other={(0.1 * 1e-3, 0.0)}, scale={(0.7, 0.0)}
    )


def test_none_drops_the_settings_of_a_role(model):
    """A config that inherits settings can only replace them."""
    config = dict(quantized=None, other=None, scale=None)
    assert by_role(model, groups(model, config)) == by_role(model, groups(model))


def test_keys_of_mmengine_go_on_working(model):
    config = dict(
        norm_decay_mult=0.0,
        custom_keys={'layer4': dict(lr_mult=0.1)},
        quantized=dict(lr=0.5),
    )
    found = groups(model, config)
    assert found['backbone.layer1.0.bn1.weight'] == (0.1, 0.0)
    assert found['backbone.layer4.0.bn1.weight'][0] == pytest.approx(0.01)
    assert found['backbone.layer4.0.conv1.weight'][0] == 0.5  # the role wins
    assert found['head.fc.weight'] == (0.1, 0.01)


def test_all_keys_of_mmengine_are_known(model):
    """Those that it reads itself."""
    source = inspect.getsource(DefaultOptimWrapperConstructor.add_params)
    keys = set(re.findall(r"paramwise_cfg\.get\('(\w+)'", source))
    assert keys > {'custom_keys', 'bias_lr_mult', 'bypass_duplicate'}
    groups(model, {key: {} if key == 'custom_keys' else 0.5 for key in keys})


class Shared(nn.Module):
    """One layer under three names, like the convolutions of RTMDet's head."""

    def __init__(self):
        super().__init__()
        layer = QuantLinear(4, 4, weight_quantizer=dict(levels='pm4'))
        self.first, self.second = nn.Sequential(layer), nn.Sequential(layer)
        self.third = layer


@pytest.mark.parametrize(
    'paramwise_cfg', [None, dict(bypass_duplicate=True), dict(norm_decay_mult=0)]
)
def test_a_shared_parameter_is_updated_once_a_step(paramwise_cfg):
    model = Shared()
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmqnet.QuantOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0),
            paramwise_cfg=paramwise_cfg,
        ),
    )
    held = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    before = model.third.weight.clone()
    model.third.weight.grad = torch.ones_like(before)
    wrapper.step()
    torch.testing.assert_close(before - model.third.weight, torch.full_like(before, 0.1))


def test_a_float_model_is_all_others():
    assert set(groups(nn.Linear(2, 2), dict(other=dict(lr=3.0))).values()) == {(3.0, 0.01)}


def test_a_multiple_of_no_rate_is_refused(model):
    config = dict(
        constructor='mmqnet.QuantOptimWrapperConstructor',
        optimizer=dict(type='Adam'),
        paramwise_cfg=dict(scale=dict(lr_mult=0.1)),
    )
    with pytest.raises(ValueError, match=r'scale\.lr_mult` multiplies `optimizer\.lr`, which is'):
        build_optim_wrapper(model, config)


@pytest.mark.parametrize(
    ('config', 'error', 'message'),
    [
        (dict(quantized=dict(lrs=1)), ValueError, r"`paramwise_cfg\.quantized` .*'lrs'.*'lr'"),
        (dict(scale=dict(lr='1')), TypeError, r"`paramwise_cfg\.scale\.lr` .*number, but got '1'"),
        (
            dict(other=dict(lr=-1)),
            ValueError,
            r'\.other\.lr` should be not negative and finite, but got -1',
        ),
        (
            dict(scale=dict(lr=float('nan'))),
            ValueError,
            r'\.scale\.lr` should be .* finite, but got nan',
        ),
        (dict(other=dict(lr_mult=float('inf'))), ValueError, r'\.lr_mult` should be .* got inf'),
        (dict(quantised=dict(lr=1)), ValueError, r"`paramwise_cfg` .*'quantised'.*'quantized'\?"),
        (dict(norm_decay=0), ValueError, r"`paramwise_cfg` .*'norm_decay'.*'norm_decay_mult'\?"),
        (5, TypeError, '`paramwise_cfg` should be a dict, but got 5'),
        (dict(other=dict(lr=1, lr_mult=2)), ValueError, r'`lr` or `lr_mult`, but got both'),
        (dict(other=1e-7), TypeError, r'`paramwise_cfg\.other` should be a dict, but got 1e-07'),
    ],
)
def test_mistakes(model, config, error, message):
    with pytest.raises(error, match=message):
        groups(model, config)
