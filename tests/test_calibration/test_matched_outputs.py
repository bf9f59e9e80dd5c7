"""Outputs that are brought back to the float ones; on two processes: see test_calibrate.py."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import activation_config, weight_config

from mmqnet.calibration import calibrate, match_outputs, matchable_layers
from mmqnet.layers import QuantConv2d, QuantConvTranspose2d, QuantLinear
from mmqnet.layers.outputs import quantize_output
from mmqnet.quantizers import quantizers_of

TWO_BITS = [-2, -1, 0, 1]


def two_bits(**config):
    return weight_config(TWO_BITS, thresholds='uniform', scale_init='mse', **config)


def conv(channels=8, **config):
    """A convolution of (N, 3, H, W), the same each time."""
    torch.manual_seed(3)
    return QuantConv2d.from_float(nn.Conv2d(3, channels, 3), two_bits(**config), None)


class Net(nn.Module):
    """Four layers without normalization."""

    def __init__(self, **config):
        super().__init__()
        torch.manual_seed(3)
        weight, inputs = two_bits(**config), activation_config('uint4')
        self.first = QuantConv2d.from_float(nn.Conv2d(3, 16, 3), weight, None)
        up = nn.ConvTranspose2d(16, 12, 2, groups=2)
        self.second = QuantConvTranspose2d.from_float(up, weight, inputs)
        self.third = QuantConv2d.from_float(nn.Conv2d(12, 16, 3), weight, inputs)
        self.last = QuantLinear.from_float(nn.Linear(16, 5), weight, inputs)

    def forward(self, x):
        for layer in (self.first, self.second, self.third):
            x = layer(x).relu_()
        return self.last(x.flatten(2).movedim(1, 2))


def batches(count=1):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(8, 3, 12, 12, generator=generator) for _ in range(count)]


@torch.no_grad()
def outputs_of(net, layers, inputs, in_float=()):
    """Outputs of layers, (C, N) each by name, where some quantizers pass their inputs."""
    found = {}

    def note(name, layer, output):
        axis = -1 if isinstance(layer, nn.Linear) else -3
        found.setdefault(name, []).append(output.movedim(axis, 0).flatten(1).clone())

    hooks = [
        layer.register_forward_hook(
            lambda layer, args, out, name=name: note(name, layer, out), prepend=True
        )
        for name, layer in layers.items()
    ]
    quantizers = [q for name, q in quantizers_of(net).items() if name in in_float]
    for quantizer in quantizers:
        quantizer.observer = lambda x: None
    for x in inputs:
        net.eval()(x)
    for quantizer in quantizers:
        quantizer.observer = None
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(tensors, 1).double() for name, tensors in found.items()}


def match(net, inputs, names=None):
    """Match a net's outputs; those of its layers in float, before and after."""
    calibrated = calibrate(net, inputs, net)
    names = names or calibrated
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    layers |= {n: m for n, m in net.named_modules() if isinstance(m, nn.ConvTranspose2d)}
    expected = outputs_of(net, layers, inputs, in_float=names)
    before = outputs_of(net, layers, inputs)
    assert match_outputs(net, names, inputs, net) == list(expected)
    return expected, before, outputs_of(net, layers, inputs)


def slopes(expected, found):
    """Of the regression of the float outputs on the quantized ones, by channel."""
    dx, dy = (x - x.mean(1, keepdim=True) for x in (found, expected))
    return (dx * dy).sum(1) / dx.square().sum(1)


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def changes(model, before):
    return {key for key, value in model.state_dict().items() if not value.equal(before[key])}


class TestOneLayer:
    @pytest.mark.parametrize('granularity', ['channel', 'layer'])
    def test_regression_of_the_float_outputs(self, granularity):
        layer = conv(granularity=granularity)
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        expected, before, after = (x['0'] for x in match(nn.Sequential(layer), batches()))
        if granularity == 'channel':
            pairs = zip(before.numpy(), expected.numpy(), strict=True)
            gain = torch.tensor([np.polyfit(x, y, 1)[0] for x, y in pairs])
        else:
            x, y = (v - v.mean(1, keepdim=True) for v in (before, expected))
            gain = ((x * y).sum() / (x * x).sum()).expand(8)
        assert ((gain - 1).abs() > 1e-3).any()
        shift = expected.mean(1) - gain * before.mean(1)
        tolerance = dict(rtol=0, atol=1e-5)
        factor = gain.float().view(-1, 1, 1, 1)
        torch.testing.assert_close(layer.weight, factor * weight, **tolerance)
        torch.testing.assert_close(layer.bias, (gain * bias + shift).float(), **tolerance)
        corrected = gain.view(-1, 1) * before + shift.view(-1, 1)
        torch.testing.assert_close(after, corrected, rtol=0, atol=1e-3)

    def test_every_value_counts_the_same_in_batches_of_different_size(self):
        net = nn.Sequential(conv(granularity='channel'))
        inputs = [torch.randn(3, 3, 12, 12), 1 + 3 * torch.randn(8, 3, 9, 9)]
        expected, _, found = (x['0'] for x in match(net, inputs))
        torch.testing.assert_close(
            slopes(expected, found), torch.ones(8).double(), rtol=1e-4, atol=0
        )
        torch.testing.assert_close(found.mean(1), expected.mean(1), rtol=0, atol=1e-5)

    def test_inputs_without_a_batch(self):
        net = nn.Sequential(conv(granularity='channel'))
        expected, _, found = (x['0'] for x in match(net, [torch.randn(3, 10, 10)]))
        torch.testing.assert_close(
            slopes(expected, found), torch.ones(8).double(), rtol=1e-4, atol=0
        )

    @pytest.mark.parametrize('std', [1e-2, 1e-4])
    def test_outputs_that_vary_little_around_a_large_mean(self, std):
        """As those of a prediction layer, whose bias is that of rare objects."""
        layer = conv(granularity='channel')
        with torch.no_grad():
            layer.weight.mul_(std)
            layer.bias.fill_(-4.6)
        expected, _, found = (x['0'] for x in match(nn.Sequential(layer), batches()))
        torch.testing.assert_close(
            slopes(expected, found), torch.ones(8).double(), rtol=1e-2, atol=0
        )

    def test_limit_of_the_factor(self):
        layer = QuantConv2d.from_float(nn.Conv2d(4, 1, 1), two_bits(granularity='channel'), None)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([-0.9, 0.3, 0.3, 0.32]).view(1, 4, 1, 1))
        before = layer.weight.clone()
        x = torch.randn(8, 1, 5, 5).expand(8, 4, 5, 5)  # 0.02 x in float
        net = nn.Sequential(layer)
        names = calibrate(net, [x], net)
        assert layer.eval().quantized_weight().sum() > 4 * 0.02
        match_outputs(net, names, [x], net)
        torch.testing.assert_close(layer.weight, before / 4)

    def test_a_channel_without_weights_stays(self):
        layer = conv(granularity='channel')
        with torch.no_grad():
            layer.weight[2] = 0
            layer.bias[2] = 0.25
        net = nn.Sequential(layer)
        match_outputs(net, calibrate(net, batches(), net), batches(), net)
        assert (layer.weight[2] == 0).all()
        assert layer.bias[2].item() == pytest.approx(0.25)
        assert all(value.isfinite().all() for value in net.state_dict().values())

    def test_outputs_are_matched_before_they_are_quantized(self):
        """Where `last` gives a prediction layer a quantizer of its output."""
        layer = conv(granularity='channel')
        quantize_output(layer, activation_config('uint2'))
        expected, _, found = (x['0'] for x in match(nn.Sequential(layer), batches()))
        torch.testing.assert_close(
            slopes(expected, found), torch.ones(8).double(), rtol=1e-4, atol=0
        )

    @pytest.mark.parametrize(
        'weight',
        [
            dict(type='LSQ', levels=TWO_BITS, step_init='mse', granularity='channel'),
            dict(type='BWN', levels='binary', granularity='channel'),
            dict(type='TWN', levels='ternary', granularity='channel'),
        ],
    )
    def test_other_methods(self, weight):
        torch.manual_seed(3)
        net = nn.Sequential(QuantConv2d(3, 8, 3, weight_quantizer=weight))
        expected, before, found = (x['0'] for x in match(net, [2 + x for x in batches()]))
        one = torch.ones(8).double()
        torch.testing.assert_close(slopes(expected, found), one, rtol=1e-3, atol=0)
        assert not torch.allclose(slopes(expected, before), one, rtol=1e-2)


@pytest.mark.parametrize('granularity', ['channel', 'layer'])
def test_layer_by_layer_behind_corrected_ones(granularity):
    expected, before, after = match(Net(granularity=granularity), batches())
    for name in expected:
        torch.testing.assert_close(
            after[name].mean(1), expected[name].mean(1), rtol=0,
            atol=1e-3 * expected[name].std().item(),
        )  # fmt: skip
        error = [(x[name] - expected[name]).square().mean() for x in (before, after)]
        assert error[1] < error[0]
        # those of 'second' share factors in pairs, one of each of its groups
        if granularity == 'channel' and name != 'second':
            one = torch.ones(len(after[name])).double()
            torch.testing.assert_close(slopes(expected[name], after[name]), one, rtol=1e-2, atol=0)


def test_average_over_batches():
    expected, _, after = match(Net(granularity='channel'), batches(6))
    one = torch.ones(16).double()
    torch.testing.assert_close(slopes(expected['first'], after['first']), one, rtol=1e-4, atol=0)
    for name in expected:
        difference = after[name].mean(1) - expected[name].mean(1)
        assert (difference.abs() < 0.02 * expected[name].std()).all()


def test_only_the_layers_whose_weights_have_just_been_quantized():
    net = Net(granularity='channel')
    names = calibrate(net, batches(), net)
    before = state_of(net)
    assert match_outputs(net, ['third.weight_quantizer'], batches(), net) == ['third']
    assert changes(net, before) >= {'third.weight', 'third.bias'}
    assert all(key.startswith('third.') for key in changes(net, before))
    before = state_of(net)
    inputs = [name for name in names if 'input' in name]
    assert match_outputs(net, inputs, batches(), net) == []
    assert not changes(net, before)


def test_inputs_that_have_been_quantized_before_stay_so_in_the_reference():
    net = Net(granularity='channel')
    names = [name for name in quantizers_of(net) if 'weight' in name]
    expected, _, after = match(net, batches(), names)
    difference = after['last'].mean(1) - expected['last'].mean(1)
    assert (difference.abs() < 1e-3 * expected['last'].std()).all()


def test_modes_and_observers_stay():
    net = Net()
    names = calibrate(net, batches(), net)
    net.train()
    net.second.eval()
    match_outputs(net, names, batches(), net)
    assert net.training
    assert net.third.training
    assert not net.second.training
    assert all(quantizer.observer is None for quantizer in quantizers_of(net).values())
    assert not any(layer._forward_hooks for layer in net.children())


def test_calls_are_compared_one_by_one():
    """A layer behind one that is called several times reads outputs that are corrected."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = conv(granularity='channel')
            second = nn.Conv2d(8, 8, 3)
            self.second = QuantConv2d.from_float(second, two_bits(granularity='channel'), None)

        def forward(self, x):
            return torch.cat([self.second(self.first(5**i * x + i).relu()) for i in range(3)])

    expected, before, after = match(Head(), batches())
    expected, before, after = (x['second'] for x in (expected, before, after))
    error = [(x - expected).square().mean() for x in (before, after)]
    assert error[1] < 0.8 * error[0]
    torch.testing.assert_close(slopes(expected, after), torch.ones(8).double(), rtol=0.1, atol=0)


def test_calls_that_only_the_float_model_makes():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = conv(granularity='channel')
            self.calls = iter(())

        def forward(self, x):
            return [self.layer(5**i * x) for i in range(next(self.calls, 1))]

    net = Head()
    names = calibrate(net, batches(2), net)
    layers = dict(layer=net.layer)
    expected = outputs_of(net, layers, batches(2), in_float=names)['layer']
    net.calls = iter([2, 1, 2, 1])
    match_outputs(net, names, batches(2), net)
    found = outputs_of(net, layers, batches(2))['layer']
    torch.testing.assert_close(slopes(expected, found), torch.ones(8).double(), rtol=1e-4, atol=0)


def test_a_call_without_values():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.layer = QuantLinear.from_float(nn.Linear(3, 4), two_bits(), None)

        def forward(self, x):
            return torch.cat([self.layer(x[:0]), self.layer(x)])

    expected, _, after = (x['layer'] for x in match(Head(), [torch.randn(64, 3)]))
    torch.testing.assert_close(after.mean(1), expected.mean(1), rtol=0, atol=1e-5)


class Regions(nn.Module):
    """A layer that reads other rows in float than it does quantized, as a head of regions does."""

    def __init__(self, count):
        super().__init__()
        self.first = conv(granularity='channel')
        self.head = QuantLinear.from_float(nn.Linear(8, 4), two_bits(), None)
        self.rows = iter([slice(0, count), slice(400, 600)])

    def forward(self, x):
        rows = self.first(x).movedim(1, -1).flatten(0, 2)
        return self.head(rows[next(self.rows, slice(0, 200))])


@pytest.mark.parametrize('count', [150, 200])
def test_rows_that_do_not_belong_together_tell_nothing(count):
    net = Regions(count)
    rows, net.rows = net.rows, iter(())
    names = calibrate(net, batches(), net)
    net.rows = rows
    before = state_of(net)
    assert match_outputs(net, names, batches(), net) == ['first']
    assert all(key.startswith('first.') for key in changes(net, before))


class TestRefused:
    def test_no_bias(self):
        layer = QuantConv2d.from_float(nn.Conv2d(3, 4, 3, bias=False), two_bits(), None)
        with pytest.raises(ValueError, match=r'no quantized layer of Sequential has a bias'):
            matchable_layers(nn.Sequential(layer))

    @pytest.mark.parametrize('shared', ['weight', 'bias', 'weight_quantizer'])
    def test_shared_parts(self, shared):
        first, second = conv(3), conv(3)
        net = nn.Sequential(first, second)
        assert list(matchable_layers(net)) == ['0', '1']
        setattr(second, shared, getattr(first, shared))
        with pytest.raises(ValueError, match='a function of its own'):
            matchable_layers(net)

    def test_no_batch(self):
        net = Net()
        with pytest.raises(ValueError, match='no training sample has reached'):
            match_outputs(net, calibrate(net, batches(), net), [], net)

    def test_weights_of_a_fixed_range(self):
        weight = dict(type='DoReFa', levels=[-3, -1, 1, 3])
        net = nn.Sequential(QuantConv2d(3, 4, 3, weight_quantizer=weight))
        names = calibrate(net, batches(), net)
        before = state_of(net)
        with pytest.raises(ValueError, match='in no layer do the quantized weights grow'):
            match_outputs(net, names, batches(), net)
        assert not changes(net, before)

    def test_outputs_that_are_not_finite(self):
        net = Net()
        names = calibrate(net, batches(), net)
        before = state_of(net)
        with pytest.raises(ValueError, match=r'output of `first` holds NaN'):
            match_outputs(net, names, [batches()[0] * float('inf')], net)
        assert not changes(net, before)
        assert all(quantizer.observer is None for quantizer in quantizers_of(net).values())
        assert not any(layer._forward_hooks for layer in net.children())


def test_channels_that_do_not_vary_keep_their_weights():
    """What rounding leaves of a constant tells nothing of its size; its mean is moved."""
    torch.manual_seed(0)
    conv = nn.Conv2d(640, 640, 3, groups=640)
    layer = QuantConv2d.from_float(conv, two_bits(granularity='channel'), None)
    x = torch.randn(4, 640, 9, 9)
    x[:, ::2] = 0.3
    model = nn.Sequential(layer)
    before, wanted = layer.weight.clone(), conv(x)
    names = calibrate(model, [x], model)
    assert match_outputs(model, names, [x], model) == ['0']
    assert torch.equal(layer.weight[::2], before[::2])
    same = torch.isclose(layer.weight[1::2], before[1::2]).flatten(1).all(1)
    assert same.float().mean() < 0.1
    assert (model.eval()(x) - wanted)[:, ::2].abs().max() < 1e-5
