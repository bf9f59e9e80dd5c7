"""Graphs of int8 quantize and dequantize nodes, run by torch itself, against the hard model."""

import itertools
import json

import pytest
import torch
from exported import small_detector
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from qdq_cases import CASES, Net, conv, linear, network
from torch import nn
from toy_models import activation_config

from mmqnet.calibration import calibrate
from mmqnet.export.detection import export_module
from mmqnet.export.qdq import QdqReport, quantized_network
from mmqnet.export.qdq.export import compared, export_qdq
from mmqnet.export.qdq.functions import Int8Function
from mmqnet.export.qdq.target import Converted, Target, conversion_error
from mmqnet.export.qdq.verify import compare_codes, compare_outputs, forced
from mmqnet.layers import QuantConvTranspose2d
from mmqnet.quantizers import Staircase, build_quantizer

# Layers and sums that end in float, with the reason.
IN_FLOAT = dict(
    depthwise={'project': 'its output is used in float'},
    mixed={
        'first': 'not quantized',
        'second': 'its output is used in float',
        'third': 'its output is used in float',
        'fourth': 'its output is used in float',
        '': 'its operands are not quantized',
    },
)


class Torch(Target):
    """Runs the graph as it is."""

    name, codes = 'torch', True

    def convert(self, module, example, metadata):
        self.made = module
        return Converted(metadata['mmqnet'].encode() if metadata else b'', {'op': {'int8': 2}})

    def load(self, content):
        made = self.made
        return lambda inputs: made(*inputs)


@pytest.mark.parametrize(('name', 'codes'), list(zip(CASES, itertools.cycle([False, True]))))
def test_codes_are_those_of_the_model(name, codes):
    model, x = network(name)
    made = quantized_network(model, [x], codes=codes)
    assert {layer.name: layer.reason for layer in made.layers if layer.reason} == IN_FLOAT.get(
        name, {}
    )
    cut = forced(made)
    found = compare_codes(lambda inputs: cut(*inputs), made, model, [[x]])
    assert min(agreement.equal_but_ties for agreement in found) == 1
    steps = {str(i): step for i, step in enumerate(made.steps)}
    for output in compare_outputs(lambda inputs: made.module(*inputs), model, steps, [[x]]):
        assert output.mean_difference < 2e-3


def targets_of(module):
    return [str(node.target) for node in module.graph.nodes if node.op == 'call_function']


def test_a_value_with_several_quantizers_is_computed_for_each():
    model, x = network('residual')
    made = quantized_network(model, [x])
    sums = [layer.name for layer in made.layers if layer.kind == 'add']
    assert len(sums) == 4  # two sums, the first of which three quantizers read
    targets = targets_of(made.module)
    assert targets.count('aten.add.Tensor') == 4
    assert targets.count('aten.convolution.default') + targets.count('aten.conv2d.default') == 4


def test_a_value_that_is_concatenated_with_itself_is_scaled_once():
    class Twice(Net):
        def compute(self, x):
            y = self.layer(x)
            return (torch.cat([y, y], 1),)

    torch.manual_seed(0)
    model, x = Twice(layer=conv(8, 4)), torch.randn(1, 8, 6, 6)
    calibrate(model.eval(), [x], model)
    with torch.no_grad():
        model.outputs[0].log_alpha += 0.5  # alpha * beta goes into the layer
        model.outputs[0].refresh()
    made = quantized_network(model.eval(), [x])
    (output,) = compare_outputs(
        lambda inputs: made.module(*inputs), model, {'y': made.steps[0]}, [[x]]
    )
    assert output.equal > 0.99


def test_copies_of_a_layer_differ():
    """LiteRT's converter would make one of them, with two scales, and fail."""
    model, x = network('joined')
    graph = quantized_network(model, [x]).module.graph
    biases = {}
    for node in graph.nodes:
        if str(node.target) == 'aten.conv2d.default':
            bias = getattr(graph.owning_module, node.args[2].target)
            biases.setdefault(tuple(bias.shape), []).append(bias)
    values = [bias for group in biases.values() for bias in group]
    assert len({tuple(bias.tolist()) for bias in values}) == len(values)


@settings(max_examples=30, deadline=None, phases=[Phase.generate])
@given(
    levels=st.sampled_from(['uint8', 'uint4', 'uint2', 'uint1', (-3, -2, -1, 0, 1, 2), 'int8']),
    alpha=st.floats(0.05, 4),
    beta=st.floats(0.05, 4),
)
def test_function(levels, alpha, beta):
    """Rounding, and int8's own bounds, give the codes of the hard function."""
    config = activation_config(levels, thresholds='uniform', signed_levels=None)
    values = torch.tensor([float(level) for level in config.levels])
    staircase = Staircase(
        values, (values[1:] + values[:-1]) / 2, torch.tensor(alpha), torch.tensor(beta)
    )
    function = Int8Function.of(staircase, 'q')
    x = torch.linspace(-1.3, 1.3, 1001) * values.abs().max() / beta
    codes = ((x / function.scale).round() + function.zero_point).clamp(function.low, 127)
    wanted = staircase.codes(x)
    scaled = beta * x[:, None] - staircase.thresholds
    clear = scaled.abs().amin(1) > 1e-4  # but for ties
    assert torch.equal((codes - function.low)[clear].int(), wanted[clear])
    got = function.value_scale * (codes - function.zero_point)
    torch.testing.assert_close(got[clear], staircase.quantize(x)[clear], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('config', 'reason'),
    [
        (dict(levels='uint2', thresholds=(0.2, 0.9, 2.6)), 'its thresholds are not halfway'),
        (dict(levels=(-1, 1), thresholds=(0.0,)), '0 is not among its levels'),
        (dict(levels=tuple(range(300)), thresholds='uniform'), 'it has 300 levels, more than int8'),
    ],
)
def test_refused_quantizers(config, reason):
    quantizer = build_quantizer(activation_config(signed_levels=None, **config))
    model, x = nn.Sequential(quantizer), torch.rand(1, 2, 4, 4)
    calibrate(model, [x], model)
    message = rf"^the quantizer '0' cannot be written as int8: {reason}.*--format onnx$"
    with pytest.raises(ValueError, match=message):
        quantized_network(model.eval(), [x])


@pytest.mark.parametrize('outputs', [6, 5])
def test_a_normalization_of_another_dimension_stays(outputs):
    """The channels of a linear layer come last, those of a normalization are second."""
    torch.manual_seed(0)
    model, x = nn.Sequential(linear(8, outputs), nn.BatchNorm1d(6)), torch.randn(2, 6, 8)
    model[0].bias = None
    with torch.no_grad():
        nn.init.normal_(model[1].running_mean)
    calibrate(model.eval(), [x], model)
    made = quantized_network(model.eval(), [x])
    torch.testing.assert_close(made.module(x)[0], model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('parameter', ['weight', 'bias'])
def test_a_normalization_with_a_computed_parameter_stays(parameter):
    class Scaled(nn.BatchNorm2d):
        def forward(self, x):
            parameters = dict(weight=self.weight, bias=self.bias)
            parameters[parameter] = 1.5 * parameters[parameter]
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, **parameters)

    torch.manual_seed(0)
    model, x = nn.Sequential(conv(8, 4), Scaled(4)), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 2)
        model[1].bias.normal_()
    calibrate(model.eval(), [x], model)
    made = quantized_network(model.eval(), [x])
    torch.testing.assert_close(made.module(x)[0], model(x), rtol=1e-4, atol=1e-4)


def test_weights_that_are_no_integers_stay_in_float():
    class Small(Net):
        def compute(self, x):
            return (self.layer(x),)

    model, x = (
        Small(layer=conv(8, 4, weights=(-1.0, -0.3, 0.0, 0.41, 1.0))),
        torch.randn(1, 8, 6, 6),
    )
    calibrate(model.eval(), [x], model)
    made = quantized_network(model.eval(), [x])
    assert [layer.reason for layer in made.layers] == ['the levels of its weights are no integers']
    torch.testing.assert_close(made.module(x)[0], model(x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('weights', ['pm4', None])
def test_transposed_convolutions_are_named(weights):
    torch.manual_seed(0)
    up = QuantConvTranspose2d(
        8, 8, 2, 2, weight_quantizer=weights and dict(levels=weights, granularity='channel')
    )
    model, x = nn.Sequential(conv(8, 8), up, conv(8, 4)), torch.randn(1, 8, 6, 6)
    calibrate(model.eval(), [x], model)
    made = quantized_network(model.eval(), [x])
    reasons = {(layer.name, layer.kind): layer.reason for layer in made.layers}
    assert reasons == {
        ('0', 'conv2d'): 'its output is used in float',
        ('2', 'conv2d'): 'its output is used in float',
        ('1', 'conv_transpose2d'): 'it is a transposed convolution' if weights else 'not quantized',
    }
    torch.testing.assert_close(made.module(x)[0], model(x), rtol=1e-3, atol=1e-2)


def test_refused_modules():
    model, x = network('pooled')
    with pytest.raises(ValueError, match='should be in evaluation mode'):
        quantized_network(model.train(), [x])
    with pytest.raises(ValueError, match='Pooled cannot be traced by torch: '):
        quantized_network(model.eval(), [x[:, :3]])
    with pytest.raises(RuntimeError, match='has not been calibrated'):
        quantized_network(CASES['pooled']().eval(), [x])


def test_report(tmp_path):
    model, x = network('joined')
    target, path = Torch(), tmp_path / 'out' / 'net.bin'
    names = ['a', 'b']
    report, made = export_qdq(
        target, model, [x], path, output_names=names, metadata=dict(task='detection')
    )
    written = json.loads(path.read_text())
    assert written == dict(task='detection', output_names='["a", "b"]')
    report = compared(report, target, made, model, names, [[x]])
    table = report.table()
    assert '5 of 5 layers and sums written in integers for torch' in table
    assert 'Operators of the file: op 2 int8' in table
    assert 'Least share of equal codes but for ties: 100.000%' in table
    values = json.loads(report.as_json())
    assert values['num_bytes'] == path.stat().st_size
    assert [item['name'] for item in values['outputs']] == names
    assert all(item['equal_but_ties'] == 1 for item in values['codes'])


def test_failed_comparison_is_said(tmp_path):
    class Fails(Torch):
        def convert(self, module, example, metadata):
            if not metadata:
                raise conversion_error(self.name, RuntimeError('Traceback\n  of many lines\nwhy\n'))
            return super().convert(module, example, metadata)

    model, x = network('pooled')
    report, made = export_qdq(Fails(), model, [x], tmp_path / 'a', output_names=['y'])
    target = Fails()
    target.made = made.module
    report = compared(report, target, made, model, ['y'], [[x]])
    assert not report.codes
    assert "Codes are not compared: torch's converter refuses the network: why" in report.table()
    assert isinstance(report, QdqReport)
    assert report.outputs[0].equal > 0.99


def test_float_detector():
    """The baseline: nothing is quantized, and all layers say so."""
    model, config = small_detector('SSD')
    module = export_module(model, config, shape=(64, 64), raw=True)
    x = module.example(1)
    made = quantized_network(module, [x])
    assert {layer.reason for layer in made.layers} <= {
        'not quantized',
        'its operands are not quantized',
    }
    for got, wanted in zip(made.module(x), module(x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
