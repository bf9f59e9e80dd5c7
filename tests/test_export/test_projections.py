"""Attention, transposed convolutions and lopsided levels in all kinds of files."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from torch import nn

from mmqnet.calibration import calibrate
from mmqnet.export.onnx import count_integer_layers, export_onnx
from mmqnet.export.packed import write_packed
from mmqnet.export.qonnx import write_qonnx
from mmqnet.export.verify import compare_codes
from mmqnet.layers import QuantizedLayer
from mmqnet.models import ENTRY, QuantizationConfig, convert
from mmqnet.quantizers import Mode

UNIFORM = dict(thresholds='uniform', scale_init='mse')
EIGHT_BITS = dict(levels='uint8', **UNIFORM)
PROJECTIONS = [f'attn.{name}_proj' for name in ('q', 'k', 'v', 'out')]


class Net(nn.Module):
    """Two transposed convolutions, an attention and a linear layer."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 8, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.ConvTranspose2d(8, 16, 2, 2, groups=2)
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = self.grouped(self.norm(self.up(x)).relu()).relu()
        x = x.flatten(2).transpose(1, 2)
        return self.fc(x + self.attn(x, x, x)[0])


def make(granularity):
    torch.manual_seed(0)
    net = Net()
    nn.init.uniform_(net.norm.weight, 0.5, 2)
    nn.init.normal_(net.norm.running_mean)
    weight = dict(levels='int4', granularity=granularity, **UNIFORM)
    settings = dict(weight=weight, activation=EIGHT_BITS, keep_float=[])
    convert(net, QuantizationConfig.from_dict(settings))
    return net.eval()


@pytest.fixture(scope='module')
def x():
    return torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def net(x):
    net = make('channel')
    calibrate(net, [x], net)
    return net.eval()


@pytest.mark.parametrize('float_layers', ['small', 'fast'])
def test_onnx(net, x, tmp_path, float_layers):
    path = tmp_path / 'net.onnx'
    report = export_onnx(net, [x], path, output_names=['y'], float_layers=float_layers)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert [name for name, reason in reasons.items() if not reason] == [*PROJECTIONS, 'fc']
    assert reasons['up'] == 'ONNX Runtime has no transposed convolution of integers'
    assert report.layers[0].weights == ('int4' if float_layers == 'small' else 'float')
    found = {layer.name: layer for layer in count_integer_layers(path, openvino=False)}
    assert all(found[name].onnxruntime for name in PROJECTIONS)
    assert not found['up'].onnxruntime
    assert all(codes.equal_but_ties == 1 for codes in compare_codes(path, net, [[x]]))


def test_qonnx(net, x, tmp_path):
    report = write_qonnx(net, x.shape, tmp_path / 'net.onnx')
    assert not any(layer.reason for layer in report.layers)
    (y,) = execute_onnx(ModelWrapper(str(tmp_path / 'net.onnx')), dict(input=x.numpy())).values()
    same = np.isclose(y, net(x).detach().numpy(), atol=1e-5)
    assert same.mean() > 0.99  # a value at a threshold may go to its other side


def test_packed(net, x, tmp_path):
    report = write_packed(net, Config(dict(model=dict(type='of the test'))), tmp_path / 'net.pth')
    assert not any(layer.reason for layer in report.layers)
    state = torch.load(tmp_path / 'net.pth', weights_only=True)['state_dict']
    assert 'attn.in_proj_weight' not in state
    assert state[ENTRY]['layers']['attn.k_proj']['parameter'] == 'attn.in_proj_weight'
    other = make('channel')
    other.load_state_dict(state)
    assert torch.equal(other.eval()(x), net(x))
    for layer, twin in zip(net.modules(), other.modules(), strict=True):
        if isinstance(layer, QuantizedLayer):
            assert torch.equal(layer.quantized_weight(), twin.quantized_weight())


def test_packed_weights_of_an_attention_are_whole_or_not_there(x, tmp_path):
    net = make('layer')
    calibrate(net, [x], net)
    net.attn.v_proj.weight_quantizer.set_mode(Mode.FLOAT)
    report = write_packed(net, Config(dict(model=dict(type='of the test'))), tmp_path / 'net.pth')
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons['attn.v_proj'] == 'its quantizer is off'
    assert reasons['attn.q_proj'] == 'other rows of the same parameter are stored in float'
    other = make('layer')
    other.load_state_dict(torch.load(tmp_path / 'net.pth', weights_only=True)['state_dict'])
    assert torch.equal(other.eval()(x), net.eval()(x))


class Lopsided(nn.Module):
    """The middle layer reads values from about -1 to 4."""

    def __init__(self):
        super().__init__()
        self.before, self.behind = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)
        nn.init.constant_(self.before.bias, 1)

    def forward(self, x):
        return self.last(self.behind(self.before(x)).relu())


@pytest.fixture(scope='module')
def lopsided():
    torch.manual_seed(0)
    net, x = Lopsided(), 2 * torch.randn(1, 3, 12, 12)
    settings = dict(
        weight=dict(levels='int4', **UNIFORM),
        activation=dict(levels='uint4', **UNIFORM),
        keep_float=[],
    )
    convert(net, QuantizationConfig.from_dict(settings))
    calibrate(net, [x], net)
    assert -8 < net.behind.input_quantizer.levels[0] < 0
    return net.eval(), x


def test_lopsided_levels_run_as_integers(lopsided, tmp_path):
    net, x = lopsided
    path = tmp_path / 'net.onnx'
    report = export_onnx(net, [x], path, output_names=['y'])
    assert [layer.reason for layer in report.layers][:2] == ['', '']
    found = {layer.name: layer for layer in count_integer_layers(path, openvino=False)}
    assert found['before'].onnxruntime
    assert found['behind'].onnxruntime
    assert all(codes.equal_but_ties == 1 for codes in compare_codes(path, net, [[x]]))


def test_lopsided_levels_in_qonnx_take_a_bit_for_the_sign(lopsided, tmp_path):
    net, x = lopsided
    report = write_qonnx(net, x.shape, tmp_path / 'net.onnx')
    kinds = {layer.name: layer.inputs for layer in report.layers}
    assert kinds['behind'] == 'INT5'
    (y,) = execute_onnx(ModelWrapper(str(tmp_path / 'net.onnx')), dict(input=x.numpy())).values()
    np.testing.assert_allclose(y, net(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize('weight', [None, dict(levels=[-3, -0.77, 0, 1, 3.1], **UNIFORM)])
@pytest.mark.parametrize('kind', [nn.Conv2d, nn.ConvTranspose2d])
def test_onnxruntime_leaves_weights_alone_that_are_no_integers(kind, weight, tmp_path):
    """It quantizes float weights between DequantizeLinear and QuantizeLinear itself."""
    torch.manual_seed(0)
    net = nn.Sequential(kind(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))
    check_codes_of_onnxruntime(net, dict(weight=weight), tmp_path / 'net.onnx')


@pytest.mark.parametrize('between', [nn.MaxPool2d(2), nn.Unflatten(1, (4, 2)), nn.Identity()])
@pytest.mark.parametrize('is_behind', [False, True])
def test_onnxruntime_leaves_weights_alone_behind_what_it_carries_codes_through(
    between, is_behind, tmp_path
):
    """It moves QuantizeLinear and DequantizeLinear through pools and reshapes at first."""
    torch.manual_seed(0)
    between = [between, nn.Flatten(1, 2)] if isinstance(between, nn.Unflatten) else [between]
    layer = [nn.Conv2d(8, 8, 3)]
    net = nn.Sequential(
        nn.Conv2d(8, 8, 3), *(layer + between if is_behind else between + layer), nn.Conv2d(8, 8, 1)
    )
    place = '1' if is_behind else str(len(between) + 1)
    with torch.no_grad():
        net[int(place)].weight *= torch.logspace(-2, 0, 8).view(8, 1, 1, 1)
    overrides = {'0': dict(output=EIGHT_BITS), place: dict(weight=None, activation=None)}
    check_codes_of_onnxruntime(net, dict(overrides=overrides), tmp_path / 'net.onnx')


def check_codes_of_onnxruntime(net, settings, path):
    weight = dict(levels='int4', granularity='channel', **UNIFORM)
    settings = {**dict(weight=weight, activation=EIGHT_BITS, keep_float=[]), **settings}
    convert(net, QuantizationConfig.from_dict(settings))
    x = torch.rand(1, 8, 16, 16)
    calibrate(net, [x], net)
    export_onnx(net.eval(), [x], path, output_names=['y'])
    agreement = compare_codes(path, net, [[x]])
    assert all(codes.equal_but_ties == 1 for codes in agreement)
