"""QONNX files, executed by qonnx, against the hard model: codes, outputs, types and costs."""

import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from torch import nn
from toy_models import build, calibrated, classifier, quantized, resnet

from mmqnet.layers import QuantConv2d, QuantConv2dAdaptivePadding, QuantLinear
from mmqnet.models import build_model
from mmqnet.quantizers import quantizers_of

pytest.importorskip('qonnx')
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

from mmqnet.export.qonnx import write_qonnx
from mmqnet.export.qonnx.activations import data_type

W3A4 = dict(weight=dict(levels='pm4'), activation=dict(levels='uint4', thresholds='uniform'))


def train_a_little(model):
    """Give normalizations and scales the values of a training, negative gammas too."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        with torch.no_grad():
            if 'running_var' in name:
                tensor.uniform_(0.5, 2)
            elif 'running_mean' in name or 'bias' in name:
                tensor.normal_(0, 0.2)
            elif 'log_' in name:
                tensor += 0.1 * torch.randn_like(tensor)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.7, 0.5)
    return model


def execute(path, x):
    """All values of a file for an input, by their names."""
    model = ModelWrapper(str(path))
    values = execute_onnx(model, dict(input=x.numpy()), return_full_exec_context=True)
    return model, {k: torch.from_numpy(v.copy()) for k, v in values.items() if v is not None}


def codes_of(model, x):
    """The codes of each quantizer of activations in each of its calls, and the model's outputs."""
    codes = {name: [] for name in quantizers_of(model) if name.endswith('input_quantizer')}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda quantizer, args, calls=calls: calls.append(quantizer.codes(args[0]))
        )
        for name, calls in codes.items()
    ]
    with torch.no_grad():
        outputs = model(x, mode='tensor') if hasattr(model, 'data_preprocessor') else model(x)
    for hook in hooks:
        hook.remove()
    return codes, list(flat(outputs))


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        yield outputs
    else:
        for output in outputs:
            yield from flat(output)


def check_codes(model, nodes, values, codes):
    """Compare the integers of each quantizer, and return the share that is the model's own.

    For what it reads in the file they are those of its hard function, all of them. The model reads
    sums of another order, so that some of its may differ.
    """
    equal = count = 0
    for node in nodes:
        name, _, call = node.output[0].removesuffix('.integers').partition('#')
        quantizer = model.get_submodule(name)
        levels = torch.tensor(quantizer.staircase(torch.zeros(1)).integer_form().integers)
        found = values[node.output[0]]
        assert torch.equal(found, levels[quantizer.codes(values[node.input[0]]).long()].float())
        equal += int((found == levels[codes[name][int(call or 0)].long()]).sum())
        count += found.numel()
    return equal / max(count, 1)


def check(model, x, path, is_deep=False):
    """Write a file, and compare all codes and outputs with the model's.

    In a deep network, a sum within a rounding of a threshold changes some codes behind it.
    """
    share, close = (0.98, 5e-2) if is_deep else (1, 1e-5)
    codes, outputs = codes_of(model, x)
    names = [f'out{i}' for i in range(len(outputs))]
    report = write_qonnx(model, x.shape, path, names)
    onnx.checker.check_model(str(path))
    graph, values = execute(path, x)
    nodes = graph.get_nodes_by_op_type('MultiThreshold')
    with torch.no_grad():
        assert check_codes(model, nodes, values, codes) >= share
    assert [output.name for output in graph.graph.output] == names
    for name, expected in zip(names, outputs, strict=True):
        assert values[name].shape == expected.shape
        difference = (values[name] - expected).abs().max()
        assert difference <= close * expected.abs().max(), name
    return report, graph, nodes


def test_a_classifier(tmp_path):
    torch.manual_seed(1)
    model = build(quantized(classifier(), **W3A4), 'mmpretrain')
    model = train_a_little(calibrated(model, torch.randn(2, 3, 32, 32))).eval()
    path = tmp_path / 'c.onnx'
    report, graph, nodes = check(model, torch.randn(1, 3, 32, 32), path, is_deep=True)
    assert len(report.layers) == 19
    assert {(r.weights, r.inputs, r.reason) for r in report.layers} == {('INT4', 'UINT4', '')}
    assert report.layers[0].name == 'backbone.layer1.0.conv1'
    # each block quantizes its input once, for the identity too
    assert len(nodes) == 16
    for node in nodes:
        thresholds = graph.get_initializer(node.input[1])
        assert thresholds.shape == (1, 2**4 - 1)
        assert (np.diff(thresholds) > 0).all()
        assert graph.get_tensor_datatype(node.output[0]).name == 'UINT4'
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == dict(out_dtype=b'UINT4', out_scale=1.0, out_bias=0.0)

    assert report.file_bytes == path.stat().st_size
    layers = [m for m in model.modules() if getattr(m, 'weight_quantizer', None)]
    weights = sum(layer.weight.numel() for layer in layers)
    assert report.cost['mem_w_INT4'] == weights
    rest = model.backbone.conv1.weight.numel() + model.head.fc.weight.numel()
    assert report.cost['total_mem_w_bits'] == 4 * weights + 32 * rest
    assert report.cost['op_mac_UINT4_INT4'] > report.cost['op_mac_FLOAT32_FLOAT32']
    assert report.cost['mem_o_INT32'] > 0
    assert 'million products UINT4_INT4' in report.table()
    assert json.loads(report.as_json())['layers'][0]['weights'] == 'INT4'


@pytest.mark.parametrize('name', ['ssd_r18_w2-a2u_digits', 'ssd_r18_w4-a4u_digits'])
def test_the_detector_of_the_demo(name, root, tmp_path):
    model = build_model(Config.fromfile(root / 'configs' / 'demo' / f'{name}.py'))
    train_a_little(calibrated(model, torch.randn(2, 3, 96, 96))).eval()
    report, _, _ = check(model, torch.randn(1, 3, 96, 96), tmp_path / 'd.onnx', is_deep=True)
    assert len(report.layers) == 15
    assert all(not layer.reason for layer in report.layers)


def test_a_pyramid_whose_heads_share_their_layers(tmp_path):
    neck = dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=3)
    head = dict(
        type='mmdet.RetinaHead', num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator', strides=[8, 16, 32], ratios=[1.0],
            octave_base_scale=4, scales_per_octave=1),
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='mmdet.L1Loss'))  # fmt: skip
    config = dict(
        type='mmdet.RetinaNet', data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
        backbone=resnet(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
        neck=neck, bbox_head=head)  # fmt: skip
    activation = dict(levels='uint4', thresholds='uniform', signed_levels='symmetric')
    model = build(quantized(config, weight=dict(levels='int5'), activation=activation))
    model = calibrated(model, torch.randn(2, 3, 64, 64)).eval()
    report, _, _ = check(model, torch.randn(1, 3, 64, 64), tmp_path / 'r.onnx', is_deep=True)
    rows = {layer.name: layer for layer in report.layers}
    assert {'bbox_head.cls_convs.0.conv', 'bbox_head.cls_convs.0.conv#2'} <= rows.keys()
    names = {tensor.name for tensor in onnx.load(tmp_path / 'r.onnx').graph.initializer}
    assert 'bbox_head.cls_convs.0.conv.weight' in names
    assert 'bbox_head.cls_convs.0.conv#2.weight' not in names
    signed = rows['neck.fpn_convs.0.conv']
    assert (signed.weights, signed.inputs, signed.reason) == ('INT5', 'INT4', '')


def layer_with(kind, weight, activation, **options):
    quantizers = dict(weight_quantizer=weight, input_quantizer=activation)
    return kind(**options, **{key: value for key, value in quantizers.items() if value})


@settings(max_examples=8, deadline=None, phases=[Phase.generate])  # a trial takes a second
@given(
    weights=st.sampled_from(['binary', 'ternary', 'pm2', 'pm4', 'int5', 'int8']),
    inputs=st.sampled_from(['uint1', 'uint2', 'uint8', [0.0, 1.0, 2.0, 4.0], [0.0, 0.5]]),
    granularity=st.sampled_from(['layer', 'channel']),
    signed=st.booleans(),
    groups=st.sampled_from([1, 2, 4]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    bias=st.booleans(),
    norm=st.booleans(),
    seed=st.integers(0, 99),
)
def test_single_convolutions(
    tmp_path_factory, weights, inputs, granularity, signed, groups, stride, dilation, padding, bias,
    norm, seed,
):  # fmt: skip
    torch.manual_seed(seed)
    activation = dict(levels=inputs, thresholds='uniform')
    if isinstance(inputs, list):
        activation['signed_levels'] = None
        signed = False
    layer = layer_with(
        QuantConv2d, dict(levels=weights, granularity=granularity), activation, in_channels=4,
        out_channels=8, kernel_size=3, groups=groups, stride=stride, dilation=dilation,
        padding=padding, bias=bias,
    )  # fmt: skip
    model = nn.Sequential(layer, *([nn.BatchNorm2d(8)] if norm else []))
    x = torch.randn(1, 4, 9, 9)
    x = x if signed else x.abs()
    model = train_a_little(calibrated(model, x)).eval()
    report, _, _ = check(model, x, tmp_path_factory.mktemp('q') / 'q.onnx')
    assert [layer.reason for layer in report.layers] == ['']


@pytest.mark.parametrize(
    ('levels', 'signed', 'expected'),
    [
        ('uint1', False, 'UINT1'),
        ('uint3', False, 'UINT3'),
        ('uint8', False, 'UINT8'),
        ('uint1', True, 'BIPOLAR'),
        ('uint4', True, 'INT4'),
        ('uint8', True, 'INT8'),
    ],
)
def test_types_of_activations(levels, signed, expected, tmp_path):
    activation = dict(levels=levels, thresholds='uniform', signed_levels='symmetric')
    layer = layer_with(
        QuantLinear, dict(levels='binary'), activation, in_features=6, out_features=5
    )
    x = torch.randn(1, 6) if signed else torch.rand(1, 6)
    model = calibrated(nn.Sequential(layer), x).eval()
    report, graph, nodes = check(model, x, tmp_path / 'l.onnx')
    assert [(row.weights, row.inputs) for row in report.layers] == [('BIPOLAR', expected)]
    assert graph.get_initializer(nodes[0].input[1]).shape == (
        1,
        len(layer.input_quantizer.levels) - 1,
    )
    assert len(graph.get_nodes_by_op_type('MatMul')) == 1


@pytest.mark.parametrize(('size', 'outputs'), [((1, 6, 8), 6), ((1, 6, 8), 5), ((1, 8), 6)])
def test_a_normalization_is_folded_where_it_is_of_the_channels_of_the_layer(
    size, outputs, tmp_path
):
    """The channels of a linear layer come last, those of a normalization are second."""
    torch.manual_seed(0)
    layer = layer_with(
        QuantLinear, dict(levels='pm4'), dict(levels='uint4'), in_features=8, out_features=outputs,
        bias=False,
    )  # fmt: skip
    model, x = nn.Sequential(layer, nn.BatchNorm1d(6)), torch.rand(size)
    with torch.no_grad():
        nn.init.normal_(model[1].running_mean)
    _, graph, _ = check(calibrated(model, x).eval(), x, tmp_path / 'b.onnx')
    assert bool(graph.get_nodes_by_op_type('BatchNormalization')) == (len(size) > 2)


def test_padding_between_quantizer_and_layer_is_of_integers(tmp_path):
    torch.manual_seed(0)
    options = dict(in_channels=3, out_channels=4, kernel_size=3, stride=2, bias=False)
    layer = layer_with(
        QuantConv2dAdaptivePadding, dict(levels='pm4'), dict(levels='uint4'), **options
    )
    x = torch.rand(1, 3, 8, 8)
    model = calibrated(nn.Sequential(layer), x).eval()
    report, graph, _ = check(model, x, tmp_path / 'p.onnx')
    assert [layer.inputs for layer in report.layers] == ['UINT4']
    assert not graph.get_nodes_by_op_type('Pad')  # a part of the convolution


def test_what_is_no_integer_is_named(tmp_path):
    uneven, options = [-1.0, 0.31415926, 2.7], dict(in_features=6, out_features=5)
    model = nn.Sequential(
        layer_with(QuantLinear, dict(levels=uneven), dict(levels='uint2'), **options),
        nn.ReLU(),
        layer_with(QuantLinear, dict(levels='pm4'), None, in_features=5, out_features=4),
    )
    x = torch.rand(1, 6)
    report, _, _ = check(calibrated(model, x).eval(), x, tmp_path / 'n.onnx')
    assert [layer.reason for layer in report.layers] == [
        'the levels of its weights are no integers',
        'its input is in float',
    ]
    activation = dict(levels=[0.0, 0.31415926, 2.7], thresholds='uniform', signed_levels=None)
    layer = layer_with(QuantLinear, dict(levels='pm4'), activation, **options)
    model = calibrated(nn.Sequential(layer), x).eval()
    report = write_qonnx(model, x.shape, tmp_path / 'a.onnx')
    assert [layer.reason for layer in report.layers] == ['its input is in float']
    _, values = execute(tmp_path / 'a.onnx', x)
    assert torch.allclose(values['output_0'], model(x), atol=1e-6)


def test_weights_that_no_layer_reads_are_values(tmp_path):
    class Product(QuantLinear):
        def forward(self, x):
            return torch.einsum('...i,oi->...o', self.quantized_input(x), self.quantized_weight())

    torch.manual_seed(0)
    layer = layer_with(
        Product, dict(levels='pm4'), dict(levels='uint4'), in_features=8, out_features=5
    )
    x = torch.rand(1, 3, 8)
    check(calibrated(nn.Sequential(layer), x).eval(), x, tmp_path / 'v.onnx')


def test_a_model_in_training_or_not_calibrated_or_of_another_size_is_refused(tmp_path):
    layer = layer_with(
        QuantLinear, dict(levels='pm4'), dict(levels='uint2'), in_features=6, out_features=5
    )
    model, path = nn.Sequential(layer), tmp_path / 'x.onnx'
    with pytest.raises(RuntimeError, match='has not been calibrated'):
        write_qonnx(model.eval(), (1, 6), path)
    calibrated(model, torch.rand(1, 6))
    with pytest.raises(ValueError, match='should be in evaluation mode'):
        write_qonnx(model.train(), (1, 6), path)
    with pytest.raises(ValueError, match=r'takes no input of \(1, 7\): mat1 and mat2'):
        write_qonnx(model.eval(), (1, 7), path)
    assert quantizers_of(model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('levels', 'name'),
    [
        ([-2, -1, 0, 1], 'INT2'),
        ([-4, -3, -2, -1, 0, 1, 2, 3], 'INT3'),
        (list(range(-8, 8)), 'INT4'),
        ('pm2', 'INT3'),
        ('pm4', 'INT4'),
        ('int4', 'INT4'),
        ('ternary', 'TERNARY'),
    ],
)
def test_types_of_weights(tmp_path, levels, name):
    torch.manual_seed(0)
    layer = layer_with(
        QuantLinear, dict(levels=levels), dict(levels='uint2'), in_features=64, out_features=32
    )
    model, x = calibrated(nn.Sequential(layer), torch.rand(8, 64)).eval(), torch.rand(1, 64)
    report, _, _ = check(model, x, tmp_path / 'w.onnx')
    assert [layer.weights for layer in report.layers] == [name]
    assert report.cost[f'mem_w_{name}'] == 64 * 32


def test_names_of_types():
    sets = (
        (-1, 1),
        (-1, 0, 1),
        (-2, 2),
        (-4, 4),
        (-15, 15),
        (-127, 127),
        (-8, 7),
        (0, 1),
        (0, 255),
    )
    names = ['BIPOLAR', 'TERNARY', 'INT3', 'INT4', 'INT5', 'INT8', 'INT4', 'UINT1', 'UINT8']
    assert [data_type(levels) for levels in sets] == names
