"""Which layers are found, and what stands against their quantization."""

import pickle

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.ops import ModulatedDeformConv2dPack
from mmpretrain.models.utils import BEiTAttention, WindowMSAV2
from torch import nn
from toy_models import W3A8, build, calibrated, classifier, quantized

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantConv2d, QuantizedLayer, QuantLinear
from mmqnet.models import QuantizationConfig, convert
from mmqnet.models.forward_code import products_in, weights_read_by
from mmqnet.models.inventory import find_layers
from mmqnet.models.prediction_layers import prediction_layers


def found(**layers):
    model = nn.Module()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return {layer.name: layer.obstacle for layer in find_layers(model)}


def tied():
    embedding, linear = nn.Embedding(5, 4), nn.Linear(4, 5)
    linear.weight = embedding.weight
    return nn.ModuleList([embedding, linear])


def with_own_forward():
    conv = nn.Conv2d(3, 4, 1)
    conv.forward = lambda x: x
    return conv


@pytest.mark.parametrize(
    ('layer', 'obstacle'),
    [
        (nn.Conv2d(4, 4, 3, groups=4), ''),
        (nn.Linear(3, 2), ''),
        (nn.Conv1d(3, 4, 1), 'class Conv1d is not supported'),
        (nn.Conv3d(3, 4, 1), 'class Conv3d is not supported'),
        (nn.ConvTranspose2d(3, 4, 2), ''),
        (nn.ConvTranspose1d(3, 4, 2), 'class ConvTranspose1d is not supported'),
        (nn.Bilinear(3, 4, 2), 'class Bilinear is not supported'),
        (nn.LSTM(3, 4), 'class LSTM is not supported'),
        (nn.LazyLinear(4), 'built at its first input only'),
        (nn.LazyConv2d(4, 3), 'built at its first input only'),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), 'its weights are parametrized'),
        (nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), 'computed from others, as by weight_norm'),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), '`add_bias_kv` is not supported'),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), '`add_zero_attn` is not supported'),
        (with_own_forward(), 'its forward has been replaced'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else '',
)
def test_obstacles(layer, obstacle):
    reason = found(layer=layer)['layer']
    assert reason.endswith(obstacle)
    assert bool(reason) == bool(obstacle)


def test_norms_and_embeddings_multiply_nothing():
    assert not found(norm=nn.LayerNorm([3, 4]), bag=nn.EmbeddingBag(3, 4), embed=nn.Embedding(3, 4))


def test_tied_weights():
    assert found(tied=tied()) == {'tied.1': 'shares its weights with another layer'}


def test_layers_within_an_unsupported_layer():
    reasons = found(
        dcn=ModulatedDeformConv2dPack(4, 4, 3), attention=nn.MultiheadAttention(4, 2),
        after=nn.Linear(4, 4),
    )  # fmt: skip
    assert reasons == {
        'dcn': 'class ModulatedDeformConv2dPack is not supported',
        'dcn.conv_offset': 'part of a ModulatedDeformConv2dPack, which is not supported',
        'attention': 'class MultiheadAttention is not supported',
        'attention.out_proj': 'part of a MultiheadAttention, which is not supported',
        'after': '',
    }


def test_an_attention_within_an_encoder_layer():
    reasons = found(encoder=nn.TransformerEncoderLayer(8, 2))
    reader = 'TransformerEncoderLayer.forward reads its weights itself'
    assert reasons['encoder.self_attn'] == reasons['encoder.linear1'] == reader


@pytest.mark.parametrize(
    ('attention', 'qkv'),
    [
        (BEiTAttention(8, 2, (2, 2), True), 'BEiTAttention'),
        (WindowMSAV2(8, (2, 2), 2), 'WindowMSAV2'),
    ],
)
def test_weights_that_another_forward_reads(attention, qkv):
    reasons = found(attention=attention)
    assert reasons['attention'] == 'products of activations stay in float (@, softmax)'
    assert reasons['attention.qkv'] == f'{qkv}.forward reads its weights itself'
    assert reasons['attention.proj'] == ''


def test_the_fast_path_of_a_transformer_layer():
    reasons = found(layer=nn.TransformerEncoderLayer(8, 2, 16))
    reason = 'TransformerEncoderLayer.forward reads its weights itself'
    assert reasons['layer.linear1'] == reasons['layer.linear2'] == reason


class Reader(nn.Module):
    """Reads of all kinds: only `a` and `b.c` are values."""

    def __init__(self):
        super().__init__()
        self.a, self.d = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b = nn.ModuleDict(dict(c=nn.Linear(2, 2)))

    def forward(self, x):
        x = x.to(self.d.weight.dtype) + self.d(x)
        return self._rest(x)

    def _rest(self, x):
        return torch.matmul(x, self.a.weight) + self.b.c.weight

    def unused(self, x):
        return x @ self.d.weight


def test_the_code_of_a_forward():
    assert weights_read_by(Reader) == {'a', 'b.c'}
    assert products_in(Reader) == {'matmul'}
    assert weights_read_by(nn.Conv2d) == set()


class Hidden(nn.Module):
    """Reads the weights of a layer in a way that no reader of code can follow."""

    def __init__(self):
        super().__init__()
        self.stem, self.seen, self.read = (nn.Linear(4, 4) for _ in range(3))
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        weight = dict(self.read.named_parameters())['weight']
        return self.last(self.seen(self.stem(x)) @ weight)


@pytest.mark.parametrize('granularity', ['layer', 'model'])
@pytest.mark.parametrize('activation', [None, dict(levels='uint8')])
def test_a_layer_that_is_never_called_is_found_at_calibration(activation, granularity):
    model = Hidden()
    quantization = dict(weight=dict(levels='pm4', granularity=granularity), activation=activation)
    convert(model, QuantizationConfig.from_dict(quantization))
    with pytest.raises(ValueError, match=r'never called 1 of .*`read`\..*`quantization\.exclude`'):
        calibrate(model, [torch.randn(3, 4)], model)
    model = Hidden()
    convert(model, QuantizationConfig.from_dict(dict(quantization, exclude=['read'])))
    assert calibrate(model, [torch.randn(3, 4)], model)


def test_reparameterization_of_a_quantized_model_is_refused():
    small = dict(
        num_blocks=[1, 1, 1, 1], width_factor=[0.125] * 4,
        group_layer_map=None, group_idx=None, se_cfg=None,
    )  # fmt: skip
    config = dict(classifier(), backbone=dict(type='RepVGG', arch=small))
    model = build(quantized(config), 'mmpretrain')
    message = r'RepVGG\.switch_to_deploy\(\) would .*deploy=True'
    with pytest.raises(RuntimeError, match=message):
        model.backbone.switch_to_deploy()
    with pytest.raises(RuntimeError, match='RepVGGBlock'):
        pickle.loads(pickle.dumps(model)).backbone.stage_1[0].switch_to_deploy()
    assert type(model.backbone.stem.branch_3x3.conv) is nn.Conv2d  # both branches read the image
    assert type(model.backbone.stem.branch_1x1.conv) is nn.Conv2d
    config['backbone']['deploy'] = True
    deployed = build(quantized(config), 'mmpretrain').backbone.stage_1[0].branch_reparam
    assert type(deployed) is QuantConv2d


def test_convolutions_called_with_a_keyword():
    for layer, x in (
        (QuantConv2d(3, 4, 1), torch.randn(1, 3, 2, 2)),
        (QuantLinear(3, 4), torch.randn(3)),
    ):
        assert torch.equal(layer(input=x), layer(x))


def test_signed_inputs_get_centred_levels():
    model = nn.Sequential(
        nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(),
        nn.Linear(8, 2), nn.Linear(2, 2),
    )  # fmt: skip
    convert(model, QuantizationConfig.from_dict(W3A8))
    calibrated(model, torch.randn(64, 4))
    lowest = [m.input_quantizer.levels[0].item() for m in model if isinstance(m, QuantizedLayer)]
    assert [low < 0 for low in lowest] == [True, True, False]


class TestPredictionLayers:
    def names(self, **heads):
        model = nn.Module()
        for name, head in heads.items():
            model.add_module(name, head)
        layers = [layer.name for layer in find_layers(model) if not layer.obstacle]
        return prediction_layers(model, layers)

    def test_the_end_of_a_sequence(self):
        branch = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        assert self.names(bbox_head=nn.ModuleDict(dict(reg=branch))) == {'bbox_head.reg.2'}

    def test_the_modules_of_a_head_are_hidden(self):
        head = nn.ModuleDict(
            dict(convs=nn.ModuleList([ConvModule(4, 4, 1)]), fc_cls=nn.Linear(4, 2))
        )
        head['attention'] = BEiTAttention(8, 2, (2, 2), True)
        head['cls_fcs'] = nn.ModuleList([nn.Linear(4, 4)])
        assert self.names(roi_head=head) == {'roi_head.fc_cls'}

    def test_a_head_without_bare_layers(self):
        assert self.names(head=BEiTAttention(8, 2, (2, 2), True)) == {'head.proj'}

    def test_a_model_without_a_head(self):
        assert self.names(a=nn.Linear(2, 2), b=nn.Linear(2, 2)) == {'b'}
