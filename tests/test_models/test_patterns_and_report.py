"""Patterns of module names, and the report of a conversion."""

import pytest
import torch
from torch import nn

from mmqnet.models import (
    LayerReport,
    QuantizationConfig,
    QuantizationReport,
    SumReport,
    convert,
)
from mmqnet.models.patterns import check_patterns, matches


@pytest.mark.parametrize(
    ('name', 'pattern', 'expected'),
    [
        ('backbone.layer1.0.conv1', 'backbone', True),
        ('backbone.layer1.0.conv1', 'backbone.layer1', True),
        ('backbone.layer1.0.conv1', 'backbone.layer1.0.conv1', True),
        ('backbone.layer1.0.conv1', '*.conv1', True),
        ('backbone.layer1.0.conv1', 'backbone.layer?', True),
        ('backbone.layer1.0.conv1', 'backbone.layer[2-4]', False),
        ('backbone.layer10.0.conv1', 'backbone.layer1', False),
        ('backbone.conv1', 'conv1', False),
        ('backbone_2.conv1', 'backbone', False),
        ('Backbone.conv1', 'backbone', False),
        ('conv', '*', True),
    ],
)
def test_matches(name, pattern, expected):
    assert matches(name, pattern) is expected


LAYERS = {
    'backbone.layer1.0.conv1': '',
    'backbone.layer2.0.conv1': '',
    'backbone.up': 'class ConvTranspose3d is not supported',
    'bbox_head.fc_cls': '',
}


@pytest.mark.parametrize(
    ('pattern', 'hint'),
    [
        ('backbon', r"no layer\. Did you mean 'backbone'"),
        ('backbone.layer9', r"Did you mean .*'backbone\.layer[12]'"),
        ('zzz', r"The layers are below \['backbone', 'bbox_head'\]"),
    ],
)
def test_patterns_without_a_layer_name_near_misses(pattern, hint):
    with pytest.raises(ValueError, match=rf"`quantization\.include`.*'{pattern}'.*{hint}"):
        check_patterns([pattern], LAYERS, 'quantization.include')


def test_patterns_of_unsupported_layers_alone_say_why():
    check_patterns(['backbone'], LAYERS, 'quantization.include')
    with pytest.raises(ValueError, match=r"'\*\.up' .*only `backbone\.up`: class ConvTranspose3d"):
        check_patterns(['*.up'], LAYERS, 'quantization.include')


class TestReport:
    LAYERS = (
        LayerReport('backbone.a', 'Conv2d', 'float', 'float', 'first layer', 100, 32),
        LayerReport('backbone.b', 'Conv2d', '7: -4..4', '256: 0..255', '', 1000, 3),
        LayerReport('head.c', 'Linear', 'float', 'float', 'last layer', 10, 32),
    )
    REPORT = QuantizationReport(LAYERS)

    def test_parts(self):
        assert [layer.name for layer in self.REPORT.quantized] == ['backbone.b']
        assert [layer.name for layer in self.REPORT.skipped] == ['backbone.a', 'head.c']

    def test_bytes(self):
        assert self.REPORT.weight_bytes() == 400 + 375 + 40
        assert self.REPORT.weight_bytes('backbone') == 775
        assert self.REPORT.float_weight_bytes('backbone') == 4400
        assert self.REPORT.float_weight_bytes() == 4440

    def test_table_names_all(self):
        table = self.REPORT.table()
        for text in ('backbone.b', '7: -4..4', '256: 0..255', 'first layer', '1,000', 'Linear'):
            assert text in table
        assert '1 of 3 layers quantized' in table
        row = next(line for line in table.splitlines() if 'backbone.a' in line)
        assert row.count('float') == 2

    def test_table_of_sums(self):
        sums = SumReport('backbone.layer1.0', 'BasicBlock', ('branch_quantizer',), '256: 0..255')
        table = QuantizationReport(self.LAYERS, (sums,)).table()
        row = next(line for line in table.splitlines() if 'backbone.layer1.0' in line)
        assert all(text in row for text in ('BasicBlock', 'branch_quantizer', '256: 0..255'))
        assert 'BasicBlock' not in self.REPORT.table()

    def test_long_names_are_not_cut(self):
        name = 'bbox_head.' + 'a_very_long_name.' * 5 + 'conv'
        report = QuantizationReport(
            (LayerReport(name, 'Conv2d', 'float', 'float', 'x' * 30, 1, 32),)
        )
        assert name in report.table()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.norm = nn.LayerNorm([4, 2, 2])
        self.b = nn.Conv2d(4, 4, 1)
        self.up = nn.ConvTranspose3d(4, 4, 2)
        self.attention = nn.MultiheadAttention(4, 2)
        self.embedding = nn.Embedding(3, 4)
        self.c = nn.Linear(4, 2)


def test_the_report_of_a_conversion():
    net = Net()
    config = QuantizationConfig.from_dict(dict(weight=dict(levels='pm4'), exclude=['up']))
    report = convert(net, config)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons['a'] == 'first layer'
    assert reasons['b'] == ''
    assert reasons['c'] == 'last layer'
    assert reasons['up'] == 'class ConvTranspose3d is not supported'
    names = '@, scaled_dot_product_attention, softmax'
    products = f'products of activations stay in float ({names})'
    assert reasons['attention'] == products
    assert not any(reasons[f'attention.{name}_proj'] for name in ('q', 'k', 'v', 'out'))
    assert 'embedding' not in reasons
    b = next(layer for layer in report.layers if layer.name == 'b')
    assert (b.num_weights, b.weight_bits, b.weight, b.activation) == (16, 3, '7: -4..4', 'float')
    assert torch.is_tensor(net.b.weight_quantizer.levels)
