"""Outputs that keep the moments of the float ones; on two processes: see test_calibrate.py."""

import copy

import pytest
import torch
from torch import nn
from toy_models import activation_config, weight_config

from mmqnet.calibration import calibrate, match_outputs, matchable_layers
from mmqnet.layers import QuantConv2d, QuantConvTranspose2d, QuantLinear
from mmqnet.layers.outputs import quantize_output
from mmqnet.quantizers import Mode, quantizers_of

TWO_BITS = [-2, -1, 0, 1]


class Net(nn.Module):
    """Four layers without normalization."""

    def __init__(self, **weight):
        super().__init__()
        weight = weight_config(TWO_BITS, thresholds='uniform', scale_init='mse', **weight)
        inputs = activation_config('uint4')
        self.first = QuantConv2d.from_float(nn.Conv2d(3, 16, 3), weight, None)
        up = nn.ConvTranspose2d(16, 12, 2, groups=2)
        self.second = QuantConvTranspose2d.from_float(up, weight, inputs)
        self.third = QuantConv2d.from_float(nn.Conv2d(12, 16, 3), weight, inputs)
        self.last = QuantLinear.from_float(nn.Linear(16, 5), weight, inputs)

    def forward(self, x):
        for layer in (self.first, self.second, self.third):
            x = layer(x).relu()
        return self.last(x.flatten(2).movedim(1, 2))


def batches(count=1):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(8, 3, 12, 12, generator=generator) for _ in range(count)]


def moments(net, inputs):
    """Mean and standard deviation by channel of each layer's outputs, by the layer's name."""
    outputs = {}
    hooks = [
        layer.register_forward_hook(
            lambda layer, args, out, name=name: outputs.setdefault(name, []).append(out)
        )
        for name, layer in net.named_children()
    ]
    with torch.no_grad():
        for x in inputs:
            net.eval()(x)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, tensors in outputs.items():
        rows = torch.cat(tensors).movedim(-1 if name == 'last' else 1, 0).flatten(1)
        found[name] = rows.mean(1), rows.std(1, correction=0)
    return found


def calibrated_net(inputs, **weight):
    """A net, the moments of its outputs in float, and the names of its quantizers."""
    torch.manual_seed(3)
    net = Net(**weight)
    for quantizer in quantizers_of(net).values():
        quantizer.set_mode(Mode.FLOAT)
    expected = moments(net, inputs)
    for quantizer in quantizers_of(net).values():
        quantizer.set_mode(Mode.LEARNED)
    return net, expected, calibrate(net, inputs, net)


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_outputs_have_the_moments_of_the_float_ones():
    net, expected, names = calibrated_net(batches(), granularity='channel')
    before = moments(net, batches())
    assert match_outputs(net, names, batches(), net) == ['first', 'second', 'third', 'last']
    after = moments(net, batches())
    for name, (mean, std) in expected.items():
        # 'second' has two groups, whose channels share their scales in pairs
        tolerance = dict(rtol=0.2) if name == 'second' else dict(rtol=1e-2)
        torch.testing.assert_close(after[name][0], mean, rtol=0, atol=0.02 * std.max().item())
        torch.testing.assert_close(after[name][1], std, atol=0, **tolerance)
    # what it takes back
    assert (before['first'][1] < 0.99 * expected['first'][1]).all()


def test_one_scale_for_a_layer_gives_one_ratio():
    net, expected, names = calibrated_net(batches())
    weights = net.third.weight.clone()
    match_outputs(net, names, batches(), net)
    ratio = net.third.weight / weights
    torch.testing.assert_close(ratio, torch.full_like(ratio, ratio.mean().item()))
    assert abs(ratio.mean() - 1) > 0.02
    after = moments(net, batches())
    for name, (mean, std) in expected.items():
        torch.testing.assert_close(after[name][0], mean, rtol=0, atol=0.02 * std.max().item())
        torch.testing.assert_close(after[name][1].norm(), std.norm(), rtol=1e-2, atol=0)


def test_quantized_weights_grow_by_the_ratio():
    net, _, names = calibrated_net(batches(), granularity='channel')
    layer = net.first
    weight, quantized = layer.weight.clone(), layer.quantized_weight().clone()
    match_outputs(net, names, batches(), net)
    ratio = (layer.weight / weight).mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(layer.weight, ratio * weight)
    torch.testing.assert_close(layer.quantized_weight(), ratio * quantized, rtol=1e-2, atol=1e-3)


def test_average_over_the_batches():
    """Of many batches, the moments are those of all their values."""
    net, expected, names = calibrated_net(batches(6), granularity='channel')
    match_outputs(net, names, batches(6), net)
    after = moments(net, batches(6))
    mean, std = expected['first']
    torch.testing.assert_close(after['first'][0], mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(after['first'][1], std, rtol=1e-3, atol=0)


def test_only_the_layers_whose_weights_have_just_been_quantized():
    net, _, names = calibrated_net(batches(), granularity='channel')
    before = state_of(net)
    assert match_outputs(net, ['third.weight_quantizer'], batches(), net) == ['third']
    changed = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert changed >= {'third.weight', 'third.bias'}
    assert all(key.startswith('third.') for key in changed)
    inputs = [name for name in names if 'input' in name]
    before = state_of(net)
    assert match_outputs(net, inputs, batches(), net) == []
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())


def test_modes_and_observers_stay():
    net, _, names = calibrated_net(batches())
    net.train()
    net.second.eval()
    match_outputs(net, names, batches(), net)
    assert net.training
    assert net.third.training
    assert not net.second.training
    assert all(quantizer.observer is None for quantizer in quantizers_of(net).values())


def test_a_channel_without_weights_keeps_its_size():
    torch.manual_seed(3)
    net = Net(granularity='channel')
    with torch.no_grad():
        net.third.weight[2] = 0
        net.third.bias[2] = 0.25
    match_outputs(net, calibrate(net, batches(), net), batches(), net)
    assert (net.third.weight[2] == 0).all()
    assert net.third.bias[2].item() == pytest.approx(0.25)
    assert all(value.isfinite().all() for value in net.state_dict().values())


@torch.no_grad()
def matched_with_float(net, inputs, names=None):
    """Outputs of a net with some quantizers in float, and with their outputs matched."""
    calibrate(net, inputs, net)
    new = {k: q for k, q in quantizers_of(net).items() if names is None or k in names}
    for quantizer in new.values():
        quantizer.observer = lambda x: None
    expected = [net.eval()(x) for x in inputs]
    for quantizer in new.values():
        quantizer.observer = None
    match_outputs(net, list(new), inputs, net)
    return expected, [net(x) for x in inputs]


def test_the_reference_is_the_model_without_the_new_quantizers():
    """Inputs that have been quantized before stay so in it."""
    torch.manual_seed(3)
    net = Net(granularity='channel')
    names = [name for name in quantizers_of(net) if 'weight' in name]
    (expected,), (found,) = matched_with_float(net, batches(), names)
    torch.testing.assert_close(found.mean((0, 1)), expected.mean((0, 1)), rtol=0, atol=1e-4)


def test_calls_are_compared_one_by_one():
    """A layer behind one that is called several times reads outputs that are corrected."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            weight = weight_config(TWO_BITS, granularity='channel', scale_init='mse')
            self.first = QuantConv2d.from_float(nn.Conv2d(3, 8, 3), weight, None)
            self.second = QuantConv2d.from_float(nn.Conv2d(8, 8, 3), weight, None)

        def forward(self, x):
            return torch.cat([self.second(self.first(5**i * x + i).relu()) for i in range(3)])

    torch.manual_seed(3)
    (expected,), (found,) = matched_with_float(Head(), batches())
    std = expected.std((0, 2, 3))
    difference = found.mean((0, 2, 3)) - expected.mean((0, 2, 3))
    assert (difference.abs() < 0.1 * std).all()
    torch.testing.assert_close(found.std((0, 2, 3)), std, rtol=0.1, atol=0)


def test_a_call_without_values():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = QuantLinear.from_float(nn.Linear(3, 4), weight_config(TWO_BITS), None)

        def forward(self, x):
            return torch.cat([self.layer(x[:0]), self.layer(x)])

    torch.manual_seed(3)
    inputs = [torch.randn(64, 3)]
    (expected,), (found,) = matched_with_float(Head(), inputs)
    torch.testing.assert_close(found.mean(0), expected.mean(0), rtol=0, atol=1e-5)


def test_every_value_counts_the_same_in_batches_of_different_size():
    weight = weight_config(TWO_BITS, granularity='channel', scale_init='mse')
    torch.manual_seed(3)
    net = nn.Sequential(QuantConv2d.from_float(nn.Conv2d(3, 8, 3), weight, None))
    inputs = [torch.randn(3, 3, 12, 12), 1 + 3 * torch.randn(8, 3, 9, 9)]
    outputs = matched_with_float(net, inputs)
    expected, found = (torch.cat([x.movedim(1, 0).flatten(1) for x in o], 1) for o in outputs)
    torch.testing.assert_close(found.mean(1), expected.mean(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.std(1), expected.std(1), rtol=1e-4, atol=0)


def test_inputs_without_a_batch():
    weight = weight_config(TWO_BITS, granularity='channel', scale_init='mse')
    torch.manual_seed(3)
    net = nn.Sequential(QuantConv2d.from_float(nn.Conv2d(3, 8, 3), weight, None))
    (expected,), (found,) = matched_with_float(net, [torch.randn(3, 10, 10)])
    torch.testing.assert_close(found.std((1, 2)), expected.std((1, 2)), rtol=1e-4, atol=0)


@pytest.mark.parametrize('std', [1e-2, 1e-4])
def test_outputs_that_vary_little_around_a_large_mean(std):
    """As those of a prediction layer, whose bias is that of rare objects."""
    weight = weight_config(TWO_BITS, granularity='channel', scale_init='mse')
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        conv.weight.mul_(std)
        conv.bias.fill_(-4.6)
    net = nn.Sequential(QuantConv2d.from_float(conv, weight, None))
    (expected,), (found,) = matched_with_float(net, batches())
    found, expected = (x.double().std((0, 2, 3)) for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


def test_a_channel_that_hardly_varies_is_scaled_within_limits():
    weight = weight_config(TWO_BITS, thresholds='uniform', granularity='channel', scale_init='mse')
    conv = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1, -0.55, -0.43]).view(1, 3, 1, 1))
    before = conv.weight.clone()
    net = nn.Sequential(QuantConv2d.from_float(conv, weight, None))
    matched_with_float(net, [torch.randn(8, 1, 5, 5).expand(8, 3, 5, 5)])  # 0.02 x in float
    torch.testing.assert_close(net[0].weight, before / 4)


def test_outputs_are_matched_before_they_are_quantized():
    """Where `last` gives a prediction layer a quantizer of its output."""
    weight = weight_config(TWO_BITS, granularity='channel', scale_init='mse')
    torch.manual_seed(3)
    layer = QuantConv2d.from_float(nn.Conv2d(3, 8, 3), weight, None)
    net = nn.Sequential(layer)
    quantize_output(layer, activation_config('uint2'))
    calibrate(net, batches(), net)
    outputs = []
    layer.register_forward_hook(lambda m, args, x: outputs.append(x), prepend=True)
    layer.weight_quantizer.observer = lambda x: None
    with torch.no_grad():
        net.eval()(batches()[0])
        layer.weight_quantizer.observer = None
        match_outputs(net, list(quantizers_of(net)), batches(), net)
        net(batches()[0])
    expected, found = (outputs[i].std((0, 2, 3)) for i in (0, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


class TestRefused:
    def test_no_bias(self):
        conv = nn.Conv2d(3, 4, 3, bias=False)
        net = nn.Sequential(QuantConv2d.from_float(conv, weight_config(), None))
        with pytest.raises(ValueError, match=r'no quantized layer of Sequential has a bias'):
            matchable_layers(net)

    @pytest.mark.parametrize('shared', ['weight', 'bias', 'weight_quantizer'])
    def test_shared_parts(self, shared):
        first, second = (
            QuantConv2d.from_float(nn.Conv2d(3, 3, 3), weight_config(), None) for _ in range(2)
        )
        net = nn.Sequential(first, second)
        assert list(matchable_layers(net)) == ['0', '1']
        setattr(second, shared, getattr(first, shared))
        with pytest.raises(ValueError, match='a function of its own'):
            matchable_layers(net)

    def test_no_batch(self):
        net, _, names = calibrated_net(batches())
        with pytest.raises(ValueError, match='no training sample has reached'):
            match_outputs(net, names, [], net)

    def test_weights_of_a_fixed_range(self):
        weight = dict(type='DoReFa', levels=[-3, -1, 1, 3])
        net = nn.Sequential(QuantConv2d(3, 4, 3, weight_quantizer=weight))
        names = calibrate(net, batches(), net)
        before = state_of(net)
        with pytest.raises(ValueError, match='in no layer do the quantized weights grow'):
            match_outputs(net, names, batches(), net)
        assert all(value.equal(before[key]) for key, value in net.state_dict().items())

    def test_outputs_that_are_not_finite(self):
        net, _, names = calibrated_net(batches())
        before = state_of(net)
        with pytest.raises(ValueError, match=r'output of `first` holds NaN'):
            match_outputs(net, names, [batches()[0] * float('inf')], net)
        assert all(value.equal(before[key]) for key, value in net.state_dict().items())
        assert all(quantizer.observer is None for quantizer in quantizers_of(net).values())


@pytest.mark.parametrize(
    'weight',
    [
        dict(type='LSQ', levels=TWO_BITS, step_init='mse', granularity='channel'),
        dict(type='BWN', levels='binary', granularity='channel'),
        dict(type='TWN', levels='ternary', granularity='channel'),
    ],
)
def test_other_methods(weight):
    torch.manual_seed(3)
    net = nn.Sequential(QuantConv2d(3, 8, 3, weight_quantizer=weight))
    float_net = nn.Conv2d(3, 8, 3)
    float_net.load_state_dict({k: net[0].state_dict()[k] for k in ('weight', 'bias')})
    names = calibrate(net, batches(), net)
    copied = copy.deepcopy(net)
    match_outputs(net, names, batches(), net)
    with torch.no_grad():
        expected, found, before = (
            model.eval()(batches()[0]).std((0, 2, 3)) for model in (float_net, net, copied)
        )
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)
    assert not torch.allclose(before, expected, rtol=2e-2)
