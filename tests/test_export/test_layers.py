"""Quantized layers in integers: any geometry, levels, scales and normalization."""

import math

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.cnn.bricks.conv_ws import ConvAWS2d
from onnx_files import exported, operators, quantizer, run
from torch import nn

from mmqnet.calibration import calibrate
from mmqnet.export.onnx import count_integer_layers
from mmqnet.export.verify import compare_codes
from mmqnet.layers import QUANTIZED_LAYERS, QuantConv2d, QuantLinear
from mmqnet.quantizers import quantizers_of


def configs(weight='pm4', activation='uint4', granularity='layer'):
    return dict(
        weight_quantizer=dict(levels=weight, thresholds='uniform', granularity=granularity),
        input_quantizer=dict(levels=activation, thresholds='uniform', scale_init='mse'),
    )


@torch.no_grad()
def ready(module, *inputs):
    """Calibrates a module, and moves its scales and normalizations away from where they begin."""
    generator = torch.Generator().manual_seed(7)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            for name, low, high in (
                ('weight', -1, 1),
                ('bias', -1, 1),
                ('running_mean', -0.3, 0.3),
                ('running_var', 0.3, 2),
            ):
                getattr(norm, name).uniform_(low, high, generator=generator)
    calibrate(module, inputs, module)
    for made in quantizers_of(module).values():
        scale = made.log_alpha
        scale += 0.2 * torch.rand(scale.shape, generator=generator)  # alpha * beta is not 1
    return module.eval()


def integer_layers(path):
    return [layer.name for layer in count_integer_layers(path, openvino=False) if layer.onnxruntime]


def agrees(path, module, *inputs, least=0.995):
    """Checks codes of all quantizers, each given the same codes before it."""
    for found in compare_codes(path, module, [inputs]):
        assert found.different == found.off_by_one, found
        assert found.equal_but_ties >= least, found


@st.composite
def two_convolutions(draw):
    """A convolution, a normalization, perhaps a ReLU and a pool, and a convolution behind it."""
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    kernel = draw(st.sampled_from([1, 3, (3, 1)]))
    relu = draw(st.booleans())
    levels = st.sampled_from(['binary', 'ternary', 'pm2', 'pm4', 'int4', 'int5', 'int8'])
    activations = st.sampled_from(['uint1', 'uint2', 'uint4', 'uint8'])
    granularity = st.sampled_from(['layer', 'channel'])
    first = QuantConv2d(
        4,
        8,
        kernel,
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        **configs(draw(levels), draw(activations), draw(granularity)),
    )
    return nn.Sequential(
        first,
        nn.BatchNorm2d(8) if draw(st.booleans()) else nn.Identity(),
        nn.ReLU() if relu else nn.Identity(),
        nn.MaxPool2d(2, ceil_mode=True) if draw(st.booleans()) else nn.Identity(),
        QuantConv2d(8, 4, 1, **configs(draw(levels), draw(activations))),
    )


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(two_convolutions(), st.integers(0, 2**16), st.booleans())
def test_convolutions_run_in_integers_and_agree(tmp_path, module, seed, signed):
    torch.manual_seed(seed)
    x = torch.rand(3, 4, 12, 13) - (0.4 if signed else 0)
    ready(module, x)
    with exported(tmp_path, module, x) as report:
        assert report.integer_layers[0].name == '0'
        assert integer_layers(report.path) == ['0']
        agrees(report.path, module, x, least=0.99)


def test_normalization_of_each_sign_and_zero(tmp_path):
    module = ready(
        nn.Sequential(
            QuantConv2d(4, 6, 3, **configs()),
            nn.BatchNorm2d(6),
            QuantConv2d(6, 4, 1, **configs()),
        ),
        x := torch.rand(2, 4, 9, 9),
    )
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([1.0, -1.0, 0.0, 1e-30, -1e-30, 0.5]))
    with exported(tmp_path, module, x) as report:
        assert 'BatchNormalization' not in operators(report.path)
        assert integer_layers(report.path) == ['0']
        agrees(report.path, module, x)


def test_shift_of_levels_without_zero_goes_into_the_bias(tmp_path):
    module = nn.Sequential(
        QuantConv2d(4, 6, 3, **configs()), QuantConv2d(6, 4, 3, padding=1, **configs('ternary'))
    )
    module[1].add_quantizers(
        dict(levels='ternary'), dict(levels=[-1.5, -0.5, 0.5, 1.5], thresholds='uniform')
    )
    ready(module, x := torch.randn(2, 4, 9, 9))
    with exported(tmp_path, module, x) as report, torch.no_grad():
        assert 'Add' not in operators(report.path)
        assert integer_layers(report.path) == ['0']
        agrees(report.path, module, x)
        torch.testing.assert_close(run(report.path, x)[0], module(x), rtol=0.3, atol=0.3)


@pytest.mark.parametrize(
    ('weight', 'activation', 'kind', 'saturates'),
    [
        ('pm4', 'uint8', 'int4', False),
        ('ternary', 'uint2', 'int4', False),
        ('int5', 'uint8', 'int8', False),
        ('int8', 'uint8', 'int8', True),
    ],
)
def test_types_in_the_file_and_saturation(tmp_path, weight, activation, kind, saturates):
    module = ready(
        nn.Sequential(QuantConv2d(4, 6, 3, **configs(weight, activation))),
        x := torch.rand(2, 4, 5, 5),
    )
    with exported(tmp_path, module, x) as report:
        (layer,) = report.layers
        assert (layer.weights, layer.can_saturate) == (kind, saturates)
        assert any('x64quantprecision' in warning for warning in report.warnings) == saturates


def test_saturation_is_avoided(tmp_path):
    """Large weights are rounded to ±64, those of small inputs stay as they are."""
    module = ready(
        nn.Sequential(
            QuantConv2d(4, 6, 3, **configs('int8', 'uint8', 'channel')),
            QuantConv2d(6, 4, 1, **configs('int8', 'uint4')),
        ),
        x := torch.rand(2, 4, 5, 5),
    )
    with exported(tmp_path, module, x, saturation='avoid') as report, torch.no_grad():
        assert [layer.rounded for layer in report.layers] == [True, False]
        assert [layer.largest_weight for layer in report.layers] == [64, 127]
        (warning,) = report.warnings
        assert warning.startswith('the weights of 1 layers (0, ...) have been rounded')
        expected = module(x)
        error = (run(report.path, x)[0] - expected).abs().mean()
        assert error < 0.05 * expected.std()


def test_an_output_that_is_quantized_in_two_ways(tmp_path):
    """The convolution is there twice, with one set of weights, and both end in integers."""

    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = QuantConv2d(3, 16, 3, **configs(activation='uint8'))
            self.left = QuantConv2d(16, 2, 1, **configs(activation='uint8'))
            self.right = QuantConv2d(16, 2, 1, **configs(activation='uint4'))

        def forward(self, x):
            x = self.first(x).relu()
            return self.left(x) + self.right(x)

    module = ready(Fork(), x := torch.rand(2, 3, 9, 9))
    with exported(tmp_path, module, x) as report:
        names = [layer.name for layer in report.layers]
        assert names == ['first.twin', 'first', 'left', 'right']
        assert set(integer_layers(report.path)) == {'first', 'first.twin'}
        agrees(report.path, module, x)
        tensors = onnx.load(report.path).graph.initializer
        assert sum(tensor.data_type == onnx.TensorProto.INT4 for tensor in tensors) == 3
        openvino = pytest.importorskip('openvino')  # it takes both convolutions for one
        (found,) = openvino.compile_model(report.path, 'CPU')([x.numpy()]).values()
        with torch.no_grad():
            expected = module(x)
        assert (torch.from_numpy(found) - expected).abs().mean() < 0.05 * expected.std()


def test_a_file_that_openvino_refuses(tmp_path):
    """It lacks the operator for many uneven thresholds; the file is there, and so is the table."""
    pytest.importorskip('openvino')
    layer = QuantConv2d(4, 2, 1, **configs())
    uneven = [i**1.01 / 1.1 for i in range(255)]
    layer.add_quantizers(dict(levels='pm4'), dict(levels='uint8', thresholds=uneven))
    module = ready(nn.Sequential(layer), x := torch.rand(2, 4, 5, 5))
    with exported(tmp_path, module, x) as report:
        (found,) = count_integer_layers(report.path)
        assert (found.name, found.openvino) == ('0', 'refused')
        assert any('not in OpenVINO' in warning for warning in report.warnings)


def test_float_layers(tmp_path):
    """A layer that ends in float holds integers or floats, as the user wants."""
    module = ready(nn.Sequential(QuantConv2d(4, 6, 3, **configs())), x := torch.rand(2, 4, 5, 5))
    for choice, kind in (('small', 'int4'), ('fast', 'float')):
        with exported(tmp_path, module, x, float_layers=choice) as report, torch.no_grad():
            (layer,) = report.layers
            assert (layer.weights, layer.reason) == (kind, 'its output is used in float')
            torch.testing.assert_close(run(report.path, x)[0], module(x), rtol=1e-4, atol=1e-5)


def test_standardized_weights(tmp_path):
    layer = QUANTIZED_LAYERS[ConvAWS2d](4, 6, 3, **configs(granularity='channel'))
    module = ready(
        nn.Sequential(layer, QuantConv2d(6, 2, 1, **configs())), x := torch.rand(2, 4, 6, 6)
    )
    with exported(tmp_path, module, x) as report:
        assert integer_layers(report.path) == ['0']
        agrees(report.path, module, x)


@pytest.mark.parametrize('shape', [(5, 8), (5, 3, 8)])
def test_linear(tmp_path, shape):
    per_channel = configs(granularity='channel')
    module = nn.Sequential(
        QuantLinear(8, 16, **per_channel),
        *([nn.BatchNorm1d(16)] if len(shape) == 2 else []),
        nn.ReLU(),
        QuantLinear(16, 4, **per_channel),
    )
    ready(module, x := torch.rand(shape))
    with exported(tmp_path, module, x) as report, torch.no_grad():
        assert [layer.reason for layer in report.layers] == ['', '']
        assert len(integer_layers(report.path)) == 2
        agrees(report.path, module, x, least=0.98)
        torch.testing.assert_close(
            run(report.path, x, optimized=False)[0], module(x), rtol=1e-3, atol=1e-3
        )


class Residual(nn.Module):
    """A block whose branch and identity are quantized before they are added."""

    def __init__(self):
        super().__init__()
        for name in ('conv1', 'conv2', 'last'):
            setattr(self, name, QuantConv2d(8, 8, 3, padding=1, **configs('int4')))
        self.norm = nn.BatchNorm2d(8)
        signed = [i - 127.5 for i in range(255)]
        self.branch_quantizer = quantizer([float(i) for i in range(-128, 128)], signed, 0.02, 50.0)
        self.input_quantizer = quantizer('uint4', [i + 0.5 for i in range(15)], 0.07, 15.0)

    def forward(self, x):
        x = self.input_quantizer(x)
        y = self.norm(self.conv2(self.conv1(x).relu()))
        return self.last((self.branch_quantizer(y) + x).relu())


def test_residual_sum_in_integers(tmp_path):
    torch.manual_seed(1)
    module = ready(Residual(), x := torch.rand(2, 8, 10, 10))
    with exported(tmp_path, module, x) as report:
        assert [layer.name for layer in report.integer_layers] == ['conv1', 'conv2']
        assert integer_layers(report.path) == ['conv1', 'conv2']
        agrees(report.path, module, x, least=0.99)


def test_shared_layer_runs_twice(tmp_path):
    """As the heads of a feature pyramid."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = QuantConv2d(4, 4, 3, padding=1, **configs())
            self.last = QuantConv2d(4, 2, 1, **configs())

        def forward(self, x):
            return [
                self.last(self.conv(level).relu()).mean((2, 3)) for level in (x, x[..., ::2, ::2])
            ]

    module = ready(Head(), x := torch.rand(2, 4, 8, 8))
    with exported(tmp_path, module, x, output_names=['a', 'b']) as report:
        assert [layer.name for layer in report.layers] == ['conv', 'last', 'conv#1', 'last#1']
        assert integer_layers(report.path) == ['conv', 'conv#1']
        weights = 4 * 4 * 9 / 2
        assert report.num_bytes < 2 * weights + 9000
        agrees(report.path, module, x)


def test_shared_quantizer(tmp_path):
    """One function for all layers: it runs several times under one name."""
    module = nn.Sequential(QuantConv2d(4, 4, 3, **configs()), QuantConv2d(4, 4, 3, **configs()))
    for role in ('weight_quantizer', 'input_quantizer'):
        module[1]._modules.pop(role)
        module[1].__dict__[role] = getattr(module[0], role)
    ready(module, x := torch.rand(2, 4, 8, 8))
    with exported(tmp_path, module, x) as report:
        assert integer_layers(report.path) == ['0']
        names = [found.name for found in compare_codes(report.path, module, [[x]])]
        assert names == ['0.input_quantizer', '0.input_quantizer#1']


def test_weights_whose_levels_are_no_integers_stay_float(tmp_path):
    module = ready(
        nn.Sequential(QuantConv2d(4, 6, 3, **configs([-1.0, -math.pi / 9, 0.1, 1.0]))),
        x := torch.rand(2, 4, 5, 5),
    )
    with exported(tmp_path, module, x) as report, torch.no_grad():
        assert report.layers[0].reason == 'the levels of its weights are no integers'
        torch.testing.assert_close(run(report.path, x)[0], module(x), rtol=1e-4, atol=1e-5)


METHODS = [
    (dict(type='LSQ', levels='int4'), dict(type='LSQ', levels='uint4'), ['0']),
    (dict(type='LSQ', levels='int4'), dict(type='LSQPlus', levels='uint4'), None),
    (dict(type='DoReFa', levels='int4'), dict(type='PACT', levels='uint4'), ['0']),
    (dict(type='BWN', levels='binary'), dict(type='DoReFa', levels='uint4'), ['0']),
    (dict(type='TWN', levels='ternary'), dict(type='LSQ', levels='uint2'), ['0']),
]


@pytest.mark.parametrize(('weight', 'activation', 'integer'), METHODS)
def test_other_methods(tmp_path, weight, activation, integer):
    """They have staircases like any other; LSQ+ may have an offset that no zero point expresses."""
    config = dict(weight_quantizer=weight, input_quantizer=activation)
    module = nn.Sequential(
        QuantConv2d(4, 8, 3, padding=1, **config),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        QuantConv2d(8, 4, 1, **config),
    )
    calibrate(module, [x := torch.rand(2, 4, 12, 12)], module)
    with exported(tmp_path, module, x) as report:
        assert integer is None or integer_layers(report.path) == integer
        agrees(report.path, module, x)
