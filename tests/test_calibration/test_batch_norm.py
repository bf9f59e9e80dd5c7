"""Batch statistics recomputed with hard functions; on two processes: see test_calibrate.py."""

import math

import pytest
import torch
from torch import nn
from toy_models import (
    activation_config,
    build,
    calibrated,
    classifier,
    quantized,
    resnet,
    weight_config,
)

from mmqnet.calibration import calibrate, learning_batch_norms, reestimate_batch_norm
from mmqnet.layers import QuantLinear
from mmqnet.models import AlexNetBN
from mmqnet.quantizers import quantizers_of

STATISTICS = ('running_mean', 'running_var')


class Net(nn.Module):
    """Two quantized layers with batch normalization, and dropout between them."""

    def __init__(self, norm=nn.BatchNorm1d):
        super().__init__()
        self.first = QuantLinear.from_float(nn.Linear(6, 16), weight_config('ternary'), None)
        self.norm1 = norm(16)
        self.drop = nn.Dropout(0.5)
        self.second = QuantLinear.from_float(
            nn.Linear(16, 4), weight_config('ternary'), activation_config('uint1')
        )
        self.norm2 = norm(4)

    def forward(self, x):
        return self.norm2(self.second(self.drop(self.norm1(self.first(x)).relu())))


def batches(count=4, size=32):
    generator = torch.Generator().manual_seed(5)
    return [2 + torch.randn(size, 6, generator=generator) for _ in range(count)]


def ready_net(norm=nn.BatchNorm1d):
    torch.manual_seed(3)
    net = Net(norm)
    calibrate(net, batches(), net)
    return net


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@torch.no_grad()
def reference(net, inputs):
    """Averages over the batches of mean and unbiased variance, layer by layer, by hand."""
    net = net.eval()
    hard1 = [net.first(x) for x in inputs]
    normed = [net.norm1.weight * (h - h.mean(0)) / (h.var(0, False) + net.norm1.eps).sqrt()
              + net.norm1.bias for h in hard1]  # fmt: skip
    hard2 = [net.second(h.relu()) for h in normed]
    return {
        f'norm{i}.running_{name}': torch.stack([take(h) for h in hard]).mean(0)
        for i, hard in ((1, hard1), (2, hard2))
        for name, take in (('mean', lambda h: h.mean(0)), ('var', lambda h: h.var(0)))
    }


@pytest.mark.parametrize('norm', [nn.BatchNorm1d, nn.SyncBatchNorm])
@pytest.mark.parametrize('momentum', [0.1, None])
def test_average_over_the_batches_with_hard_functions(norm, momentum):
    net = ready_net(norm).train()
    net.norm1.momentum = net.norm2.momentum = momentum
    for x in batches(2):
        net(x)
    before = state_of(net)
    assert reestimate_batch_norm(net, batches(), net) == ['norm1', 'norm2']
    expected = reference(ready_net(), batches())
    assert len(expected) == 4
    for key, value in net.state_dict().items():
        if key in expected:
            torch.testing.assert_close(value, expected[key])
            assert not torch.allclose(value, before[key], rtol=1e-3), key
        else:
            assert torch.equal(value, before[key]), key
    assert net.norm1.momentum == net.norm2.momentum == momentum


def test_the_rest_of_the_model_is_left_as_it_was():
    net = ready_net().train()
    net.drop.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    state = torch.get_rng_state()
    gradients = {name: p.requires_grad for name, p in net.named_parameters()}
    reestimate_batch_norm(net, batches(), net)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert {name: p.requires_grad for name, p in net.named_parameters()} == gradients
    assert torch.equal(torch.get_rng_state(), state)


def test_soft_functions_would_give_others():
    """What the training has gathered, at a low temperature, is not what evaluation meets."""
    soft, hard = ready_net(), ready_net()
    for quantizer in quantizers_of(soft).values():
        quantizer.set_temperature(2.0)
    torch.optim.swa_utils.update_bn(batches(), soft)
    reestimate_batch_norm(hard, batches(), hard)
    assert not torch.allclose(soft.norm2.running_mean, hard.norm2.running_mean, rtol=0.05)


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_models_of_the_libraries(scope):
    config = resnet(norm_eval=False) if scope == 'mmdet' else classifier()
    model = calibrated(build(quantized(config), scope), torch.rand(4, 3, 64, 64))
    run = model if scope == 'mmdet' else lambda x: model(x, mode='tensor')
    images = [torch.rand(4, 3, 64, 64) for _ in range(2)]
    names = reestimate_batch_norm(model, images, run)
    assert len(names) == 20
    # each layer's output now has the statistics that its normalization expects
    seen = {}
    backbone = model if scope == 'mmdet' else model.backbone
    last = backbone.layer4[1].conv2
    last.register_forward_hook(lambda _, __, out: seen.setdefault('out', []).append(out))
    reestimate_batch_norm(model, images, run)
    mean = torch.stack([out.mean((0, 2, 3)) for out in seen['out']]).mean(0)
    torch.testing.assert_close(backbone.layer4[1].bn2.running_mean, mean)


def test_frozen_stages_keep_their_statistics():
    model = build(quantized(resnet(norm_eval=False, frozen_stages=2)))
    calibrated(model, torch.rand(2, 3, 64, 64))
    before = state_of(model)
    names = reestimate_batch_norm(model, [torch.rand(2, 3, 64, 64)], model)
    assert names
    assert all(name.startswith(('layer3', 'layer4')) for name in names)
    for key, value in model.state_dict().items():
        changed = key.endswith(STATISTICS) and key.rpartition('.')[0] in names
        assert torch.equal(value, before[key]) != changed, key


def test_what_no_batch_reaches_keeps_its_statistics():
    net = ready_net()
    net.unused = nn.BatchNorm1d(3)
    net.unused.running_mean.fill_(7.0)
    assert reestimate_batch_norm(net, batches(), net) == ['norm1', 'norm2']
    assert (net.unused.running_mean == 7).all()


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (
            lambda: build(dict(type='mmdet.SSDVGG', depth=16)),
            'SSDVGG has no batch normalization',
        ),
        (lambda: build(resnet(norm_eval=True)), r'all 20 batch norm.* of ResNet are frozen.*norm_'),
        (
            lambda: nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)),
            r"`0` \(InstanceNorm2d\) cannot be re-estimated.*'SyncBN'",
        ),
    ],
)
def test_models_that_are_refused(model, message):
    model = model()
    with pytest.raises(ValueError, match=message):
        learning_batch_norms(model)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_values_that_are_not_finite(value):
    net = ready_net()
    before = state_of(net)
    inputs = batches()
    inputs[1][3, 2] = value
    with pytest.raises(ValueError, match='the input of `norm1` holds NaN or infinite'):
        reestimate_batch_norm(net, inputs, net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_an_error_leaves_the_model_as_it_was():
    net = ready_net().train()
    before = state_of(net)
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(net, [*batches(), torch.rand(3, 7)], net)
    with pytest.raises(ValueError, match='no training sample'):
        reestimate_batch_norm(net, [], net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.norm1.momentum == 0.1
    assert all(module.training for module in net.modules())


def test_alexnet_of_mmqnet():
    net = build(quantized(dict(type='mmqnet.AlexNetBN', channels=[4] * 5, hidden_channels=8)))
    assert isinstance(net, AlexNetBN)
    assert len(learning_batch_norms(net)) == 7
