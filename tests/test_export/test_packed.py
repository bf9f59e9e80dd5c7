"""Packed checkpoints: small, the same in evaluation, and loaded by all that loads checkpoints."""

import copy
import errno
import json
import random
import warnings

import pytest
import torch
from method_cases import WEIGHTS
from mmengine.config import Config
from torch import nn
from toy_data import CLASSES, make_runner
from toy_models import build, calibrated, quantized, resnet

from mmqnet.calibration import calibrate
from mmqnet.export import packed_file
from mmqnet.export.packed import write_packed
from mmqnet.layers import QuantizedLayer, QuantLinear
from mmqnet.models import build_model, convert, load_weights
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.quantizers import Mode, Quantizer, Staircase, quantizers_of

CONFIG = Config(dict(model=dict(type='of the test')))
LEVELS = ['binary', 'ternary', 'pm2', 'pm4', 'int4', 'int5', 'int7', 'int8', [-1.0, 0.25, 3.0]]


def layers_of(model):
    return [
        m
        for m in model.modules()
        if isinstance(m, QuantizedLayer) and m.weight_quantizer is not None
    ]


def bits_of_weights(model):
    model.eval()
    return [layer.quantized_weight().view(torch.int32) for layer in layers_of(model)]


def same_weights(model, other):
    pairs = zip(bits_of_weights(model), bits_of_weights(other), strict=True)
    with torch.no_grad():
        return all(torch.equal(a, b) for a, b in pairs)


def make_layers(**weight):
    """Two layers with weights of different spread, converted and calibrated."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Flatten())
    with torch.no_grad():
        model[0].weight *= torch.logspace(-3, 1, 6).view(-1, 1, 1, 1)
    config = QuantizationConfig.from_dict(dict(weight=weight, keep_float=[]))
    convert(model, config)
    return calibrated(model, torch.rand(2, 3, 8, 8)).eval()


def fresh(**weight):
    with torch.random.fork_rng():
        torch.manual_seed(99)
        return make_layers(**weight)


@pytest.mark.parametrize('levels', LEVELS, ids=str)
@pytest.mark.parametrize('granularity', ['layer', 'channel'])
@torch.no_grad()
def test_every_level_set_evaluates_bit_by_bit(levels, granularity, tmp_path):
    weight = dict(levels=levels, granularity=granularity)
    model = make_layers(**weight)
    for layer in layers_of(model):  # as after a training: alpha and 1 / beta differ
        layer.weight_quantizer.log_alpha += 0.4 * torch.randn_like(layer.weight_quantizer.log_alpha)
    report = write_packed(model, CONFIG, tmp_path / 'p.pth')
    assert [layer.reason for layer in report.layers] == ['', '']
    assert report.layers[0].bits == layers_of(model)[0].weight_quantizer.num_bits
    other = fresh(**weight)
    assert not same_weights(model, other)
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(x), other(x))


@pytest.mark.parametrize('granularity', ['layer', 'channel'])
@torch.no_grad()
def test_learned_thresholds_out_of_order(granularity, tmp_path):
    weight = dict(levels='pm4', learn_thresholds=True, granularity=granularity)
    model = make_layers(**weight)
    thresholds = layers_of(model)[0].weight_quantizer.thresholds
    thresholds.copy_(torch.tensor([-2.0, -1.0, -1.2, 0.3, 0.301, 2.0]))  # one cell has no values
    write_packed(model, CONFIG, tmp_path / 'p.pth')
    other = fresh(**weight)
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)


@torch.no_grad()
def test_thresholds_by_kmeans_and_one_function_for_all_layers(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
            convert(self, QuantizationConfig.from_dict(config))

        def forward(self, x):
            return self.layers(x)

    weight = dict(levels='int4', thresholds='kmeans', granularity='model')
    config = dict(weight=weight, keep_float=[])
    model, other = (calibrated(Model(), torch.rand(2, 40)) for _ in range(2))
    report = write_packed(model, CONFIG, tmp_path / 'p.pth')
    assert [layer.reason for layer in report.layers] == ['', '']
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)


@torch.no_grad()
def test_a_layer_with_two_names_is_stored_once(tmp_path):
    def make():
        layer = nn.Conv2d(16, 16, 3)
        model = nn.ModuleDict(dict(a=nn.Sequential(layer), b=nn.Sequential(layer)))
        convert(model, QuantizationConfig.from_dict(dict(weight=dict(levels='pm4'), keep_float=[])))
        calibrate(model, [torch.rand(1, 16, 3, 3)], lambda x: model['a'](x))
        return model.eval()

    model, other = make(), make()
    report = write_packed(model, CONFIG, tmp_path / 'p.pth')
    assert len(report.layers) == 1
    codes = 16 * 16 * 9 * 3 / 8
    assert codes < report.ideal_bytes < 1.2 * codes
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)


class TriedLearnedStep(Quantizer):
    """Multiples of a learned step, as in docs/custom_quantizer.md."""

    def __init__(self, config, scale_shape=()):
        super().__init__(config, scale_shape)
        self.log_step = nn.Parameter(torch.zeros(self.scale_shape))

    def fit(self, sample):
        step = 2 * sample.values.abs().mean(1) / self.levels.abs().max().sqrt()
        self.log_step.copy_(step.clamp(min=1e-8).log().view(self.scale_shape))

    def learn(self, x):
        return self.staircase(x).quantize(x)

    def staircase(self, x):
        step = self.log_step.exp()
        middles = (self.levels[1:] + self.levels[:-1]) / 2
        return Staircase(self.levels, middles, step, 1 / step)


class TriedTernary(TriedLearnedStep):
    """Thresholds and scale from the weights, as in Ternary Weight Networks."""

    def staircase(self, x):
        threshold = 0.7 * x.double().abs().mean()
        alpha = x.double().abs()[x.abs() >= threshold].mean()
        edges = torch.stack([-threshold, threshold]).float()
        return Staircase(self.levels, edges, alpha.float(), torch.ones(()))


class TriedPercentile(TriedLearnedStep):
    """Thresholds that the codes do not tell: a share of the weights is cut off."""

    def staircase(self, x):
        edge = x.abs().quantile(0.3)
        edges = torch.stack([-edge, edge])
        return Staircase(self.levels, edges, x.abs().std(), torch.ones(()))


@pytest.mark.parametrize(
    ('method', 'reason'),
    [
        (TriedLearnedStep, ''),
        (TriedTernary, ''),
        (TriedPercentile, 'its quantizer gives other values to weights made from its codes'),
    ],
)
@torch.no_grad()
def test_other_methods_are_packed_or_named(method, reason, tmp_path):
    weight = dict(type=method, levels='ternary')
    model, other = make_layers(**weight), fresh(**weight)
    report = write_packed(model, CONFIG, tmp_path / 'p.pth')
    assert [layer.reason for layer in report.layers] == [reason] * 2
    assert report.layers[0].bits == (32 if reason else 2)
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)


RESCALED = {
    f'DoReFa, {bits} bits, rescaled': dict(
        type='DoReFa', levels=list(range(1 - 2**bits, 2**bits, 2)), rescale=True
    )
    for bits in (2, 3, 4)
}


@pytest.mark.parametrize('weight', (WEIGHTS | RESCALED).values(), ids=[*WEIGHTS, *RESCALED])
@torch.no_grad()
def test_all_layers_of_all_methods_are_packed(weight, tmp_path):
    """Scales that come from the weights too: those of the file give the same bits."""

    def make():
        model = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(12)))
        convert(model, QuantizationConfig.from_dict(dict(weight=weight, keep_float=[])))
        return calibrated(model, torch.rand(1, 16, 4, 4)).eval()

    model, other = make(), make()
    report = write_packed(model, CONFIG, tmp_path / 'p.pth')
    assert [layer.reason for layer in report.layers] == [''] * 12
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)


@torch.no_grad()
def test_what_cannot_be_packed_stays_in_float(tmp_path):
    def make():
        config = quantized(resnet(conv_cfg=dict(type='ConvWS')), weight=dict(levels='pm4'))
        return calibrated(build(config), torch.rand(1, 3, 32, 32))

    model, other = make(), make()
    report = write_packed(model, CONFIG, tmp_path / 'p.pth')
    reasons = {layer.reason for layer in report.layers}
    assert reasons == {'it standardizes its weights before it quantizes them'}
    load_weights(other, str(tmp_path / 'p.pth'))
    assert same_weights(model, other)

    model = make_layers(levels=list(range(-150, 151)))
    next(iter(quantizers_of(model).values())).set_mode(Mode.FLOAT)
    reasons = [layer.reason for layer in write_packed(model, CONFIG, tmp_path / 'p.pth').layers]
    assert reasons == ['its quantizer is off', 'it has more than 256 levels']


def test_a_model_that_is_not_calibrated_is_refused(tmp_path):
    model = nn.Sequential(QuantLinear(4, 2, weight_quantizer=dict(levels='pm4')))
    with pytest.raises(RuntimeError, match='has not been calibrated'):
        write_packed(model, CONFIG, tmp_path / 'p.pth')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('config', 'shape'),
    [
        ('demo/ssd_r18_w2-a2u_digits.py', (96, 96)),
        ('demo/ssd_r18_w3-a8u_digits.py', (96, 96)),
        ('resnet/resnet18_w1-a1_in1k.py', (64, 64)),
        ('resnet/resnet18_w3-a32_in1k.py', (64, 64)),
    ],
)
@torch.no_grad()
def test_the_file_is_at_most_two_percent_above_the_ideal(config, shape, root, tmp_path):
    config = Config.fromfile(root / 'configs' / config)
    model = calibrated(build_model(config), torch.rand(2, 3, *shape))
    path = tmp_path / 'p.pth'
    report = write_packed(model, config, path, dict(classes=tuple('abc')))
    quantized = layers_of(model)
    assert len(report.layers) == len(quantized) > 10
    packed = sum(m.weight.numel() * m.weight_quantizer.num_bits for m in quantized) / 8
    weights = {m.weight.data_ptr() for m in quantized}
    others = [t for t in model.state_dict().values() if t.data_ptr() not in weights]
    ideal = packed + sum(t.nbytes for t in others)
    assert report.ideal_bytes == pytest.approx(ideal)
    assert report.file_bytes == path.stat().st_size <= 1.02 * ideal
    assert f'of the ideal; weights of {len(quantized)} layers of' in report.table()
    assert json.loads(report.as_json())['file_bytes'] == report.file_bytes
    other = build_model(config)
    load_weights(other, str(path))
    assert same_weights(model, other)


@pytest.fixture(scope='module')
def detector(configs, float_checkpoint, tmp_path_factory):
    """The toy detector after a training: config file, its checkpoint, the packed one."""
    folder = tmp_path_factory.mktemp('packed')
    runner = make_runner(configs / 'quantized.py', folder / 'run', load_from=float_checkpoint)
    runner.train()
    plain = folder / 'run' / 'epoch_3.pth'
    config = Config.fromfile(configs / 'quantized.py')
    model = build_model(config)
    load_weights(model, str(plain))
    meta = torch.load(plain, weights_only=False)['meta']['dataset_meta']
    packed = folder / 'out' / 'packed.pth'
    write_packed(model, config, packed, meta)
    return configs / 'quantized.py', plain, packed


def detections(model):
    from mmdet.apis import inference_detector

    picture = torch.randint(256, (64, 64, 3), dtype=torch.uint8).numpy()
    found = inference_detector(model, picture).pred_instances
    assert len(found.bboxes)
    return found


def test_init_detector_takes_it(detector):
    from mmdet.apis import init_detector

    config, *paths = detector
    models = [init_detector(str(config), str(path), device='cpu') for path in paths]
    assert models[1].dataset_meta == models[0].dataset_meta
    assert models[1].dataset_meta['classes'] == CLASSES
    plain, packed = ([torch.manual_seed(1), detections(model)][1] for model in models)
    for key in ('bboxes', 'scores', 'labels'):
        assert torch.equal(plain[key], packed[key])


def test_det_inferencer_takes_it_alone(detector):
    from mmdet.apis import DetInferencer

    picture = torch.randint(256, (64, 64, 3), dtype=torch.uint8).numpy()
    results = []
    for path in detector[1:]:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            inferencer = DetInferencer(weights=str(path), device='cpu', show_progress=False)
        results.append(inferencer(picture)['predictions'])
    assert results[0] == results[1]


def test_it_is_safe_to_read_and_holds_no_training(detector):
    _, plain, packed = detector
    checkpoint = torch.load(packed, weights_only=True)
    assert checkpoint.keys() == {'meta', 'state_dict'}
    assert checkpoint['meta'].keys() >= {'cfg', 'dataset_meta', 'mmqnet_version'}
    assert packed.stat().st_size < plain.stat().st_size / 4


def test_runners_test_it_and_train_on(detector, tmp_path):
    config, plain, packed = detector
    results = []
    for name, path in (('plain', plain), ('packed', packed)):
        runner = make_runner(config, tmp_path / name, load_from=str(path))
        results.append(runner.test())
        log = next((tmp_path / name).glob('*/*.log')).read_text()
        assert ('the weights of 19 layers are values of their levels' in log) == (name == 'packed')
    assert results[0] == results[1]
    options = dict(train_cfg__max_epochs=1, custom_hooks=[dict(type='EMAHook')])
    runner = make_runner(config, tmp_path / 'on', load_from=str(packed), **options)
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    after = runner.model.state_dict()
    trained = [k for k in after if not torch.equal(after[k], before[k])]
    assert any(key.endswith('conv1.weight') for key in trained)
    assert all(q.is_calibrated for q in quantizers_of(runner.model).values())


def test_changed_bytes_and_truncated_files_are_refused_with_their_names(detector, tmp_path):
    config, _, packed = detector
    model, content = build_model(Config.fromfile(config)), packed.read_bytes()
    numbers, path = random.Random(0), tmp_path / 'damaged.pth'
    for _ in range(25):
        place = numbers.randrange(len(content) - 300)  # at the end there are dates and the like
        path.write_bytes(content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :])
        try:
            load_weights(model, str(path))
        except ValueError as error:
            assert repr(str(path)) in str(error)  # noqa: PT017
        else:  # a byte that means nothing, between the entries
            expected = torch.load(packed, weights_only=True)['state_dict']
            found = torch.load(path, weights_only=True)['state_dict']
            assert str(found) == str(expected)
    path.write_bytes(content[:-50])
    with pytest.raises(ValueError, match=r"'.*damaged.pth' is truncated"):
        load_weights(model, str(path))


def test_changed_weights_are_refused_by_all_that_loads_them(detector, tmp_path):
    from mmdet.apis import init_detector

    config, _, packed = detector
    checkpoint = torch.load(packed, weights_only=True)
    state = checkpoint['state_dict']
    for change, name in (
        (state['backbone.conv1.weight'], 'backbone.conv1.weight'),
        (state['packed_weights']['layers']['backbone.layer1.0.conv1']['codes'], 'layer1.0.conv1'),
    ):
        before = change.clone()
        change.view(-1)[0] += 1
        torch.save(checkpoint, tmp_path / 'changed.pth')
        with pytest.raises(ValueError, match=rf'is damaged: `.*{name}` \(1 in all\) changed since'):
            init_detector(str(config), str(tmp_path / 'changed.pth'), device='cpu')
        change.copy_(before)
    state['packed_weights']['version'] = 2
    torch.save(checkpoint, tmp_path / 'later.pth')
    with pytest.raises(ValueError, match=r"later.pth' .* of version 2, which a later mmqnet wrote"):
        load_weights(build_model(Config.fromfile(config)), str(tmp_path / 'later.pth'))


def test_another_config_is_refused(detector, configs, tmp_path):
    _, _, packed = detector
    for change, message in (
        (
            dict(
                weight=dict(levels='ternary'), activation=dict(levels='uint4'), include=['backbone']
            ),
            'holds 7 levels',
        ),
        (
            dict(weight=dict(levels='pm4'), include=['backbone.layer1']),
            'the model of the config has no such quantizers',
        ),
    ):
        config = Config.fromfile(configs / 'quantized.py')
        config.model.quantization = change
        with pytest.raises(ValueError, match=rf"packed.pth'.*{message}"):
            load_weights(build_model(config), str(packed))
    config = Config.fromfile(configs / 'quantized.py')
    config.model.backbone.base_channels = 4
    with pytest.raises(ValueError, match=r'should be of the shape .* in .*packed.pth'):
        load_weights(build_model(config), str(packed))


def test_a_full_disk_leaves_no_file(detector, tmp_path, monkeypatch):
    """The disk is full when the file is written."""
    config = Config.fromfile(detector[0])
    model = build_model(config)
    load_weights(model, str(detector[1]))

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(packed_file.zipfile.ZipFile, 'writestr', full)
    with pytest.raises(OSError, match='No space left'):
        write_packed(model, config, tmp_path / 'p.pth')
    assert not list(tmp_path.iterdir())
