"""What the methods of other papers have in common: the contract, each method in each role."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import ACTIVATIONS, CASES, CHANNELS, WEIGHTS, build, fit, fitted, values_of
from torch import nn

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantConv2d
from mmqnet.models import QuantizationConfig, convert
from mmqnet.quantizers import HasTemperature, Mode, quantizer_config, quantizers_of
from mmqnet.registry import QUANTIZERS
from mmqnet.visualization import draw_staircase, weight_values
from mmqnet.visualization.function import code_shares, describe, drawn_function, relative_error

SYMMETRIC = dict(signed_levels='symmetric')

every_case = pytest.mark.parametrize('case', CASES)


def test_they_are_registered():
    names = {settings['type'] for settings in CASES.values()}
    assert names == {'LSQ', 'LSQPlus', 'PACT', 'DoReFa', 'BWN', 'TWN'}
    assert all(QUANTIZERS.get(name).__name__ == name for name in names)


@every_case
@settings(max_examples=30, deadline=None)
@given(
    x=st.lists(st.floats(-100, 100, width=32), min_size=CHANNELS, max_size=60),
    size=st.sampled_from([1e-3, 1.0]),
)
def test_training_is_the_evaluation_bit_by_bit(case, x, size):
    x = size * torch.tensor(x)[: len(x) // CHANNELS * CHANNELS].view(CHANNELS, -1)
    x = x if case in WEIGHTS else x.abs()
    quantizer = fitted(case, x)
    quantized = quantizer(x)
    staircase = quantizer.staircase(x)
    assert torch.equal(quantized, staircase.quantize(x))
    assert torch.equal(quantized, quantizer.eval()(x))
    heights = staircase.alpha * staircase.levels[quantizer.codes(x).long()]
    assert torch.equal(quantized, heights)


@every_case
def test_at_thresholds_too(case):
    x = values_of(case)
    quantizer = fitted(case, x)
    staircase = quantizer.staircase(x)
    edges = (staircase.thresholds / staircase.beta).expand(CHANNELS, -1)
    near = torch.cat([edges, edges.nextafter(edges + 1), edges.nextafter(edges - 1)], dim=1)
    assert torch.equal(quantizer(near), quantizer.staircase(near).quantize(near))
    assert staircase.alpha.min() > 0
    assert (staircase.thresholds.diff() >= 0).all()


@every_case
def test_gradients_of_all(case):
    x = values_of(case).requires_grad_()
    quantizer = fitted(case, x)
    quantizer(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()
    for parameter in quantizer.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.all()


@every_case
def test_modes(case):
    x = values_of(case).requires_grad_()
    quantizer = build(case)
    with pytest.raises(RuntimeError, match='not been calibrated'):
        quantizer(x)
    fit(quantizer, x)
    hard = quantizer.eval()(x)
    quantizer.train().set_mode(Mode.FLOAT)
    assert torch.equal(quantizer(x), x)
    quantizer.set_mode(Mode.FIXED)
    fixed = quantizer(x)
    assert torch.equal(fixed, hard)
    fixed.sum().backward()
    for tensor in (x, *quantizer.parameters()):
        assert not tensor.grad.any()


@every_case
def test_empty_tensors(case):
    quantizer = fitted(case, values_of(case))
    x = torch.empty(CHANNELS, 0, requires_grad=True)
    quantized = quantizer(x)
    quantized.sum().backward()
    assert quantized.shape == x.grad.shape == x.shape
    assert all(not parameter.grad.any() for parameter in quantizer.parameters())
    assert quantizer.eval()(x).shape == x.shape


@every_case
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision(case, dtype, autocast):
    x = values_of(case).to(dtype)
    quantizer = fitted(case, x)
    x.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        quantized = quantizer(x)
        assert torch.equal(quantized, quantizer.staircase(x).quantize(x))
    assert quantized.dtype is (torch.float32 if autocast else dtype)
    quantized.float().square().sum().backward()
    assert x.grad.dtype is dtype
    exact = x.detach().float().requires_grad_()
    own = copy.deepcopy(quantizer)
    own.zero_grad()
    own(exact).square().sum().backward()
    torch.testing.assert_close(x.grad.float(), exact.grad, rtol=0.02, atol=0.02)
    for found, expected in zip(quantizer.parameters(), own.parameters(), strict=True):
        assert found.grad.dtype is torch.float32
        torch.testing.assert_close(found.grad, expected.grad, rtol=0.05, atol=0.05)


@every_case
def test_other_memory_layouts(case):
    x = values_of(case, 60).view(CHANNELS, 3, 4, 5)
    quantizer = fitted(case, x.flatten(1))
    quantizer.scale_shape = (CHANNELS, 1, 1, 1) if quantizer.scale_shape else ()
    for parameter in quantizer.parameters():
        parameter.data = parameter.data.view(quantizer.scale_shape)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        own = x.clone(memory_format=layout).requires_grad_()
        quantized = quantizer(own)
        assert quantized.is_contiguous(memory_format=layout)
        quantized.square().sum().backward()
        results.append((quantized, own.grad))
    torch.testing.assert_close(*results)


@every_case
def test_copies_and_checkpoints(case):
    x = values_of(case)
    source, target = fitted(case, x), build(case)
    target.load_state_dict(source.state_dict())
    for quantizer in (target, copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert quantizer.is_calibrated
        assert torch.equal(quantizer.eval()(x), source.eval()(x))


@every_case
def test_compiled_without_a_graph_break(case):
    x = values_of(case).requires_grad_()
    quantizer = fitted(case, x)
    torch.compiler.reset()  # it counts how often the forward pass was compiled, for all of them
    compiled = torch.compile(quantizer, backend='aot_eager', fullgraph=True)
    found, expected = compiled(x), quantizer(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    inputs = [x, *quantizer.parameters()]
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected)]
    torch.testing.assert_close(*gradients)


@every_case
def test_it_has_no_temperature_and_logs_what_it_learns(case):
    quantizer = fitted(case, values_of(case))
    assert not isinstance(quantizer, HasTemperature)
    scalars = quantizer.scalars()
    assert bool(scalars) == bool(list(quantizer.parameters()))
    assert all(value.dim() == 0 and value.isfinite() for value in scalars.values())


@every_case
@pytest.mark.parametrize('x', [torch.zeros(4, 20), torch.full((4, 20), 1e-30), torch.ones(4, 20)])
def test_values_that_say_nothing(case, x):
    quantizer = fitted(case, x)
    x = x.clone().requires_grad_()
    quantized = quantizer(x)
    assert quantized.isfinite().all()
    quantized.square().sum().backward()
    for tensor in (x, *quantizer.parameters()):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize('case', [case for case in CASES if 'channels' in case])
def test_dead_channels(case):
    x = torch.randn(CHANNELS, 50)
    x[1], x[2] = 0, 1e-30
    quantizer = fitted(case, x)
    x.requires_grad_()
    quantized = quantizer(x)
    assert quantized[1:3].abs().max() < 1e-4
    (1e3 * quantized.sum()).backward()
    for tensor in (x, *quantizer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() < 1e7


class Net(nn.Module):
    """Two convolutions, of which the second has inputs that are not negative."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu())


@pytest.mark.parametrize('weight', WEIGHTS)
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_a_converted_model_calibrates_and_learns(weight, activation):
    model = Net()
    settings = dict(weight=WEIGHTS[weight], activation=ACTIVATIONS[activation])
    convert(model, QuantizationConfig(**settings, keep_float=[]))
    x, target = torch.rand(8, 3, 10, 10), torch.rand(8, 4, 6, 6)
    assert len(calibrate(model, [x], model)) == 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(q.is_calibrated and q.is_active for q in quantizers_of(model).values())
    model.norm.eval()
    soft = model(x)
    torch.testing.assert_close(model.eval()(x), soft)


@pytest.mark.parametrize('case', WEIGHTS)
def test_pictures(case):
    layer = QuantConv2d(3, CHANNELS, 3, weight_quantizer=WEIGHTS[case])
    model = nn.Sequential(layer)
    calibrate(model, [torch.rand(1, 3, 4, 4)], model)
    source = weight_values(model, '0')
    function = drawn_function(source)
    assert function.edges.isfinite().all()
    assert function.scaled == ('channels' in case)
    quantizer = layer.weight_quantizer
    assert float(code_shares(source).sum()) == pytest.approx(1)
    assert 0 < relative_error(source) < 10  # DoReFa has the range [-1, 1] whatever the weights
    draw_staircase(source)
    assert describe(source).startswith(f'{quantizer.num_bits}-bit weights')


@pytest.mark.parametrize(
    ('case', 'levels'),
    [
        ('LSQ, inputs', list(range(-8, 8))),
        ('LSQ+', list(range(16))),
        ('PACT', None),
        ('PACT, largest value', None),
        ('DoReFa, inputs', None),
    ],
)
def test_symmetric_inputs(case, levels):
    x = torch.randn(CHANNELS, 40)
    quantizer = fitted(case, torch.cat([x, -x], 1))
    assert quantizer.is_active == (levels is not None)
    if levels:
        assert quantizer.levels.tolist() == levels


@pytest.mark.parametrize('case', ['LSQ, inputs', 'LSQ+'])
def test_lopsided_inputs(case):
    """LSQ's integers move, LSQ+ has an offset of its own."""
    x = F.silu(2 * torch.randn(CHANNELS, 400))
    quantizer, symmetric = fitted(case, x), fitted('LSQ, inputs', x, **SYMMETRIC)
    assert (quantizer.levels[0] == -1) if case == 'LSQ, inputs' else (quantizer.levels[0] == 0)
    errors = [(q.eval()(x) - x).square().sum() for q in (quantizer, symmetric)]
    assert errors[0] <= 1.01 * errors[1]


@pytest.mark.parametrize('case', ['LSQ, inputs', 'LSQ+', 'PACT', 'DoReFa, inputs', 'LSQ'])
def test_shared_by_all_layers(case):
    model = Net()
    role = 'weight' if case in WEIGHTS else 'activation'
    settings = {role: CASES[case] | dict(granularity='model')}
    convert(model, QuantizationConfig(**settings, keep_float=[]))
    x = torch.rand(2, 3, 8, 8)
    calibrate(model, [x], model)
    (quantizer,) = quantizers_of(model).values()
    assert quantizer.is_active
    assert model(x).isfinite().all()


@pytest.mark.parametrize(
    ('role', 'settings', 'message'),
    [
        ('weight', dict(type='PACT', levels='uint4'),
         r"`q\.type` should be a method for weights, such as 'LSQ' or 'DoReFa', but got 'PACT'"),
        ('weight', dict(type='LSQPlus', levels='int4'), "such as 'LSQ'.*but got 'LSQPlus'"),
        ('activation', dict(type='BWN', levels='binary'),
         "for activations, such as 'LSQ' or 'PACT', but got 'BWN', which quantizes weights"),
        ('activation', dict(type='TWN', levels='ternary'), "but got 'TWN'"),
        ('weight', dict(type='BWN', levels='ternary'), r"`q\.levels` should be 'binary'.*BWN"),
        ('weight', dict(type='TWN', levels='int4'), r"`q\.levels` should be 'ternary'.*TWN"),
        ('activation', dict(type='PACT', levels='int4'), r'`q\.levels` should start at 0.*PACT'),
        ('activation', dict(type='PACT', levels='uint2', signed_levels='int2'), 'as many levels'),
        ('activation', dict(type='PACT', levels='uint2', signed_levels=[-2, -1, 0, 1]),
         r"`q\.signed_levels` should be 'auto' or None"),
        ('activation', dict(type='PACT', levels='uint2') | SYMMETRIC,
         r"`q\.signed_levels` should be 'auto' or None.*'symmetric'"),
        ('activation', dict(type='DoReFa', levels='uint2') | SYMMETRIC,
         r"`q\.signed_levels` should be 'auto' or None.*'symmetric'"),
        ('activation', dict(type='LSQPlus', levels='uint2') | SYMMETRIC,
         r"`q\.signed_levels` should be 'auto'.*'symmetric'"),
        ('activation', dict(type='LSQ', levels='int4', signed_levels='symetric'),
         r'`q\.signed_levels` should be one of'),
        ('activation', dict(type='LSQ', levels='int4', signed_levels='int2'),
         r"`q\.signed_levels` should be 'auto' beside `levels`.*'int2'"),
        ('weight', dict(type='os.path', levels='int4'), r"`q\.type` should be.*'os\.path'"),
        ('weight', dict(type='lsq', levels='int4'), r"but got 'lsq'. Did you mean 'LSQ'\?"),
        ('activation', dict(type='PACT', levels='uint2', clip_init=-1), 'clip_init`.*positive'),
        ('activation', dict(type='PACT', levels='uint2', clip_init='mean'), "'mse' or 'max'"),
        ('activation', dict(type='PACT', levels='uint2', clip_init=None), 'clip_init'),
        ('activation', dict(type='DoReFa', levels='int4'), 'should start at 0, where DoReFa clips'),
        ('activation', dict(type='DoReFa', levels='uapot4'), 'evenly spaced for DoReFa'),
        ('activation', dict(type='DoReFa', levels='uint2', rescale=True), "key 'rescale'"),
        ('weight', dict(type='DoReFa', levels=[-2, -1, 0, 1]), 'evenly spaced and symmetric'),
        ('weight', dict(type='DoReFa', levels='pm4'), 'evenly spaced and symmetric'),
        ('weight', dict(type='DoReFa', levels='int2', granularity='channel'), 'granularity'),
        ('weight', dict(type='DoReFa', levels='int2', rescale=1), 'should be True or False'),
        ('weight', dict(type='BWN', levels='binary', granularity='model'), 'granularity'),
        ('weight', dict(type='TWN', levels='ternary', granularity='model'), 'granularity'),
        ('weight', dict(type='LSQ', levels='int4', step_init='paper'), "step_init`.*'mean' or"),
        ('weight', dict(type='LSQ', levels='int4', thresholds='kmeans'), "key 'thresholds'"),
        ('activation', dict(type='LSQ', levels=[-1, 0]), r'levels` should have a level above 0'),
        ('activation', dict(type='LSQ', levels='uint1', signed_levels=[-1, 0]),
         r'`q\.signed_levels` should have a level above 0'),
    ],
)  # fmt: skip
def test_what_a_method_cannot_do_is_refused(role, settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        quantizer_config(settings, role, 'q')


def test_a_class_is_named_in_messages():
    with pytest.raises(ValueError, match="but got 'PACT', which"):
        quantizer_config(dict(type=QUANTIZERS.get('PACT'), levels='uint2'), 'weight', 'q')


def test_a_checkpoint_of_another_method_is_refused():
    layers = [
        QuantConv2d(3, CHANNELS, 3, weight_quantizer=WEIGHTS[case])
        for case in ('LSQ', 'DoReFa, rescaled')
    ]
    changed = layers[0].state_dict()
    changed['weight_quantizer.levels'] = layers[1].weight_quantizer.levels
    with pytest.raises(ValueError, match=r'holds `weight_quantizer\.log_step`'):
        layers[1].load_state_dict(changed)


@pytest.mark.parametrize(
    ('saved', 'case', 'message'),
    [
        ('TWN', 'DoReFa, rescaled', "holds `twn` and lacks `dorefa_rescaled`.*than 'DoReFa'"),
        ('DoReFa, binary', 'BWN', "holds `dorefa` and lacks `bwn`.*than 'BWN'"),
        ('BWN', 'BWN, channels', r'`bwn` has the shape \(\), but .* \(4, 1\): take the `granula'),
        ('TWN, channels', 'TWN', r'`twn` has the shape \(4, 1\), .*: take the `granularity`'),
    ],
)
def test_methods_without_parameters_are_told_apart_too(saved, case, message):
    with pytest.raises(ValueError, match=message):
        build(case).load_state_dict(build(saved).state_dict())


def test_rescaling_is_told_apart_where_it_has_an_effect():
    saved = build('DoReFa, rescaled').state_dict()
    with pytest.raises(ValueError, match=r'lacks `dorefa`.* or with other settings'):
        build('DoReFa, rescaled', rescale=False).load_state_dict(saved)
    build('DoReFa, binary', rescale=True).load_state_dict(build('DoReFa, binary').state_dict())


@pytest.mark.parametrize('case', ['BWN, channels', 'TWN', 'DoReFa', 'DoReFa, inputs'])
def test_checkpoints_of_before_the_marks_load(case):
    quantizer = fitted(case, values_of(case))
    state = quantizer.state_dict()
    del state[quantizer.config.mark]
    other = build(case)
    other.load_state_dict(state)
    assert other.is_calibrated


@every_case
class TestEvaluation:
    def test_its_gradient_is_that_of_the_training(self, case):
        values = values_of(case).float()
        quantizer = fitted(case, values)
        gradients = []
        for training in (True, False):
            x = values.clone().requires_grad_()
            out = quantizer.train(training)(x)
            (out * torch.linspace(-1, 1, x.numel()).view_as(x)).sum().backward()
            gradients.append([x.grad, *(p.grad for p in quantizer.parameters())])
            quantizer.zero_grad()
        assert torch.equal(out, quantizer(values))
        assert gradients[0][0].abs().sum() > 0
        for trained, evaluated in zip(*gradients, strict=True):
            assert torch.equal(trained, evaluated)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision_keeps_its_scales(self, case, dtype):
        values = values_of(case).float()
        quantizer = fitted(case, values).eval()
        before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
        quantizer.to(dtype)
        for name, tensor in quantizer.state_dict().items():
            assert tensor.dtype == before[name].dtype
            assert torch.equal(tensor, before[name])
        x = values.to(dtype)
        assert torch.equal(quantizer(x), quantizer(x.float()).to(dtype))
        assert quantizer.double().levels.dtype == torch.float64

    def test_it_can_be_built_without_memory(self, case):
        with torch.device('meta'):
            quantizer = build(case)
        assert f'levels={len(quantizer.config.levels)}' in repr(quantizer)
        values = values_of(case).float()
        quantizer = quantizer.to_empty(device='cpu')
        quantizer.load_state_dict(fitted(case, values).state_dict())
        assert torch.equal(quantizer.eval()(values), fitted(case, values).eval()(values))
