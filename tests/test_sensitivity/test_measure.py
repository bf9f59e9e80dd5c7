"""The fast estimate against its formula and the direct way; stopped and resumed measurements."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import DETECTORS, small_config
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from toy_data import make_configs, make_data, write_float_checkpoint
from toy_models import activation_config, weight_config

from mmqnet.calibration import collect_samples
from mmqnet.layers import QuantLinear
from mmqnet.models import QuantizationConfig, build_model, load_weights
from mmqnet.quantizers import quantizers_of
from mmqnet.sensitivity import (
    TrainingLoss,
    count_products,
    layers_of,
    load_sensitivities,
    measure_direct,
    measure_fast,
    parse_choices,
    prepare,
    quantizers_off,
)
from mmqnet.sensitivity.direct import replaced
from mmqnet.sensitivity.fast import estimate_errors
from mmqnet.sensitivity.record import check_same

RTMDET = Path(__file__).parents[2] / 'configs' / 'demo' / 'rtmdet_tiny_w4-a4u_digits.py'
WEIGHT = 'backbone.layer4.1.conv2.weight_quantizer'


class Twice(nn.Module):
    """Calls its layer two times, so that errors of both calls add up."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = dict(weight_quantizer=weight_config(), input_quantizer=activation_config('uint2'))
        self.layer = QuantLinear(6, 6, **layer)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


def test_the_estimate_is_half_the_square_of_gradient_times_error():
    model, x = Twice(), torch.rand(4, 6)
    samples = collect_samples(model, [x], model)
    alternatives = {}
    for name, quantizer in quantizers_of(model).items():
        other = copy.deepcopy(quantizer).eval()
        other.initialize(samples[name])
        alternatives[name] = {3: other}
    with quantizers_off(model):
        found = estimate_errors(model, alternatives, lambda: model(x).square().sum())
        weight = model.layer.weight.detach().requires_grad_()
        first = x.clone().requires_grad_()
        hidden = nn.functional.linear(first, weight, model.layer.bias).relu()
        nn.functional.linear(hidden, weight, model.layer.bias).square().sum().backward(
            inputs=[weight, first, hidden], retain_graph=True
        )
    of_weight = alternatives['layer.weight_quantizer'][3]
    product = ((of_weight(weight) - weight) * weight.grad).sum()
    assert found['layer.weight_quantizer'][3] == pytest.approx(float(product**2 / 2), rel=1e-4)
    of_input = alternatives['layer.input_quantizer'][3]
    product = sum(((of_input(z) - z) * z.grad).sum() for z in (first, hidden))
    assert found['layer.input_quantizer'][3] == pytest.approx(float(product**2 / 2), rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A detector in float, its training data and a function that starts a measurement."""
    folder = tmp_path_factory.mktemp('sensitivity')
    configs = make_configs(folder / 'configs', make_data(folder / 'data'))
    config = Config.fromfile(configs / 'quantized.py')
    config.model.quantization.include = ['backbone.layer4']
    model = build_model(config)
    load_weights(model, str(write_float_checkpoint(configs, folder / 'float.pth')))
    train = Runner.build_dataloader(config.train_dataloader, seed=0)
    choices = parse_choices(['w2-a2', 'w3-a4', 'w8-a8'])

    def start(method):
        settings = dict(method=method, measure='loss', num_samples=4)
        settings.update(seed=0, calibration_samples=4)
        quantization = config.model.quantization.to_dict()
        return prepare(model, quantization, choices, train, settings)

    return model, train, start, config


@pytest.mark.parametrize('own_sampler', [False, True])
def test_the_mean_loss_is_taken_in_batches_of_the_training(prepared, own_sampler):
    """With a batch sampler too, as COCO's configs have it."""
    model, train, _, _ = prepared
    settings = dict(batch_size=3)
    if own_sampler:
        settings = dict(batch_sampler=BatchSampler(SequentialSampler(train.dataset), 3, False))
    loader = DataLoader(train.dataset, collate_fn=train.collate_fn, **settings)
    sizes = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs['inputs'])), with_kwargs=True
    )
    with quantizers_off(model):
        mean = TrainingLoss(model, loader, 7).mean()
    hook.remove()
    assert mean > 0
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize('name', ['FCOS', 'VFNet', 'DINO'])
def test_the_loss_is_that_of_the_training(prepared, name):
    """In evaluation FCOS has larger boxes, VFNet fewer outputs and DINO no denoising."""
    (family,) = (family for family in DETECTORS if family.name == name)
    settings = small_config(family).model
    if name == 'FCOS':
        settings.bbox_head.norm_on_bbox = True
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(settings)
    for module in model.train().modules():  # whose backbone has frozen statistics
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    loss = TrainingLoss(model, prepared[1], 1)
    expected = float(loss.of_sample(0))
    with quantizers_off(model):
        assert float(loss.of_sample(0)) == pytest.approx(expected, rel=1e-5)
        assert not any(module.training for module in model.modules())


class Stopped(TrainingLoss):
    """Is interrupted at the third sample."""

    def of_sample(self, position):
        if position == 2:
            raise KeyboardInterrupt
        return super().of_sample(position)


def test_a_stopped_estimate_goes_on(prepared, tmp_path):
    model, train, start, _ = prepared
    whole, alternatives = start('fast')
    part, _ = start('fast')
    with quantizers_off(model):
        measure_fast(whole, model, alternatives, TrainingLoss(model, train, 4), tmp_path / 'a')
        with pytest.raises(KeyboardInterrupt):
            measure_fast(part, model, alternatives, Stopped(model, train, 4), tmp_path / 'b')
        found = load_sensitivities(tmp_path / 'b')
        assert (found.samples_done, found.is_complete) == (2, False)
        check_same(found, whole, 'b')
        measure_fast(found, model, alternatives, TrainingLoss(model, train, 4), tmp_path / 'b')
    assert whole.is_complete
    assert (tmp_path / 'a').read_text() == (tmp_path / 'b').read_text()
    assert all(error > 0 for errors in whole.errors.values() for error in errors.values())


def test_a_stopped_direct_measurement_goes_on(prepared, tmp_path):
    model, train, start, _ = prepared
    record, alternatives = start('direct')
    with quantizers_off(model):
        loss = TrainingLoss(model, train, 4)
        calls = []

        def evaluate():
            if len(calls) == 3:
                raise KeyboardInterrupt
            calls.append(loss.mean())
            return calls[-1]

        with pytest.raises(KeyboardInterrupt):
            measure_direct(record, model, alternatives, evaluate, tmp_path / 'a')
        found = load_sensitivities(tmp_path / 'a')
        total = sum(map(len, found.errors.values()))
        assert len(found.missing()) == total - 2
        measure_direct(found, model, alternatives, loss.mean, tmp_path / 'a')
        assert loss.mean() == found.reference  # nothing of a quantizer is left behind
        with replaced(model, WEIGHT, alternatives[WEIGHT][2]):
            assert loss.mean() - found.reference == found.errors[WEIGHT][2] != 0
    assert load_sensitivities(tmp_path / 'a').is_complete
    with pytest.raises(ValueError, match=r'other `method`: .direct. there, .fast. now; name anot'):
        check_same(found, start('fast')[0], 'a')


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ([float('nan')], r'^the loss of the float model should be finite, but is nan: check'),
        ([1.0, 2.0, float('inf')], r'^the loss with `\S+_quantizer` of 3 bits alone .* but is inf'),
    ],
)
def test_a_direct_figure_that_is_not_finite(prepared, tmp_path, values, message):
    record, alternatives = prepared[2]('direct')
    left = iter(values)
    with pytest.raises(ValueError, match=message):
        measure_direct(
            record, prepared[0], alternatives, lambda: next(left), tmp_path / 'direct.json'
        )
    if len(values) > 1:
        found = load_sensitivities(tmp_path / 'direct.json')
        assert found.reference == 1
        assert [e for of in found.errors.values() for e in of.values() if e is not None] == [1]


def test_damaged_figures_and_settings(prepared, tmp_path):
    record, _ = prepared[2]('direct')
    path = tmp_path / 'x.json'
    record.errors[WEIGHT][3] = float('nan')
    record.save(path)
    with pytest.raises(ValueError, match=rf'x\.json.*`errors\.{WEIGHT}\.3` should .* but is nan'):
        load_sensitivities(path)
    record.errors[WEIGHT][3] = None
    record.reference = float('inf')
    record.save(path)
    with pytest.raises(ValueError, match=r'x\.json.*`reference` should be a finite .* is inf'):
        load_sensitivities(path)
    record.reference = None
    del record.settings['measure']
    record.save(path)
    with pytest.raises(ValueError, match=r'x\.json.*`settings\.measure` is missing'):
        load_sensitivities(path)


def test_layers_and_what_they_cost(prepared):
    record, _ = prepared[2]('fast')
    layers = {layer.name.removeprefix('backbone.layer4.'): layer for layer in record.layers}
    assert list(layers) == ['0.conv1', '0.conv2', '0.downsample.0', '1.conv1', '1.conv2']
    shared = {layers[name].input_quantizer for name in ('0.conv1', '0.downsample.0')}
    assert shared == {'backbone.layer4.0.input_quantizer'}
    conv = layers['1.conv2']  # of a picture of 64 x 64, at stride 32
    assert (conv.num_weights, conv.num_products) == (64 * 64 * 9, 64 * 64 * 9 * 4)
    assert (conv.weight_bits, conv.activation_bits, conv.weight_quantizer) == (3, 4, WEIGHT)


def test_layers_are_in_the_order_of_the_network():
    """RTMDet registers the last convolution of a block before those in its midst."""
    config = Config.fromfile(RTMDET)
    model = build_model(config)
    picture = DetDataSample(metainfo=dict(img_shape=(64, 64)))
    batch = dict(inputs=[torch.zeros(3, 64, 64, dtype=torch.uint8)], data_samples=[picture])
    with quantizers_off(model):
        products = count_products(model, batch)
    quantization = QuantizationConfig.from_dict(config.model.quantization.to_dict())
    names = [layer.name for layer in layers_of(model, quantization, products)]
    assert sorted(names) == sorted(layer.name for layer in model.quantization_report.quantized)
    block = [name.split('.')[3] for name in names if name.startswith('backbone.stage1.1.')]
    assert block == ['short_conv', 'main_conv', *['blocks'] * 3, 'attention', 'final_conv']
    assert names[-1].startswith('bbox_head.reg_convs.')


class Reversed(BaseModel):
    """Calls its layers in the reverse order, the second one not at all."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Twice().layer for _ in range(3))

    def forward(self, inputs, mode):
        return self.layers[0](self.layers[2](inputs))


def test_layers_without_a_call_are_the_last():
    model = Reversed()
    with quantizers_off(model):
        products = count_products(model, dict(inputs=torch.rand(1, 6)))
    assert list(products.items()) == [('layers.2', 36), ('layers.0', 36), ('layers.1', 0)]


def test_files_of_another_order_go_on(prepared, tmp_path):
    record, _ = prepared[2]('fast')
    old = copy.deepcopy(record)
    old.layers.reverse()
    old.save(tmp_path / 'old.json')
    check_same(load_sensitivities(tmp_path / 'old.json'), record, 'old.json')
    old.layers[0] = replace(old.layers[0], num_weights=1)
    with pytest.raises(ValueError, match=r'was measured with other `layers`; name another file'):
        check_same(old, record, 'old.json')


def test_other_batch_statistics_are_another_model(prepared):
    model, _, start, _ = prepared
    record, _ = start('fast')
    variance = model.get_submodule('backbone.bn1').running_var
    variance *= 4
    try:
        changed, _ = start('fast')
    finally:
        variance /= 4
    with pytest.raises(ValueError, match=r'was measured with other `weights`'):
        check_same(record, changed, 'a')


def test_what_the_config_says_of_a_layer_stays(prepared):
    config = copy.deepcopy(prepared[3])
    config.model.quantization.overrides = {'*.layer4.0.conv1': dict(weight=dict(levels='int8'))}
    model = build_model(config)
    quantization = QuantizationConfig.from_dict(config.model.quantization)
    layers = layers_of(model, quantization, dict.fromkeys(dict(model.named_modules()), 1))
    choices = [(bool(layer.weight_quantizer), bool(layer.input_quantizer)) for layer in layers]
    # the input of the first block is read by its downsample layer too
    assert choices == [(False, False), (True, True), (True, False), (True, True), (True, True)]
    assert (layers[0].weight_bits, layers[2].activation_bits) == (8, 4)


def test_a_layer_that_no_choice_fits_is_found_before_the_measurement(prepared):
    _, train, _, config = prepared
    config = copy.deepcopy(config)
    config.model.quantization.update(include=['backbone.conv1'], keep_float=[])
    config.model.quantization.activation.signed_levels = None  # pictures have a sign
    model, quantization = build_model(config), config.model.quantization.to_dict()
    settings = dict(method='fast', seed=0, calibration_samples=2)
    message = r'no choice of w4-a4, w2-a2 fits the layer `backbone\.conv1`, .* with a32 too$'
    with pytest.raises(ValueError, match=message):
        prepare(model, quantization, parse_choices(['w4-a4', 'w2-a2']), train, settings)
    record, _ = prepare(model, quantization, parse_choices(['w4-a4', 'w2-a32']), train, settings)
    assert [str(choice) for choice in record.choices_of(record.layers[0])] == ['w2-a32']


def test_rank_correlation(prepared):
    record, _ = prepared[2]('fast')
    other = copy.deepcopy(record)
    for number, (name, bits) in enumerate(record.missing()):
        record.errors[name][bits], other.errors[name][bits] = number, number**3
    ranks = record.rank_correlation(other)
    assert set(ranks) == {'all', 'w2', 'w3', 'w8', 'a2', 'a4', 'a8'}
    assert all(value == pytest.approx(1) for value in ranks.values())
    *most, _ = [errors for name, errors in other.errors.items() if name.endswith('input_quantizer')]
    for errors in most:
        errors[8] = None
    assert 'a8' not in record.rank_correlation(other)  # a pair has no order
    with pytest.raises(ValueError, match='should be of one model'):
        record.rank_correlation(prepared[2]('fast')[0])


@pytest.mark.parametrize('text', ['{', '[]', '{"format": "COCO"}', '{"format": 1, "errors": {}}'])
def test_what_is_no_file_of_sensitivities(tmp_path, text):
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(ValueError, match=r"x\.json' is no file of tools/sensitivity\.py"):
        load_sensitivities(tmp_path / 'x.json')


@pytest.mark.parametrize(
    ('changes', 'choice', 'message'),
    [
        (
            dict(activation=None),
            'w4-a8',
            r'`quantization\.activation` should be in the config.*a32',
        ),
        (dict(weight=dict(levels='pm4', granularity='model')), 'w4-a4', r"but got 'model': all"),
        (
            dict(weight=dict(type='TWN', levels='ternary')),
            'w4-a4',
            r"^the choice 'w4-a4' is not possible: `quantization\.weight.*TWN.* 15 levels -7\.\.7$",
        ),
    ],
)
def test_choices_that_a_config_does_not_allow(prepared, changes, choice, message):
    _, train, _, config = prepared
    config = copy.deepcopy(config)
    config.model.quantization.update(changes)
    model, quantization = build_model(config), config.model.quantization.to_dict()
    settings = dict(method='fast', seed=0, calibration_samples=2)
    with pytest.raises(ValueError, match=message):
        prepare(model, quantization, parse_choices([choice]), train, settings)
