"""One function for all layers of a model: calibration, training, checkpoints, pictures."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_state_dict
from torch import nn
from toy_models import W3A8, build, calibrated, classifier, quantized, resnet

from mmqnet import visualization as vis
from mmqnet.calibration import calibrate
from mmqnet.layers import (
    QuantizedLayer,
    QuantLinear,
    activation_quantizers,
    parameter_roles,
    weight_quantizers,
)
from mmqnet.models import QuantizationConfig, convert
from mmqnet.quantizers import DoReFa, Mode, quantizers_of
from mmqnet.quantizers.quantization_network.thresholds import initial_thresholds

SHARED = dict(
    weight=dict(levels='pm4', granularity='model'),
    activation=dict(levels='uint2', granularity='model'),
)
NAMES = ['shared_weight_quantizer', 'shared_input_quantizer']


@pytest.fixture(scope='module')
def images():
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(images):
    torch.manual_seed(0)
    return calibrated(build(quantized(classifier(), **SHARED), 'mmpretrain'), images)


def weights_of(model):
    return [m.weight for m in model.modules() if isinstance(m, QuantizedLayer)]


def test_the_model_holds_one_quantizer_of_each_kind(model):
    assert list(quantizers_of(model)) == NAMES
    assert list(weight_quantizers(model)) == NAMES[:1]
    assert list(activation_quantizers(model)) == NAMES[1:]
    layers = [m for m in model.modules() if isinstance(m, QuantizedLayer)]
    assert len(layers) == 19
    assert {id(layer.weight_quantizer) for layer in layers} == {id(model.shared_weight_quantizer)}
    blocks = [stage[0] for stage in (model.backbone.layer1, model.backbone.layer4)]
    for reader in (*blocks, blocks[0].conv2):
        assert reader.input_quantizer is model.shared_input_quantizer
    float_keys = build(classifier(), 'mmpretrain').state_dict().keys()
    added = model.state_dict().keys() - float_keys
    assert all(key.startswith('shared_') for key in added)
    assert 'shared' in next(
        line for line in model.quantization_report.table().splitlines() if 'layer1.0.conv2' in line
    )


def test_calibration_sees_all_layers_together(model, images):
    seen = []
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer):
            layer.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for quantizer in quantizers_of(model).values():
        quantizer.set_mode(Mode.FLOAT)
    with torch.no_grad():
        model.eval()(images)
    weights = torch.cat([weight.flatten() for weight in weights_of(model)])
    weight, activation = quantizers_of(model).values()
    torch.testing.assert_close(weight.beta, 1.25 * 4 / weights.abs().max())
    torch.testing.assert_close(activation.beta, 1.25 * 3 / max(x.abs().max() for x in seen))
    assert activation.levels.tolist() == [0, 1, 2, 3]
    exact = initial_thresholds(weight.beta * weights, weight.levels.tolist(), 'kmeans', 0.05)
    torch.testing.assert_close(weight.thresholds, exact, rtol=0.05, atol=0.0)


class Signed(nn.Module):
    """The second of three layers reads what no ReLU has cut off."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        first, second, third = self.layers
        return third(second(first(x)).relu())


def signed_model(**activation):
    activation = dict(levels='uint2', granularity='model') | activation
    config = dict(keep_float=['first'], activation=activation)
    model = Signed()
    convert(model, QuantizationConfig.from_dict(config))
    return model


def test_one_signed_input_makes_all_signed():
    model = signed_model()
    calibrate(model, [torch.randn(32, 8)], model)
    assert model.shared_input_quantizer.levels[0] < 0


@pytest.mark.parametrize(
    ('activation', 'reason'),
    [
        (dict(signed_levels=None), 'QuantizationNetwork with `signed_levels=None`'),
        (dict(type='PACT'), "PACT with `signed_levels='auto'`"),
        (dict(type=DoReFa), "DoReFa with `signed_levels='auto'`"),
    ],
)
def test_one_signed_input_would_leave_all_in_float(activation, reason):
    model = signed_model(**activation)
    message = f'share `shared_input_quantizer` are signed, and {reason} would.*exclude'
    with pytest.raises(ValueError, match=message):
        calibrate(model, [torch.randn(32, 8)], model)


@pytest.fixture
def process_group(tmp_path):
    """A group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    'mode', [(Mode.LEARNED, Mode.FLOAT), (Mode.FIXED, Mode.LEARNED), (Mode.LEARNED, Mode.LEARNED)]
)
def test_every_phase_under_data_parallel(model, images, mode, process_group):
    """Each parameter gets its gradient once, or the second pass would fail."""
    weight, activation = quantizers_of(model).values()
    weight.set_mode(mode[0])
    activation.set_mode(mode[1])
    model.train()
    parallel = nn.parallel.DistributedDataParallel(model)
    for _ in range(2):
        model.zero_grad()
        parallel(images).square().sum().backward()
    for quantizer in (weight, activation):
        learns = int(quantizer.mode) == Mode.LEARNED
        assert bool(quantizer.log_beta.grad.abs() > 0) == learns


def test_checkpointed_blocks_under_data_parallel(process_group):
    with pytest.raises(ValueError, match='`with_cp=True` exclude each other on several processes'):
        build(quantized(resnet(with_cp=True), **SHARED))


def test_roles_and_parameter_groups(model):
    roles = parameter_roles(model)
    scales = {f'{name}.log_{scale}' for name in NAMES for scale in ('alpha', 'beta')}
    assert {name for name, role in roles.items() if role == 'scale'} == scales
    assert sum(role == 'quantized' for role in roles.values()) == 19
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmqnet.QuantOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1),
            paramwise_cfg=dict(scale=dict(lr=0.5)),
        ),
    )
    groups = wrapper.optimizer.param_groups
    assert sorted(len(g['params']) for g in groups if g['lr'] == 0.5) == [4]
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))


def test_checkpoints_and_copies(model, images):
    model.eval()
    expected = model(images)
    other = build(quantized(classifier(), **SHARED), 'mmpretrain').eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), expected)
    averaged = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    for twin in (copy.deepcopy(model), averaged.module):
        layer = twin.backbone.layer1[0].conv2
        assert layer.weight_quantizer is twin.shared_weight_quantizer
        assert layer.weight_quantizer is not model.shared_weight_quantizer
        with torch.no_grad():
            twin.shared_weight_quantizer.log_alpha += 1
        assert not torch.equal(twin.eval()(images), expected)
    assert torch.equal(model(images), expected)


def test_checkpoints_of_another_granularity_are_refused(model):
    by_layer = build(quantized(classifier(), **W3A8), 'mmpretrain')
    message = r'holds `{}`, but the config asks for a function of {}: take the `granularity`'
    with pytest.raises(ValueError, match=message.format('shared_weight_.*', 'each layer')):
        load_state_dict(by_layer, model.state_dict())
    with pytest.raises(
        ValueError, match=message.format('backbone.*weight_.*', 'all layers together')
    ):
        load_state_dict(model, by_layer.state_dict())


def test_what_a_model_quantizes_beside_the_checkpoint_is_no_mistake(model):
    only_weights = build(quantized(classifier(), weight=SHARED['weight']), 'mmpretrain')
    load_state_dict(model, only_weights.state_dict())
    mixed = quantized(classifier(), weight=SHARED['weight'], activation=W3A8['activation'])
    load_state_dict(build(mixed, 'mmpretrain'), only_weights.state_dict())


def test_a_frozen_stage_leaves_the_function_learning(images):
    config = resnet(frozen_stages=1, norm_eval=False)
    model = calibrated(build(quantized(config, **SHARED)), images)
    model.train()
    quantizer = model.shared_weight_quantizer
    assert quantizer.training
    assert quantizer.log_beta.requires_grad
    frozen = model.layer1[0].conv1
    assert not frozen.training
    quantizer.set_temperature(2.0)
    with torch.no_grad():
        soft = frozen.quantized_weight()
        model.eval()
        hard = frozen.quantized_weight()
    assert len(hard.unique()) <= 7 < len(soft.unique())


def test_pictures_show_what_each_layer_has(model, images):
    names = vis.weight_names(model)
    assert len(names) == 19
    first = vis.weight_values(model, 'backbone.layer1.0.conv2')
    assert torch.equal(first.values, model.backbone.layer1[0].conv2.weight)
    assert first.quantizer is model.shared_weight_quantizer
    assert len(vis.input_names(model)) == 16
    layers = ['backbone.layer1.0', 'backbone.layer4.1.conv2']
    seen = []
    block = model.backbone.layer1[0]
    block.register_forward_pre_hook(lambda _, x: seen.append(x[0]), prepend=True)
    found = vis.collect_inputs(model, layers, [images], model)
    assert len(seen) == 1
    assert found[layers[0]].values.max() == seen[0].max()  # not yet quantized
    assert found[layers[0]].values.max() != found[layers[1]].values.max()


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (
            SHARED | dict(overrides={'a': dict(weight=dict(levels='ternary'))}),
            r"`quantization\.overrides\['a'\]\.weight` differs from `quantization\.weight`, though",
        ),
        (dict(weight=dict(levels='pm4', granularity='net')), "'layer', 'channel' or 'model', but"),
        (dict(activation=dict(levels='uint2', granularity='channel')), "'layer' or 'model', but"),
    ],
)
def test_configs_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig.from_dict(config)


def test_overrides_that_do_not_contradict(images):
    overrides = {
        'backbone.layer1': dict(weight=dict(levels='ternary', granularity='layer')),
        'backbone.layer2': dict(weight=None),
    }
    config = quantized(classifier(), **SHARED, overrides=overrides)
    model = calibrated(build(config, 'mmpretrain'), images)
    assert len(quantizers_of(model)) == 2 + 4
    assert model.backbone.layer2[0].conv1.weight_quantizer is None


def test_places_that_cannot_share():
    config = QuantizationConfig.from_dict(dict(weight=SHARED['weight'], keep_float=[]))
    with pytest.raises(ValueError, match='Sequential would run it as one of its layers'):
        convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), config)
    with pytest.raises(ValueError, match=r"`weight_quantizer\.granularity` should not be 'model'"):
        QuantLinear(2, 2, weight_quantizer=SHARED['weight'])
