"""Weight decay and the scales of quantizers, with optimizers that others than mmqnet build."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from toy_models import ready

from mmqnet.engine.optimizers import check_optimizer_state, exempt_scales_from_decay
from mmqnet.layers import frozen_parameters, parameter_roles
from mmqnet.models import QuantizationConfig, convert
from mmqnet.quantizers import quantizers_of

ADAMW = dict(type='AdamW', lr=4e-3, weight_decay=0.05)


class Model(BaseModel):
    """Two quantized layers and a float one; its gradients are zero unless it learns."""

    def __init__(self, learns=False):
        super().__init__()
        self.learns = learns
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 1))
        self.bias = nn.Parameter(torch.ones(1))
        quantization = dict(
            weight=dict(levels='pm4'), activation=dict(levels='uint4'), keep_float=['last']
        )
        convert(self, QuantizationConfig.from_dict(quantization))
        for quantizer in quantizers_of(self).values():
            ready(quantizer, signed=False)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        output = self.layers(torch.stack(inputs)) + self.bias
        nothing = sum(p.sum() for p in self.parameters()) * 0
        return dict(loss=nothing + (output.square().mean() if self.learns else 0))

    def val_step(self, data):
        return [BaseDataElement()]

    def get_layer_depth(self, name):
        return (2 if 'bias' in name else 0), 3


class Several(BaseModel):
    """A model whose training step asks for several optimizers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Model(), Model()

    def forward(self, **batch):
        raise NotImplementedError

    def train_step(self, data, optim_wrapper):
        for name, wrapper in optim_wrapper.items():
            wrapper.update_params(getattr(self, name).forward(**data, mode='loss')['loss'])
        return dict(loss=torch.zeros(()))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class OneForEachChild:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.config = optim_wrapper_cfg

    def __call__(self, model):
        parts = (('first', torch.optim.AdamW), ('second', torch.optim.SGD))
        return OptimWrapperDict(
            **{
                name: OptimWrapper(kind(getattr(model, name).parameters(), **self.config))
                for name, kind in parts
            }
        )


class Metric:
    """An evaluator of a value that never improves, for ReduceOnPlateau."""

    dataset_meta = None

    def process(self, data_samples, data_batch=None):
        pass

    def evaluate(self, size):
        return dict(loss=1.0)


class Exempt(Hook):
    """What a recipe's hook does before the run, and notes of the rates at each iteration."""

    def __init__(self, exempts=True):
        self.exempts = exempts
        self.rates = []

    def before_run(self, runner):
        if self.exempts:
            exempt_scales_from_decay(runner.optim_wrapper, runner.param_schedulers, runner.model)

    def after_load_checkpoint(self, runner, checkpoint):
        if runner._resume:
            check_optimizer_state(runner.optim_wrapper, checkpoint, runner._load_from)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model
        names = {id(p): name for name, p in model.named_parameters()}
        wrappers = (
            runner.optim_wrapper.values()
            if isinstance(runner.optim_wrapper, OptimWrapperDict)
            else [runner.optim_wrapper]
        )
        groups = [group for wrapper in wrappers for group in wrapper.optimizer.param_groups]
        hyper = ('lr', 'weight_decay', 'momentum', 'betas')
        self.rates.append(
            {names[id(p)]: {k: g.get(k) for k in hyper} for g in groups for p in g['params']}
        )


def train(folder, model=None, exempts=True, epochs=5, schedulers=(), constructor=None, **options):
    model = Model() if model is None else model
    loader = dict(
        dataset=[dict(inputs=torch.ones(4), data_samples=0)] * 4,
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
        collate_fn=dict(type='pseudo_collate'),
    )
    wrapper = dict(optimizer=copy.deepcopy(options.pop('optimizer', ADAMW)))
    if constructor is OneForEachChild:
        wrapper = dict(lr=4e-3, weight_decay=0.05)
    if constructor is not None:
        wrapper['constructor'] = constructor
    if 'paramwise_cfg' in options:
        wrapper['paramwise_cfg'] = options.pop('paramwise_cfg')
    if any('ReduceOnPlateau' in s['type'] for s in schedulers if isinstance(s, dict)):
        options.update(
            val_dataloader=loader, val_cfg=dict(type='ValLoop'), val_evaluator=[Metric()]
        )
    train.runs += 1
    runner = Runner(
        model, str(folder), train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs), optim_wrapper=wrapper,
        param_scheduler=copy.deepcopy(schedulers) or None, experiment_name=f'decay-{train.runs}',
        randomness=dict(seed=0), log_level='INFO', **options,
    )  # fmt: skip
    hook = Exempt(exempts)
    runner.register_hook(hook)
    roles = parameter_roles(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    runner.train()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    runner.rates, runner.changed = hook.rates, changed
    runner.scales = {name for name, role in roles.items() if role == 'scale'}
    return runner


train.runs = 0


def log_of(folder):
    return next(folder.glob('*/*.log')).read_text()


CONSTRUCTORS = {
    'none': dict(),
    'one group for each parameter': dict(paramwise_cfg=dict(norm_decay_mult=0.0)),
    'layer-wise rates': dict(
        constructor=LearningRateDecayOptimWrapperConstructor,
        paramwise_cfg=dict(layer_decay_rate=0.5),
    ),
    'several': dict(model=Several, constructor=OneForEachChild),
    'SGD': dict(optimizer=dict(type='SGD', lr=4e-3, weight_decay=0.05, momentum=0.9)),
    'ours': dict(constructor='mmqnet.QuantOptimWrapperConstructor'),
    'ours without a setting': dict(
        constructor='mmqnet.QuantOptimWrapperConstructor', paramwise_cfg=dict(scale=dict(lr=0.1))
    ),
}


@pytest.mark.parametrize('kind', CONSTRUCTORS)
def test_scales_keep_every_bit_without_gradients(tmp_path, kind):
    options = dict(CONSTRUCTORS[kind])
    model = options.pop('model', Model)()
    runner = train(tmp_path, model, epochs=50, **options)
    assert len(runner.scales) == (16 if kind == 'several' else 8)
    assert not runner.changed & runner.scales
    others = set(dict(model.named_parameters())) - runner.scales
    assert runner.changed == others
    expected = 0 if kind.startswith('ours') else len(runner.scales)
    line = f'Took the weight decay off {expected} scales of quantizers'
    assert log_of(tmp_path).count(line) == bool(expected)


def test_without_the_exemption_they_decay(tmp_path):
    runner = train(tmp_path, exempts=False, epochs=1)
    assert runner.changed & runner.scales == runner.scales


def test_a_decay_that_the_config_names_stays(tmp_path):
    runner = train(
        tmp_path,
        constructor='mmqnet.QuantOptimWrapperConstructor',
        paramwise_cfg=dict(scale=dict(weight_decay=0.1)),
    )
    assert runner.changed >= runner.scales
    assert {runner.rates[0][name]['weight_decay'] for name in runner.scales} == {0.1}
    assert 'Took the weight decay' not in log_of(tmp_path)


SCHEDULES = {
    'linear, then steps': [
        dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
        dict(type='MultiStepLR', milestones=[2, 3]),
    ],
    'cosine': [dict(type='CosineAnnealingLR', T_max=4, eta_min=1e-4)],
    'cosine by iterations': [dict(type='CosineAnnealingLR', T_max=5, convert_to_iter_based=True)],
    'restarts': [dict(type='CosineRestartLR', periods=[2, 3], restart_weights=[1, 0.5], eta_min=0)],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.1, total_steps=5)],
    'poly': [dict(type='PolyLR', power=0.9, eta_min=1e-5, end=4)],
    'exponential': [dict(type='ExponentialLR', gamma=0.7)],
    'constant': [dict(type='ConstantLR', factor=0.3, end=3)],
    'plateau': [dict(type='ReduceOnPlateauLR', patience=0, monitor='loss', min_value=1e-3)],
    'momentum': [
        dict(type='LinearMomentum', start_factor=0.5, end=4),
        dict(type='CosineAnnealingLR', T_max=4),
    ],
}
SGD = dict(type='SGD', lr=0.1, weight_decay=0.05, momentum=0.9)


class TestSchedules:
    def without_decay(self, rates):
        return [
            {name: {k: v for k, v in settings.items() if k != 'weight_decay'}
             for name, settings in step.items()}
            for step in rates
        ]  # fmt: skip

    @pytest.mark.parametrize('kind', SCHEDULES)
    @pytest.mark.parametrize('paramwise', [None, dict(flat_decay_mult=0.5)])
    def test_groups_follow_as_if_never_split(self, tmp_path, kind, paramwise):
        options = dict(schedulers=SCHEDULES[kind], optimizer=SGD, paramwise_cfg=paramwise)
        found = train(tmp_path / 'a', **options)
        expected = train(tmp_path / 'b', exempts=False, **options)
        assert self.without_decay(found.rates) == self.without_decay(expected.rates)
        assert len({step['bias'][key] for step in found.rates for key in ('lr', 'momentum')}) > 2
        assert {step[name]['weight_decay'] for step in found.rates for name in found.scales} == {0}

    def test_scheduled_decay(self, tmp_path):
        decay = dict(
            type='CosineAnnealingParamScheduler', param_name='weight_decay', T_max=4, eta_min=0.4
        )
        runner = train(tmp_path, schedulers=[decay])
        assert not runner.changed & runner.scales
        assert runner.rates[-1]['bias']['weight_decay'] > 0.2

    def test_several_optimizers_with_schedules_of_their_own(self, tmp_path):
        schedulers = dict(
            first=dict(type='ExponentialLR', gamma=0.5), second=dict(type='PolyLR', end=4)
        )
        runner = train(tmp_path, Several(), constructor=OneForEachChild, schedulers=schedulers)
        for step in runner.rates:
            for child in ('first', 'second'):
                rates = {v['lr'] for name, v in step.items() if name.startswith(child)}
                assert len(rates) == 1
        assert runner.rates[-1]['first.bias']['lr'] == pytest.approx(4e-3 * 0.5**4)


@pytest.mark.parametrize(
    'options', [dict(), CONSTRUCTORS['layer-wise rates']], ids=['one group', 'many']
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, options):
    options = dict(options, schedulers=SCHEDULES['cosine by iterations'])
    whole = train(tmp_path / 'whole', Model(learns=True), **options)
    checkpoint = str(tmp_path / 'whole' / 'epoch_2.pth')
    model = Model(learns=True)
    resumed = train(tmp_path / 'resumed', model, load_from=checkpoint, resume=True, **options)
    assert resumed.rates == whole.rates[4:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert whole.changed >= whole.scales


def test_an_optimizer_without_the_exemption_is_not_resumed(tmp_path):
    train(tmp_path / 'before', exempts=False, epochs=1)
    checkpoint = str(tmp_path / 'before' / 'epoch_1.pth')
    message = r'epoch_1\.pth. has 1 parameter groups, but that of this run has 2: .*`load_from`'
    with pytest.raises(ValueError, match=message):
        train(tmp_path / 'after', load_from=checkpoint, resume=True)
    train(tmp_path / 'start', load_from=checkpoint, epochs=1)


def test_groups_that_an_optimizer_keeps_twice_stay(tmp_path, capsys):
    store = f'file://{tmp_path}/store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=0, world_size=1)
    try:
        model = Model()
        optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)
        MMLogger.get_instance('decay')
        exempt_scales_from_decay(OptimWrapper(optimizer), None, model)
    finally:
        torch.distributed.destroy_process_group()
    assert len(optimizer.param_groups) == 1
    printed = ''.join(capsys.readouterr())
    assert 'the groups of ZeroRedundancyOptimizer cannot be split' in printed
    assert "constructor='mmqnet.QuantOptimWrapperConstructor'" in printed


def test_a_config_in_place_of_an_optimizer_is_left_alone():
    """As where a runner only tests."""
    model = Model()
    exempt_scales_from_decay(None, None, model)
    exempt_scales_from_decay(dict(optimizer=ADAMW), [dict(type='PolyLR')], model)
    check_optimizer_state(None, dict(optimizer=dict(param_groups=[{}])), 'a.pth')


def test_a_second_time_changes_nothing():
    model = Model()
    wrapper = build_optim_wrapper(model, dict(optimizer=ADAMW))
    exempt_scales_from_decay(wrapper, None, model)
    before = [dict(group) for group in wrapper.optimizer.param_groups]
    exempt_scales_from_decay(wrapper, None, model)
    assert [group['weight_decay'] for group in before] == [0.05, 0.0]
    assert len(wrapper.optimizer.param_groups) == 2


def test_phases_hold_for_several_optimizers(tmp_path):
    """Weight decay alone would move the fixed weights."""
    phases = dict(type='mmqnet.PhaseHook', schedule=[dict(begin=0, phase='activations')])
    runner = train(tmp_path, Several(), constructor=OneForEachChild, custom_hooks=[phases])
    frozen = {id(parameter) for parameter in frozen_parameters(runner.model)}
    names = {name for name, p in runner.model.named_parameters() if id(p) in frozen}
    assert {name.split('.')[0] for name in names} == {'first', 'second'}
    assert runner.changed
    assert not names & runner.changed
