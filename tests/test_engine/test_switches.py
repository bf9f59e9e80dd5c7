"""Switches of MMEngine, MMCV and MMDetection together with quantization, in real runs.

Each run makes one epoch of six iterations through all three phases.
"""

import json
from pathlib import Path

import pytest
import torch
import wandb
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from toy_data import make_runner
from toy_models import build, calibrated, quantized
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore

from mmqnet.command_line import use_mixed_precision
from mmqnet.engine.hooks import ScaleLogHook
from mmqnet.layers import activation_quantizers, parameter_roles, weight_quantizers
from mmqnet.quantizers import quantizers_of

SHORT = dict(train_cfg__max_epochs=1, train_cfg__val_begin=9, default_hooks__checkpoint__interval=9)


class Before(Hook):
    """Keeps the model's state at the first iteration, after calibration, and after each one."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.states = [self.state(runner)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.states.append(self.state(runner))
        assert outputs['loss'].isfinite()

    def state(self, runner):
        return {k: v.clone() for k, v in runner.model.state_dict().items()}


@pytest.fixture(scope='module')
def train(configs, float_checkpoint, tmp_path_factory):
    def run(*hooks, **options):
        folder = tmp_path_factory.mktemp('switches') / 'run'
        runner = make_runner(
            configs / 'quantized.py', folder, load_from=float_checkpoint, **{**SHORT, **options}
        )
        runner.states = Before()
        for hook in (runner.states, *hooks):
            runner.register_hook(hook)
        runner.train()
        return runner

    return run


@pytest.fixture(scope='module')
def plain(train):
    """A run without any of the switches."""
    return train()


ONE_PHASE = dict(default_hooks__phases=None)


@pytest.fixture(scope='module')
def one_phase(train):
    """The same where activations are calibrated at the beginning."""
    return train(**ONE_PHASE)


def changed(runner, first=0, last=-1):
    """Names of what differs between two of the noted states."""
    before, after = (runner.states.states[i] for i in (first, last))
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


def assert_same_parameters(found, expected):
    for (name, a), b in zip(
        found.model.named_parameters(), expected.model.parameters(), strict=True
    ):
        assert torch.equal(a, b), name


class TestMixedPrecision:
    def test_bfloat16_on_a_cpu(self, train, one_phase):
        """Convolutions run in bfloat16; what is learned stays in float32 and close by."""
        types = set()

        class Types(Hook):
            def before_train_epoch(self, runner):
                layer = runner.model.backbone.layer3[0].conv1
                layer.register_forward_hook(
                    lambda layer, _, out: types.add(out.dtype) if layer.training else None
                )

        config = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
        use_mixed_precision(config)
        runner = train(Types(), optim_wrapper__type=config.optim_wrapper.type, **ONE_PHASE)
        assert types == {torch.bfloat16}
        assert {p.dtype for p in runner.model.parameters()} == {torch.float32}
        expected = one_phase.model.state_dict()
        for name, value in runner.model.named_parameters():
            torch.testing.assert_close(value, expected[name], rtol=0.05, atol=0.01, msg=name)

    def test_the_loss_scaler_of_mmengine_needs_a_gpu(self, train):
        if torch.cuda.is_available():
            pytest.skip('there is a GPU')
        with pytest.raises(AssertionError, match='only available training'):
            train(optim_wrapper__type='AmpOptimWrapper')


class TestCheckpointing:
    """Without phases: a block that runs twice updates its batch statistics twice, and activations
    that are calibrated in the middle of a training are calibrated with these."""

    def test_with_cp_learns_the_same_bits(self, train, one_phase):
        assert_same_parameters(train(model__backbone__with_cp=True, **ONE_PHASE), one_phase)

    def test_activation_checkpointing_learns_the_same_bits(self, train, one_phase):
        options = dict(activation_checkpointing=['backbone.layer3.0'])
        assert_same_parameters(train(**options, **ONE_PHASE), one_phase)


class TestBackbone:
    def test_frozen_stages_keep_every_bit(self, train):
        runner = train(model__backbone__frozen_stages=1)
        moved = changed(runner)
        state = ('.mode', '.temperature')
        frozen = ('backbone.conv1', 'backbone.bn1', 'backbone.layer1')
        calibrated = changed(runner, 2, 3)  # the phase of activations begins with the third step
        kept = {key for key in moved if key.startswith(frozen) and not key.endswith(state)}
        assert kept <= {key for key in calibrated if '.input_quantizer.' in key}
        assert not {k for k in changed(runner, 3) if k.startswith(frozen) and not k.endswith(state)}
        for role in ('quantized', 'scale'):
            names = {n for n, r in parameter_roles(runner.model).items() if r == role}
            # batch normalization cancels the gradient of alpha
            names = {n for n in names if not n.endswith('log_alpha')}
            assert {n for n in names if not n.startswith(frozen)} <= moved

    def test_norm_eval_keeps_the_statistics(self, train, plain):
        statistics = ('running_mean', 'running_var')
        for runner, learned in ((train(model__backbone__norm_eval=True), False), (plain, True)):
            moved = {k for k in changed(runner) if k.endswith(statistics) and 'backbone' in k}
            assert bool(moved) is learned
            assert 'backbone.layer4.0.conv1.weight' in changed(runner)

    def test_sync_bn_on_one_process_is_bn(self, train, plain):
        runner = train(model__backbone__norm_cfg=dict(type='SyncBN', requires_grad=True))
        assert_same_parameters(runner, plain)


class TestAccumulation:
    def test_over_a_change_of_phase(self, train):
        """Steps after iterations 3 and 5; phases change at 2 and 4."""
        runner = train(optim_wrapper__accumulative_counts=4)
        roles = parameter_roles(runner.model)
        of_inputs = tuple(activation_quantizers(runner.model))
        parts = dict(
            weights={n for n, r in roles.items() if r == 'quantized'},
            weight_scales={
                n for n in roles if n.startswith(tuple(weight_quantizers(runner.model)))
            },
            input_scales={n for n in roles if n.startswith(of_inputs)},
        )
        parameters = set(roles)
        assert not changed(runner, 0, 2) & parameters
        assert changed(runner, 2, 3) & parameters <= parts['input_scales']  # calibrated
        moved = changed(runner, 3, 4) & parameters
        # the gradients of the first phase do not change what is frozen by now
        assert not moved & (parts['weights'] | parts['weight_scales'])
        # batch normalization cancels the gradient of alpha
        assert {n for n in parts['input_scales'] if not n.endswith('log_alpha')} <= moved
        assert not changed(runner, 4, 5) & parameters
        for part in parts.values():
            part = {name for name in part if not name.endswith('log_alpha')}
            assert part <= changed(runner, 5, 6)


class TestLearningRates:
    def test_auto_scale_lr_scales_the_rates_of_roles_too(self, configs, tmp_path):
        """Batches of 2 instead of 8: a quarter, of absolute rates as of relative ones."""
        roles = dict(quantized=dict(lr=4e-4), scale=dict(lr_mult=0.5), other=dict(lr=4e-6))
        runner = make_runner(
            configs / 'quantized.py',
            tmp_path,
            auto_scale_lr=dict(enable=True, base_batch_size=8),
            optim_wrapper__constructor='mmqnet.QuantOptimWrapperConstructor',
            optim_wrapper__paramwise_cfg=roles,
            optim_wrapper__optimizer__lr=4e-3,
        )
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        found = {group['lr'] for group in runner.optim_wrapper.optimizer.param_groups}
        assert found == {1e-4, 4e-3 * 0.5 / 4, 1e-6}


@MODELS.register_module()
class ConvModuleNet(nn.Module):
    """Two ConvModules as a config makes them."""

    def __init__(self, **options):
        super().__init__()
        norm = dict(norm_cfg=dict(type='BN'))
        self.stem = ConvModule(3, 4, 3, **norm)
        self.body = ConvModule(4, 4, 3, **norm, **options)
        self.head = nn.Conv2d(4, 2, 1)

    def init_weights(self):
        pass

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


class TestEfficientConvBnEval:
    """It convolves with `conv.weight`, past the quantized layer."""

    def test_refused_in_a_conv_module(self):
        model = quantized(dict(type='mmengine.ConvModuleNet'))
        build(model)
        message = r'`body` has `efficient_conv_bn_eval=True`, which convolves with float weights'
        with pytest.raises(ValueError, match=message):
            build({**model, 'efficient_conv_bn_eval': True})

    def test_allowed_where_the_layer_stays_in_float(self):
        config = dict(weight=dict(levels='pm4'), exclude=['body'], keep_float=['last'])
        build(quantized(dict(type='mmengine.ConvModuleNet', efficient_conv_bn_eval=True), **config))

    @pytest.mark.parametrize('hooks', [{}, dict(default_hooks__temperature=None)])
    def test_refused_for_a_module_with_quantizers(self, train, hooks):
        """Also where no quantizer has a temperature."""
        with pytest.raises(ValueError, match=r"`efficient_conv_bn_eval` names 'backbone', which"):
            train(efficient_conv_bn_eval=['neck', 'backbone'], **hooks)


class TestFuseConvBn:
    """`--fuse-conv-bn` of MMDetection's tools: the normalization becomes part of the weights."""

    def test_refused_where_the_weights_are_quantized(self):
        model = build(quantized(dict(type='mmengine.ConvModuleNet')))
        with pytest.raises(RuntimeError, match=r'should not be fused .* `fuse_conv_bn\(\)` out'):
            fuse_conv_bn(model)

    def test_works_where_they_stay_in_float(self):
        levels = dict(weight=None, activation=dict(levels='uint8'))
        model = build(quantized(dict(type='mmengine.ConvModuleNet'), **levels))
        x = torch.rand(2, 3, 16, 16)
        calibrated(model, x).eval()
        for module in (model.stem, model.body):
            nn.init.uniform_(module.bn.running_mean)
        expected = model(x)
        fuse_conv_bn(model)
        assert isinstance(model.body.bn, nn.Identity)
        torch.testing.assert_close(model(x), expected)


def tensorboard_scalars(folder):
    """From the name of a scalar to its values, in their order."""
    (path,) = folder.glob('**/*tfevents*')
    events = EventAccumulator(str(path)).Reload()
    tags = events.Tags()['scalars']
    return {tag: [event.value for event in events.Scalars(tag)] for tag in tags}


def wandb_scalars(folder):
    """The same, from the file in which a run without a network keeps what it would upload."""
    (path,) = folder.glob('**/*.wandb')
    store = DataStore()
    store.open_for_scan(str(path))
    values = {}
    while (data := store.scan_data()) is not None:
        for item in Record.FromString(data).history.item:
            name = '.'.join(item.nested_key) or item.key
            values.setdefault(name, []).append(json.loads(item.value_json))
    store.close()
    return values


class TestVisualizationBackends:
    """Everything goes through the visualizer, so these stand for all."""

    @pytest.fixture(scope='class')
    def run(self, train, tmp_path_factory):
        offline = dict(mode='offline', settings=dict(silent=True))
        backends = [
            dict(type='LocalVisBackend'),
            dict(type='TensorboardVisBackend'),
            dict(type='WandbVisBackend', init_kwargs=offline),
        ]
        folder = tmp_path_factory.mktemp('wandb')
        with pytest.MonkeyPatch.context() as patch:
            for place in ('CACHE', 'CONFIG', 'DATA'):
                patch.setenv(f'WANDB_{place}_DIR', str(folder / place.lower()))
            patch.setenv('WANDB_ERROR_REPORTING', 'false')
            patch.chdir(folder)  # it keeps a copy of the Python files of the current folder
            yield train(
                visualizer__vis_backends=backends,
                default_hooks__scales=dict(type='mmqnet.ScaleLogHook', interval=3),
                train_cfg__val_begin=1,
            )
            wandb.teardown()  # its service

    @pytest.mark.parametrize('scalars_of', [tensorboard_scalars, wandb_scalars])
    def test_scales_temperatures_and_gap_arrive(self, run, scalars_of):
        scalars = scalars_of(Path(run.log_dir))
        quantizers = quantizers_of(run.model)
        for name, quantizer in quantizers.items():
            for scale in ('alpha', 'beta'):
                *_, last = scalars[f'{scale}/{name}']
                assert last == pytest.approx(float(getattr(quantizer, scale)), rel=1e-6)
        assert len(quantizers) == 35
        # the data set is repeated twice: two passes of three iterations
        assert scalars['temperature_weight'] == [10] * 3 + [20] * 3
        assert scalars['temperature_activation'] == [2] * 3 + [4] * 3
        (gap,), (soft,), (hard,) = (
            scalars[f'gap/{kind}coco/bbox_mAP'] for kind in ('', 'soft/', 'hard/')
        )
        assert gap == pytest.approx(soft - hard)

    def test_local_files_hold_the_iterations(self, run):
        lines = (Path(run.log_dir) / 'vis_data/scalars.json').read_text()
        scales = [line for line in map(json.loads, lines.splitlines()) if any(
            key.startswith('alpha/') for key in line)]  # fmt: skip
        assert [line['step'] for line in scales] == [1, 3, 6]

    @pytest.mark.parametrize(
        ('interval', 'error'), [(0, ValueError), (1.5, TypeError), (True, TypeError)]
    )
    def test_mistakes(self, interval, error):
        with pytest.raises(error, match=r'`ScaleLogHook\.interval` should be a positive int'):
            ScaleLogHook(interval)
