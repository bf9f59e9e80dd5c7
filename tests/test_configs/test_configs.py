"""Every shipped config: loaded, checked, and at a small size calibrated, trained and evaluated."""

import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path
from small_configs import ITERATIONS, load, shrink, write_all_data, write_teacher

from mmqnet.command_line import build_runner
from mmqnet.layers import QuantizedLayer, parameter_roles
from mmqnet.models import QuantizationConfig, read_checkpoint
from mmqnet.quantizers import Mode, quantizers_of, resolve_levels
from mmqnet.quantizers.quantization_network import thresholds
from mmqnet.safe_checkpoints import safe_loading

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FILES = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob('*.py'))
BASES = [name for name in FILES if '_base_/' in name]
MODELS = [name for name in FILES if '_base_/' not in name]
# the float models that are trained here, by the beginning of the names
FLOAT_OF = {
    'alexnet/': 'alexnet/alexnet-bn_8xb32_in1k.py',
    'bccd/': 'bccd/ssd300_finetune_bccd.py',
    'demo/rtmdet_tiny': 'demo/rtmdet_tiny_digits.py',
    'demo/ssd_r18': 'demo/ssd_r18_digits.py',
    'demo/yolox_tiny': 'demo/yolox_tiny_digits.py',
}
FLOAT = [*FLOAT_OF.values(), 'bccd/ssd300_bccd.py', 'bccd/ssd300_trained_on_bccd.py']
QUANTIZED = [name for name in MODELS if name not in FLOAT]
RECIPES = [Path(name).stem for name in BASES if name.startswith('_base_/quantization/')]

# what the letters of a recipe's name stand for, in numbers of levels: the paper's sets
WEIGHTS = {'w1': 2, 'w2': 3, 'w3pm2': 5, 'w3': 7, 'w4': 15, 'w5': 31, 'w8': 255, 'w32': None}
# the methods of other papers, whose k-bit weights have 2^k levels, but for ternary ones
METHODS = {
    'lsq': ('LSQ', 'LSQ'),
    'dorefa': ('DoReFa', None),
    'dorefa-pact': ('DoReFa', 'PACT'),
    'bwn': ('BWN', None),
    'twn': ('TWN', None),
}
ACTIVATIONS = {'a1': 2, 'a2': 4, 'a3': 8, 'a4': 16, 'a8': 256, 'a32': None}


def config_of(name: str) -> Config:
    return load(CONFIGS / name)


def recipe_of(name: str) -> str:
    return re.search(r'w\d+(pm\d)?-a\d+(u|-int)?', Path(name).stem)[0]


def weight_levels(recipe: str) -> int | None:
    bits = recipe.partition('-')[0]
    all_levels = {'w2': 4, 'w3': 8} if recipe.endswith('u') else {'w3': 8}
    of_paper = not recipe.endswith(('u', '-int'))
    return WEIGHTS[bits] if of_paper else all_levels.get(bits, WEIGHTS[bits])


def levels_of(quantization: dict, kind: str) -> int | None:
    settings = quantization.get(kind)
    return None if settings is None else len(resolve_levels(settings['levels']))


@pytest.mark.parametrize('name', BASES)
def test_base_file_loads(name):
    assert len(Config.fromfile(CONFIGS / name)) > 0


def test_cpu_fragment_stands_beside_any_config(tmp_path):
    base = CONFIGS / 'resnet' / 'resnet18_w3-a32_in1k.py'
    file = tmp_path / 'two_processes.py'
    file.write_text(
        f'_base_ = [{str(base)!r}, {str(CONFIGS / "_base_" / "cpu.py")!r}]\n'
        'env_cfg = _base_.cpu_env_cfg\n'
    )
    config = Config.fromfile(file)
    assert config.env_cfg.dist_cfg.backend == 'gloo'
    assert config.env_cfg.mp_cfg == config_of('resnet/resnet18_w3-a32_in1k.py').env_cfg.mp_cfg
    assert config.model_wrapper_cfg.device_ids is None


def test_every_recipe_is_there():
    assert set(RECIPES) >= {
        *('w1-a32', 'w2-a32', 'w3pm2-a32', 'w3-a32', 'w5-a32', 'w32-a2'),
        *('w1-a1', 'w1-a2', 'w2-a2', 'w3-a3', 'w4-a4', 'w3-a8', 'w8-a8'),
        *(
            'w2-a32u',
            'w3-a32u',
            'w1-a2u',
            'w2-a2u',
            'w3-a3u',
            'w4-a4u',
            'w3-a8u',
            'w4-a8u',
            'w8-a8u',
        ),
        *('w2-a2-int', 'w4-a4-int', 'w3-a8-int', 'w8-a8-int'),
        *('w1-a32u', 'bwn_w1-a32', 'twn_w2-a32'),
        *('lsq_w4-a4', 'lsq_w3-a3', 'lsq_w2-a2', 'lsq_w1-a2', 'lsq_w3-a8'),
        *('lsq_w3-a32', 'lsq_w2-a32', 'lsq_w1-a32'),
        *('dorefa-pact_w4-a4', 'dorefa-pact_w3-a3', 'dorefa-pact_w2-a2', 'dorefa-pact_w1-a2'),
        *('dorefa-pact_w3-a8', 'dorefa_w3-a32', 'dorefa_w2-a32', 'dorefa_w1-a32'),
    }


@pytest.mark.parametrize('recipe', [recipe for recipe in RECIPES if '_' in recipe])
def test_recipe_of_another_method(recipe):
    config = Config.fromfile(CONFIGS / '_base_' / 'quantization' / f'{recipe}.py')
    assert set(config) == {'quantization', 'quantization_hooks'}
    checked = QuantizationConfig.from_dict(config.quantization)
    method, bits = recipe.split('_')
    weights, activations = bits.split('-')
    of_weights, of_activations = METHODS[method]
    assert checked.weight.type == of_weights
    assert (checked.activation and checked.activation.type) == (
        None if activations == 'a32' else of_activations
    )
    expected = 3 if method == 'twn' else 2 ** int(weights[1:])
    assert len(checked.weight.levels) == expected
    assert levels_of(config.quantization, 'activation') == ACTIVATIONS[activations]
    # hard in training: no temperature, and no gap between soft and hard
    assert {name for name, hook in config.quantization_hooks.items() if hook is None} == {
        'temperature',
        'gap',
    }


@pytest.mark.parametrize('recipe', [recipe for recipe in RECIPES if '_' not in recipe])
def test_recipe(recipe):
    config = Config.fromfile(CONFIGS / '_base_' / 'quantization' / f'{recipe}.py')
    # two base files may not share a key
    assert set(config) == {'quantization', 'quantization_hooks'}
    QuantizationConfig.from_dict(config.quantization)
    of_paper = not recipe.endswith(('u', '-int'))
    weights, activations = recipe.removesuffix('u').removesuffix('-int').split('-')
    assert levels_of(config.quantization, 'weight') == weight_levels(recipe)
    assert levels_of(config.quantization, 'activation') == ACTIVATIONS[activations]
    both = WEIGHTS[weights] is not None and ACTIVATIONS[activations] is not None
    phases = config.quantization_hooks.get('phases', {'schedule': []})['schedule']
    assert len(phases) == (3 if both and of_paper else 0)
    for quantizer in filter(None, map(config.quantization.get, ('weight', 'activation'))):
        # the paper's initialisation, or that of the nearest level
        expected = ('kmeans', 'range') if of_paper else ('uniform', 'mse')
        assert (quantizer.thresholds, quantizer.get('scale_init', 'range')) == expected
        gradients_at = 1 if recipe == 'w1-a32u' else 3  # docs/low_bit.md
        assert quantizer.get('surrogate_temperature') == (None if of_paper else gradients_at)
    if not of_paper:  # few levels need a scale for each channel, runtimes take one at no cost
        few = weights in ('w1', 'w2', 'w3') or recipe.endswith('-int')
        bears_high_rates = recipe in ('w2-a2u', 'w1-a2u')  # docs/low_bit.md
        expected = 'channel' if few and not bears_high_rates else 'layer'
        assert config.quantization.weight.granularity == expected
    if weights == 'w1' and of_paper:  # as in the paper's code
        assert config.quantization.weight.backward_temperature == 1


@pytest.mark.parametrize('recipe', [recipe for recipe in RECIPES if recipe.endswith('-int')])
def test_integer_recipe(recipe):
    """All layers; sums of products, in 16 bits on CPUs without VNNI, do not overflow."""
    config = Config.fromfile(CONFIGS / '_base_' / 'quantization' / f'{recipe}.py')
    checked = QuantizationConfig.from_dict(config.quantization)
    assert (checked.include, checked.exclude, checked.keep_float) == (('*',), (), ())
    assert len(checked.sums.levels) == 256
    for positions in ((), ('first',), ('last',)):
        weight, activation, output = checked.for_layer('any', positions)
        assert (output is not None) == (positions == ('last',))
        assert weight.granularity == 'channel'
        assert weight.thresholds == activation.thresholds == 'uniform'
        largest_product = max(weight.levels) * (len(activation.levels) - 1)
        assert (2 * largest_product <= 2**15 - 1) == (recipe != 'w8-a8-int' or bool(positions))
        assert len(activation.levels) == 256 or not positions


@pytest.mark.parametrize('name', QUANTIZED)
def test_quantized_config(name):
    config = config_of(name)
    QuantizationConfig.from_dict(config.model.quantization)
    recipe = recipe_of(name)
    activations = recipe.removesuffix('u').removesuffix('-int').partition('-')[2]
    # on BCCD the set of the paper's SSD
    expected = WEIGHTS['w3'] if 'w3-' in name and 'bccd' in name else weight_levels(recipe)
    assert levels_of(config.model.quantization, 'weight') == expected
    assert levels_of(config.model.quantization, 'activation') == ACTIVATIONS[activations]
    hooks = {k: v for k, v in config.default_hooks.items() if v['type'].startswith('mmqnet.')}
    assert set(hooks) >= set(config.quantization_hooks)
    for hook in hooks.values():
        MMENGINE_HOOKS.build(hook)


@pytest.mark.parametrize('name', QUANTIZED)
def test_float_checkpoint(name):
    source = config_of(name).load_from
    trained_here = next((v for start, v in FLOAT_OF.items() if name.startswith(start)), None)
    if 'scratch' in name:
        assert source is None
    elif trained_here:
        last = config_of(trained_here).train_cfg.max_epochs
        assert source == f'work_dirs/{Path(trained_here).stem}/epoch_{last}.pth'
    else:
        assert re.fullmatch(r'https://[\w./-]+(_\d{8})?(_\d{6})?-[0-9a-f]{8}\.pth', source)
        assert 'voc0712' in name or Path(source).name in upstream_metafiles(name)


def upstream_metafiles(name: str) -> str:
    """Text of the metafiles of the package that a config inherits from."""
    package = 'mmpretrain' if name.endswith('in1k.py') else 'mmdet'
    folder = name.split('/')[0].replace('ablation', 'resnet')
    path = Path(get_installed_path(package), '.mim', 'configs', folder, 'metafile.yml')
    return path.read_text()


# by folder: passes over the data, steps of the rate, rates of quantized and other parameters,
# weight decay, largest norm of the gradients, k in T = k * epoch
PAPER = {
    'ablation': (55, [30, 45], 1e-3, 1e-3, 1e-4, 5, 5),
    'alexnet': (55, [25, 40], 1e-3, 1e-3, 5e-4, 5, 10),
    'resnet': (55, [30, 45], 1e-3, 1e-3, 1e-4, 5, 5),
    'ssd': (100, [70, 90], 1e-5, 1e-7, 5e-4, 20, 10),
}


@pytest.mark.parametrize('name', [name for name in QUANTIZED if name.split('/')[0] in PAPER])
def test_training_is_the_papers(name):
    passes, steps, quantized, other, decay, norm, slope = PAPER[name.split('/')[0]]
    config = config_of(name)
    repeats = config.train_dataloader.dataset.get('times', 1)
    assert config.train_cfg.max_epochs * repeats == passes
    schedulers = config.param_scheduler
    (scheduler,) = schedulers if isinstance(schedulers, list) else [schedulers]
    assert [step * repeats for step in scheduler.milestones] == steps
    wrapper = config.optim_wrapper
    assert (wrapper.optimizer.type, wrapper.optimizer.momentum) == ('SGD', 0.9)
    assert wrapper.optimizer.weight_decay == decay
    assert wrapper.clip_grad.max_norm == norm
    assert wrapper.paramwise_cfg == dict(quantized=dict(lr=quantized), other=dict(lr=other))
    expected = dict(weight=dict(slope=slope))
    if re.search(r'(u|-int)_', name):  # ours
        expected = dict(by='progress', weight=dict(start=100, end=1000))
    assert config.default_hooks.temperature == dict(type='mmqnet.TemperatureHook', **expected)


# one config of each architecture, its quantized layers, and those left in float
FULL_SIZE = {
    'ssd/ssd300_w3-a8_coco.py': (13, {'backbone.features.0', 'backbone.features.33'}),
    'ssd/ssd300_w3-a8-int_coco.py': (15 + 8 + 12, set()),
    'retinanet/retinanet_r18_fpn_w4-a4-int_1x_coco.py': (20 + 3 + 5 + 10, set()),
    'resnet/resnet18_w4-a4-int_in1k.py': (21, set()),
    'retinanet/retinanet_r18_fpn_w3-a8u_1x_coco.py': (
        19 + 3 + 5 + 8,
        {'backbone.conv1', 'bbox_head.retina_cls', 'bbox_head.retina_reg'},
    ),
    'faster_rcnn/faster-rcnn_r50_fpn_w3-a8u_1x_coco.py': (
        52 + 4 + 4 + 2,
        {'backbone.conv1', 'rpn_head.rpn_cls', 'roi_head.bbox_head.fc_cls'},
    ),
    'resnet/resnet18_w3-a32_in1k.py': (19, {'backbone.conv1', 'head.fc'}),
    'alexnet/alexnet-bn_w3-a32_in1k.py': (6, {'backbone.features.0', 'head.fc'}),
}


@pytest.mark.parametrize('name', FULL_SIZE)
def test_full_size(name):
    """What is quantized; the class of the model and its checkpoint keys are the float model's."""
    config = config_of(name)
    settings = {k: v for k, v in config.model.items() if k not in ('architecture', 'quantization')}
    init_default_scope(config.default_scope)
    model = MMENGINE_MODELS.build(config.model)
    count, in_float = FULL_SIZE[name]
    report = model.quantization_report
    assert len(report.quantized) in range(count, count + 2)  # Faster R-CNN: with rpn_conv or not
    assert in_float <= {layer.name for layer in report.skipped}
    assert type(model).__name__ == config.model.architecture
    settings['type'] = config.model.architecture
    keys = MMENGINE_MODELS.build(settings).state_dict().keys()
    prefixes = tuple(f'{name}.' for name in quantizers_of(model))
    assert {key for key in model.state_dict() if not key.startswith(prefixes)} == set(keys)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('configs')
    write_all_data(folder)
    return folder


@pytest.fixture
def small_run(data, monkeypatch, tmp_path):
    """Runs the training of a shrunk config in the folder of the data."""
    monkeypatch.chdir(data)
    # what takes most of a run of seconds: k-means of large layers for many levels
    exact = thresholds.kmeans_1d
    monkeypatch.setattr(
        thresholds, 'kmeans_1d', lambda x, k: exact(x[:: math.ceil(len(x) / 1024)], k)
    )

    def run(name):
        config = shrink(config_of(name))
        config.work_dir = str(tmp_path)
        write_teacher(config)
        runner = build_runner(config)
        runner.train()
        return runner

    return run


@pytest.mark.parametrize('name', MODELS)
def test_calibrates_trains_and_evaluates(name, small_run, tmp_path):
    runner = small_run(name)
    model = runner.model
    assert runner.iter == ITERATIONS
    assert all(p.isfinite().all() for p in model.parameters())
    quantizers = quantizers_of(model).values()
    assert bool(quantizers) == (name in QUANTIZED)
    assert all(q.is_calibrated and int(q.mode) == Mode.LEARNED for q in quantizers)
    model.eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, QuantizedLayer) and layer.weight_quantizer is not None:
                found = layer.quantized_weight() / layer.weight_quantizer.alpha
                allowed = len(layer.weight_quantizer.levels)
                assert len(found[:8].round(decimals=3).unique()) <= allowed
    if 'paramwise_cfg' in runner.cfg.optim_wrapper:
        check_rates(runner)
    check_that_its_checkpoint_loads_safely(runner, tmp_path / 'checkpoint.pth')


def check_that_its_checkpoint_loads_safely(runner, path):
    """All that a checkpoint holds, but for the large tensors."""

    class LeaveTensorsOut(Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner, checkpoint):
            checkpoint['state_dict'] = {}
            checkpoint['optimizer'] = {**checkpoint['optimizer'], 'state': {}}
            checkpoint.pop('ema_state_dict', None)

    runner.register_hook(LeaveTensorsOut())
    runner.save_checkpoint(str(path.parent), path.name)
    with safe_loading():
        saved = read_checkpoint(str(path))
    assert saved['message_hub']['log_scalars']
    assert saved['meta']['iter'] == ITERATIONS


def check_rates(runner):
    settings = runner.cfg.optim_wrapper.paramwise_cfg
    names = {id(p): name for name, p in runner.model.named_parameters()}
    roles = parameter_roles(runner.model)
    for group in runner.optim_wrapper.optimizer.param_groups:
        for role in {roles[names[id(parameter)]] for parameter in group['params']}:
            assert group['initial_lr'] == settings.get(role, runner.cfg.optim_wrapper.optimizer).lr
            assert role != 'scale' or group['weight_decay'] == 0
