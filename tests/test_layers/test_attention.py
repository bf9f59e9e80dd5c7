"""Attention with quantized projections against ``nn.MultiheadAttention``."""

import copy

import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import nn

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantMultiheadAttention, frozen_parameters, parameter_roles
from mmqnet.models import QuantizationConfig, convert
from mmqnet.quantizers import Mode, quantizers_of

WIDTH, HEADS, LENGTH, BATCH = 8, 2, 5, 3
UNIFORM = dict(thresholds='uniform', scale_init='mse')
PROJECTIONS = ['q_proj', 'k_proj', 'v_proj', 'out_proj']


class Net(nn.Module):
    """One attention of a sequence to another one."""

    def __init__(self, attention):
        super().__init__()
        self.attn = attention

    def forward(self, x, **masks):
        if self.attn.kdim == WIDTH:
            return self.attn(x, x, x + 1, **masks)
        return self.attn(x, x[..., :3], x[..., :4], **masks)


def make(**arguments):
    torch.manual_seed(0)
    return Net(nn.MultiheadAttention(WIDTH, HEADS, **arguments)).eval()


def quantized(net, x, **quantization):
    settings = dict(weight=dict(levels='int4', **UNIFORM), keep_float=[]) | quantization
    convert(net, QuantizationConfig.from_dict(settings))
    calibrate(net, [x], net)
    return net.eval()


def set_modes(net, mode):
    for quantizer in quantizers_of(net).values():
        quantizer.set_mode(mode)
    return net


def input_of(net, dtype=None):
    shape = (BATCH, LENGTH) if net.attn.batch_first else (LENGTH, BATCH)
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype)


def all_masks(net):
    causal = torch.ones(LENGTH, LENGTH).triu(1).bool()
    padding = torch.arange(LENGTH).expand(BATCH, -1) > 3
    added = torch.randn(BATCH * HEADS, LENGTH, LENGTH)
    return [
        {},
        dict(attn_mask=causal, is_causal=True),
        dict(attn_mask=added, average_attn_weights=False),
        dict(key_padding_mask=padding, attn_mask=causal, need_weights=False),
    ]


@pytest.mark.parametrize(
    'arguments',
    [{}, dict(batch_first=True, bias=False), dict(kdim=3, vdim=4)],
    ids=['plain', 'batch first', 'other widths'],
)
class TestAttention:
    def test_float_mode_is_the_float_attention(self, arguments):
        net = make(**arguments)
        float_net, x = copy.deepcopy(net), input_of(net)
        set_modes(quantized(net, x), Mode.FLOAT)
        for masks in all_masks(net):
            for out, expected in zip(net(x, **masks), float_net(x, **masks), strict=True):
                torch.testing.assert_close(out, expected)

    def test_hard_evaluation_has_quantized_weights(self, arguments):
        net = make(**arguments)
        float_net, x = copy.deepcopy(net), input_of(net)
        quantized(net, x)
        with torch.no_grad():
            weights = [net.attn.get_submodule(name).quantized_weight() for name in PROJECTIONS]
            if float_net.attn.in_proj_weight is None:
                for name, weight in zip('qkv', weights, strict=False):
                    float_net.attn.get_parameter(f'{name}_proj_weight').copy_(weight)
            else:
                float_net.attn.in_proj_weight.copy_(torch.cat(weights[:3]))
            float_net.attn.out_proj.weight.copy_(weights[3])
            for out, expected in zip(net(x), float_net(x), strict=True):
                torch.testing.assert_close(out, expected)
        assert all(len(weight.unique()) <= 15 for weight in weights)

    def test_a_description_without_a_mask_is_refused(self, arguments):
        net = make(**arguments)
        float_net, x = copy.deepcopy(net), input_of(net)
        for model in (quantized(net, x), float_net):
            with pytest.raises(RuntimeError, match='attn_mask'):
                model(x, is_causal=True)

    def test_gradients_in_double_precision(self, arguments):
        net = make(**arguments).double()
        float_net, x = copy.deepcopy(net), input_of(net, torch.float64)
        convert(net, QuantizationConfig.from_dict(dict(weight=dict(levels='int4'), keep_float=[])))
        set_modes(net, Mode.FLOAT).train()
        results = []
        for model in (net, float_net):
            given = x.clone().requires_grad_()
            model(given)[0].square().sum().backward()
            parameters = [p for n, p in model.named_parameters() if 'quantizer' not in n]
            results.append([given.grad, *(p.grad for p in parameters)])
        for gradient, expected in zip(*results, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)

    def test_float_checkpoints_keep_their_keys(self, arguments):
        net = make(**arguments)
        keys = list(net.state_dict())
        saved = quantized(net, input_of(net)).state_dict()
        assert [key for key in saved if 'quantizer' not in key] == keys
        other = make(**arguments)
        convert(
            other, QuantizationConfig.from_dict(dict(weight=dict(levels='int4'), keep_float=[]))
        )
        assert not other.load_state_dict(make(**arguments).state_dict()).missing_keys
        other = make(**arguments)
        other = quantized(other, input_of(other), weight=dict(levels='int4', **UNIFORM))
        other.load_state_dict(saved)
        assert torch.equal(other(input_of(net))[0], net(input_of(net))[0])


def test_inputs_of_query_key_and_value_have_functions_of_their_own():
    net = make()
    x = input_of(net)
    quantized(net, x, activation=dict(levels='uint8', **UNIFORM))
    assert sum(name.endswith('input_quantizer') for name in quantizers_of(net)) == 4
    assert net.attn.v_proj.input_quantizer.levels[0] > net.attn.k_proj.input_quantizer.levels[0]
    single = net.attn(x[:, 0], x[:, 0], x[:, 0] + 1)
    for one, all_of_them in zip(single, net(x), strict=True):
        is_output = one is single[0]
        torch.testing.assert_close(one, all_of_them[:, 0] if is_output else all_of_them[0])


def test_a_weight_that_was_written_to_is_quantized_again():
    net = make()
    x = input_of(net)
    with torch.no_grad():
        before = quantized(net, x)(x)[0]
        net.attn.in_proj_weight.mul_(-1)
        assert not torch.equal(net(x)[0], before)


def test_roles_of_the_packed_weights():
    net = quantized(make(), input_of(make()))
    roles = parameter_roles(net)
    assert roles['attn.in_proj_weight'] == roles['attn.out_proj.weight'] == 'quantized'
    assert roles['attn.in_proj_bias'] == 'other'
    net.attn.q_proj.weight_quantizer.set_mode(Mode.FIXED)
    assert any(p is net.attn.in_proj_weight for p in frozen_parameters(net))


def test_all_excluded_is_the_very_float_attention():
    model = nn.ModuleDict(dict(net=make(), fc=nn.Linear(WIDTH, 2))).eval()
    x, float_net = input_of(model.net), copy.deepcopy(model.net)
    settings = dict(weight=dict(levels='int4'), exclude=['net'], keep_float=[])
    report = convert(model, QuantizationConfig.from_dict(settings))
    assert type(model.net.attn) is QuantMultiheadAttention
    assert [layer.name for layer in report.quantized] == ['fc']
    assert torch.equal(model.net(x)[0], float_net(x)[0])


def test_the_wrapper_of_mmcv():
    model = nn.ModuleDict(dict(attention=MultiheadAttention(WIDTH, HEADS), fc=nn.Linear(8, 2)))
    overrides = {'*.q_proj': dict(weight=dict(levels='int8'))}
    settings = dict(weight=dict(levels='int4'), overrides=overrides, keep_float=[])
    report = convert(model, QuantizationConfig.from_dict(settings))
    bits = [layer.weight_bits for layer in report.quantized]
    names = [layer.name for layer in report.quantized]
    assert names == [*(f'attention.attn.{name}' for name in PROJECTIONS), 'fc']
    assert bits == [8, 4, 4, 4, 4]


class Heir(nn.MultiheadAttention):
    """May do anything with its weights."""


@pytest.mark.parametrize(
    'attention',
    [
        nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True),
        nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True),
        Heir(WIDTH, HEADS),
    ],
    ids=['bias of keys', 'zero attention', 'heir'],
)
def test_what_stays_in_float(attention):
    model = nn.ModuleDict(dict(attention=attention, fc=nn.Linear(8, 2)))
    settings = dict(weight=dict(levels='int4'), keep_float=[])
    report = convert(model, QuantizationConfig.from_dict(settings))
    assert [layer.name for layer in report.quantized] == ['fc']
    assert 'is not supported' in report.skipped[0].reason


def test_the_fast_path_of_a_transformer_layer_keeps_its_weights():
    model = nn.ModuleDict(dict(layer=nn.TransformerEncoderLayer(8, 2, 16), fc=nn.Linear(8, 2)))
    settings = dict(weight=dict(levels='int4'), keep_float=[])
    report = convert(model, QuantizationConfig.from_dict(settings))
    assert [layer.name for layer in report.quantized] == ['fc']
    assert type(model.layer.self_attn) is nn.MultiheadAttention
