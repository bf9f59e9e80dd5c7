"""Quantized layers against the float layers they stand for."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_conv_layer
from mmcv.cnn.bricks import wrappers
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrizations, prune
from toy_models import activation_config, build, calibrated, weight_config

from mmqnet.layers import (
    QUANTIZED_LAYERS,
    AttentionProjection,
    QuantConv2d,
    QuantLinear,
    activation_quantizers,
    frozen_parameters,
    parameter_roles,
    weight_parameter,
    weight_quantizers,
)
from mmqnet.quantizers import Mode, quantizers_of

ARGUMENTS = {
    nn.Conv2d: (4, 6, 3, 2, 1, 1, 2),
    wrappers.Conv2d: (4, 6, (3, 1), (1, 2), (1, 0)),
    Conv2dAdaptivePadding: (4, 6, 3, 2),
    ConvWS2d: (4, 6, 3, 1, 1),
    ConvAWS2d: (4, 6, 3, 1, 1),
    nn.ConvTranspose2d: (4, 6, 3, 2, 1, 1, 2),
    wrappers.ConvTranspose2d: (4, 6, (3, 1), (1, 2), (1, 0)),
    nn.Linear: (7, 5),
    wrappers.Linear: (7, 5),
    AttentionProjection: (nn.MultiheadAttention(7, 1), 1),
}


def float_layer(kind):
    return kind(*ARGUMENTS[kind])


def inputs(kind):
    return torch.randn(2, 4, 9, 7) if issubclass(kind, _ConvNd) else torch.randn(2, 3, 7)


def set_modes(model, mode):
    for quantizer in quantizers_of(model).values():
        quantizer.set_mode(mode)


def test_arguments_cover_every_layer():
    assert set(ARGUMENTS) == set(QUANTIZED_LAYERS)


@pytest.mark.parametrize('kind', QUANTIZED_LAYERS)
class TestEveryLayer:
    def converted(self, kind):
        layer = float_layer(kind)
        quantized = QUANTIZED_LAYERS[kind].from_float(
            layer, weight_config('pm4'), activation_config('uint4')
        )
        return layer, quantized

    @pytest.mark.parametrize('training', [True, False])
    def test_float_mode_is_the_float_layer(self, kind, training):
        layer, quantized = self.converted(kind)
        set_modes(quantized, Mode.FLOAT)
        x = inputs(kind)
        assert torch.equal(quantized.train(training)(x), layer(x))

    def test_without_quantizers_it_is_the_float_layer(self, kind):
        layer, x = float_layer(kind), inputs(kind)
        quantized = QUANTIZED_LAYERS[kind].from_float(layer)
        assert not quantizers_of(quantized)
        assert torch.equal(quantized(x), layer(x))
        assert quantized.state_dict().keys() == layer.state_dict().keys()

    def test_built_from_its_own_arguments(self, kind):
        layer = float_layer(kind)
        quantized = QUANTIZED_LAYERS[kind](*ARGUMENTS[kind])
        quantized.load_state_dict(layer.state_dict())
        x = inputs(kind)
        assert torch.equal(quantized(x), layer(x))

    def test_parameters_are_the_very_same(self, kind):
        layer, quantized = self.converted(kind)
        assert weight_parameter(quantized) is weight_parameter(layer)
        assert all(p is q for p, q in zip(layer.parameters(), quantized.parameters(), strict=False))
        assert not quantizers_of(layer)
        assert set(layer.state_dict()) < set(quantized.state_dict())

    def test_hard_evaluation_uses_quantized_input_and_weights(self, kind):
        layer, quantized = self.converted(kind)
        x = inputs(kind)
        calibrated(quantized, x).eval()
        with torch.no_grad():
            out = quantized(x)
            weight = quantized.weight_quantizer(quantized.effective_weight())
            codes = quantized.input_quantizer(x)
            if kind is Conv2dAdaptivePadding:  # 9 x 7, kernel 3, stride 2: one pixel on each side
                expected = F.conv2d(codes, weight, layer.bias, 2, 1)
            elif isinstance(layer, nn.Conv2d):
                geometry = layer.stride, layer.padding, layer.dilation, layer.groups
                expected = F.conv2d(codes, weight, layer.bias, *geometry)
            elif isinstance(layer, nn.ConvTranspose2d):
                geometry = layer.stride, layer.padding, layer.output_padding, layer.groups
                expected = F.conv_transpose2d(codes, weight, layer.bias, *geometry)
            else:
                expected = F.linear(codes, weight, layer.bias)
        assert len(weight.unique()) <= 7
        assert len(codes.unique()) <= 16
        torch.testing.assert_close(out, expected)
        assert not torch.allclose(out, layer(x), atol=1e-3)

    def test_gradients_reach_weights_and_scales(self, kind):
        _, quantized = self.converted(kind)
        x = inputs(kind)
        calibrated(quantized, x).train()
        x.requires_grad_()
        quantized(x).square().sum().backward()
        for name, parameter in quantized.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        assert x.grad.any()

    def test_every_parameter_has_a_gradient_in_every_mode(self, kind):
        """Otherwise DistributedDataParallel waits for it."""
        _, quantized = self.converted(kind)
        x = inputs(kind)
        calibrated(quantized, x).train()
        for mode in Mode:
            set_modes(quantized, mode)
            quantized.zero_grad()
            quantized(x).sum().backward()
            assert all(p.grad is not None for p in quantized.parameters()), mode

    def test_deepcopy_and_pickle(self, kind):
        _, quantized = self.converted(kind)
        x = inputs(kind)
        calibrated(quantized, x).eval()
        for clone in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
            assert torch.equal(clone(x), quantized(x))
            assert clone.weight is not quantized.weight

    def test_per_channel_weights(self, kind):
        layer = float_layer(kind)
        config = weight_config('int4', granularity='channel')
        quantized = QUANTIZED_LAYERS[kind].from_float(layer, config)
        x = inputs(kind)
        calibrated(quantized, x)
        quantizer = quantized.weight_quantizer
        axis = quantized.channel_axis
        assert quantizer.alpha.numel() == quantizer.alpha.shape[axis] == layer.weight.shape[axis]
        assert quantizer.alpha.dim() == layer.weight.dim()
        largest = quantized.effective_weight().abs().movedim(axis, 0).flatten(1).amax(1)
        torch.testing.assert_close(quantizer.beta.flatten(), 1.25 * 7 / largest)


def test_frozen_weights_make_frozen_quantizers():
    layer = nn.Conv2d(1, 1, 1).requires_grad_(False)
    quantized = QuantConv2d.from_float(layer, weight_config(), activation_config())
    assert not any(parameter.requires_grad for parameter in quantized.parameters())


def test_hooks_of_the_float_layer_stay():
    layer, seen = nn.Conv2d(1, 1, 1), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    QuantConv2d.from_float(layer)(torch.ones(1, 1, 1, 1))
    assert seen


class TestConfigs:
    CFG = dict(
        type='mmqnet.QuantConv2d',
        weight_quantizer=dict(levels='ternary'),
        input_quantizer=dict(levels='uint2'),
    )

    def test_conv_cfg_of_a_conv_module(self):
        module = ConvModule(3, 4, 3, conv_cfg=self.CFG, norm_cfg=dict(type='BN'))
        assert type(module.conv) is QuantConv2d
        assert len(module.conv.weight_quantizer.levels) == 3
        assert len(module.conv.input_quantizer.levels) == 4
        out = calibrated(module, torch.rand(2, 3, 8, 8)).train()(torch.rand(2, 3, 8, 8))
        assert out.shape == (2, 4, 6, 6)

    def test_conv_cfg_of_a_backbone(self):
        backbone = build(dict(type='mmdet.ResNet', depth=18, base_channels=4, conv_cfg=self.CFG))
        assert type(backbone.layer1[0].conv1) is QuantConv2d
        assert sum(isinstance(m, QuantConv2d) for m in backbone.modules()) == 20

    @pytest.mark.parametrize('kind', ['Conv2d', 'Conv2dAdaptivePadding', 'ConvWS2d', 'ConvAWS2d'])
    def test_every_convolution_has_a_registered_name(self, kind):
        conv = build_conv_layer(dict(self.CFG, type=f'mmqnet.Quant{kind}'), 3, 4, 3)
        assert conv.weight_quantizer is not None
        assert type(conv).__name__ == f'Quant{kind}'

    def test_mistakes_name_the_key(self):
        with pytest.raises(ValueError, match=r"`weight_quantizer\.levels`.*'pm3'"):
            QuantConv2d(1, 1, 1, weight_quantizer=dict(levels='pm3'))
        with pytest.raises(
            ValueError, match=r"`input_quantizer` has the unknown key 'zero_threshold'"
        ):
            QuantLinear(1, 1, input_quantizer=dict(levels='uint2', zero_threshold=0.1))


class Net(BaseModule):
    def __init__(self, init_cfg):
        super().__init__(init_cfg)
        self.conv = QuantConv2d.from_float(nn.Conv2d(3, 4, 3), weight_config())
        self.wrapped = QuantConv2d.from_float(wrappers.Conv2d(3, 4, 3))
        self.fc = QuantLinear.from_float(nn.Linear(3, 4), weight_config())
        self.own = QuantConv2d(3, 4, 3)


def test_weight_initialisation_by_the_name_of_the_float_layer():
    net = Net(dict(type='Constant', layer=['Conv2d', 'Linear'], val=0.5, bias=0.25))
    net.init_weights()
    for layer in (net.conv, net.wrapped, net.fc, net.own):
        assert (layer.weight == 0.5).all()
        assert (layer.bias == 0.25).all()


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        (lambda layer: prune.l1_unstructured(layer, 'weight', 0.5), 'weight_orig'),
        (parametrizations.weight_norm, 'parametrizations.weight.original1'),
    ],
)
def test_weights_that_torch_computes_have_the_role_of_weights(change, name):
    layer = QuantLinear(5, 4, weight_quantizer=dict(levels='pm4'))
    change(layer)
    roles = parameter_roles(layer)
    assert [key for key, role in roles.items() if role == 'quantized'] == [name]
    set_modes(layer, Mode.FIXED)
    assert any(p is layer.get_parameter(name) for p in frozen_parameters(layer))


class TestRoles:
    @pytest.fixture
    def net(self):
        net = Net(None)
        net.act = QuantLinear.from_float(nn.Linear(2, 2), None, activation_config())
        return net

    def test_parameters(self, net):
        roles = parameter_roles(net)
        assert roles.keys() == dict(net.named_parameters()).keys()
        assert roles['conv.weight'] == 'quantized'
        assert roles['conv.bias'] == 'other'
        assert roles['own.weight'] == 'other'
        assert roles['act.weight'] == 'other'
        assert roles['conv.weight_quantizer.log_alpha'] == 'scale'
        assert roles['act.input_quantizer.log_beta'] == 'scale'

    def test_quantizers(self, net):
        assert list(weight_quantizers(net)) == ['conv.weight_quantizer', 'fc.weight_quantizer']
        assert list(activation_quantizers(net)) == ['act.input_quantizer']

    def test_what_rests(self, net):
        assert frozen_parameters(net) == []
        net.conv.weight_quantizer.set_mode(Mode.FIXED)
        net.act.input_quantizer.set_mode(Mode.FLOAT)
        frozen = {id(p) for p in frozen_parameters(net)}
        expected = [
            net.conv.weight,
            *net.conv.weight_quantizer.parameters(),
            *net.act.input_quantizer.parameters(),
        ]
        assert frozen == {id(p) for p in expected}
