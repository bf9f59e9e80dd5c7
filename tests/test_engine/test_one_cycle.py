"""Rates of parameter groups under OneCycleLR."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmqnet.engine.optimizers import exempt_scales_from_decay, keep_rate_ratios
from mmqnet.layers import QuantLinear

STEPS = 10


@pytest.fixture
def model():
    return nn.Sequential(QuantLinear(8, 4, weight_quantizer=dict(levels='pm4')), nn.Linear(4, 2))


def rates(model, eta_max=0.2, **paramwise):
    """The rates of all groups at each step of a schedule that peaks at ``eta_max``."""
    wrapper = build_optim_wrapper(model, dict(
        constructor='mmqnet.QuantOptimWrapperConstructor', paramwise_cfg=paramwise or None,
        optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
    ))  # fmt: skip
    scheduler = PARAM_SCHEDULERS.build(
        dict(type='OneCycleLR', eta_max=eta_max, total_steps=STEPS),
        default_args=dict(optimizer=wrapper),
    )
    for _ in range(2):  # a second call changes nothing
        keep_rate_ratios(wrapper, [scheduler])
        exempt_scales_from_decay(wrapper, [scheduler], model)
    found = []
    for step in range(STEPS):
        found.append([group['lr'] for group in wrapper.optimizer.param_groups])
        wrapper.optimizer.step()
        if step + 1 < STEPS:
            scheduler.step()
    return torch.tensor(found, dtype=torch.float64)


def test_roles_keep_their_ratios_at_every_step(model):
    found = rates(model, quantized=dict(lr=0.01), scale=dict(lr_mult=0.5), other=dict(lr=0.2))
    assert sorted(set(found.max(0).values.tolist())) == pytest.approx([0.02, 0.1, 0.4])
    ratios = found / found[:, :1]
    assert torch.allclose(ratios, ratios[:1].expand_as(ratios))


def test_without_rates_of_roles_it_is_upstreams(model):
    found = rates(model)
    assert found.max() == pytest.approx(0.2)
    assert torch.equal(found, found[:, :1].expand_as(found))


def test_a_maximum_for_each_group_is_left(model):
    maxima = [0.1, 0.2, 0.3, 0.4]  # the last one is of the wrapper's own rate
    found = rates(model, eta_max=maxima, quantized=dict(lr=0.01), other=dict(lr=0.2))
    assert found.max(0).values.tolist() == pytest.approx(maxima[:-1])
