"""Distillation in real trainings; two processes are in test_distributed.py."""

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MessageHub
from toy_data import make_runner

from mmqnet.engine.hooks import DistillationHook


class Losses(Hook):
    """Keeps the losses of all iterations."""

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: float(v) for k, v in outputs.items()})


def train(configs, folder, checkpoint, distill=True, **options):
    if distill:
        options['default_hooks__distillation'] = dict(
            type='mmqnet.DistillationHook', teacher=options.pop('teacher', checkpoint)
        )
    runner = make_runner(
        configs / 'quantized.py',
        folder,
        **{'load_from': checkpoint, 'default_hooks__gap': None, 'train_cfg__val_interval': 9,
           **options},
    )  # fmt: skip
    runner.kept = Losses()
    runner.register_hook(runner.kept)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def taught(configs, float_checkpoint, tmp_path_factory):
    """A training in three phases, with averages of the weights."""
    folder = tmp_path_factory.mktemp('distillation') / 'taught'
    ema = dict(type='EMAHook', momentum=0.3)
    return train(configs, folder, float_checkpoint, custom_hooks=[ema])


def saved(folder, name='epoch_3'):
    return torch.load(f'{folder}/{name}.pth', weights_only=False)


def test_checkpoint_and_optimizer_hold_the_student_only(taught, configs, float_checkpoint,
                                                        tmp_path):  # fmt: skip
    options = dict(train_cfg__max_epochs=1, custom_hooks=[dict(type='EMAHook', momentum=0.3)])
    plain = train(configs, tmp_path / 'plain', float_checkpoint, distill=False, **options)
    first, other = saved(taught.work_dir, 'epoch_1'), saved(plain.work_dir, 'epoch_1')
    assert first['state_dict'].keys() == other['state_dict'].keys()
    assert first['ema_state_dict'].keys() == other['ema_state_dict'].keys()
    groups = [run['optimizer']['param_groups'] for run in (first, other)]
    assert [group['params'] for group in groups[0]] == [group['params'] for group in groups[1]]
    assert type(taught.model) is type(plain.model)
    weight = 'backbone.layer1.0.conv1.weight'
    assert not torch.equal(first['state_dict'][weight], other['state_dict'][weight])
    assert set(taught.kept.losses[0]) - set(plain.kept.losses[0]) == {
        'distillation/loss_features',
        'distillation/loss_outputs',
    }
    total = sum(v for k, v in taught.kept.losses[0].items() if k != 'loss')
    assert taught.kept.losses[0]['loss'] == pytest.approx(total, rel=1e-5)


def test_the_student_comes_nearer(taught):
    def mean(losses, name):
        return sum(loss[f'distillation/loss_{name}'] for loss in losses) / len(losses)

    for name in ('features', 'outputs'):
        *_, last = losses = [taught.kept.losses[i : i + 6] for i in (0, 6, 12)]
        assert mean(last, name) < mean(losses[0], name)


def test_nothing_stays_behind(taught):
    (average,) = (hook.ema_model.module for hook in taught.hooks if isinstance(hook, EMAHook))
    for model in (taught.model, average):
        for module in (model, model.neck, model.bbox_head):  # residual blocks have hooks of theirs
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


def test_resumed_training_ends_with_the_same_bits(taught, configs, float_checkpoint, tmp_path):
    resumed = train(
        configs,
        tmp_path / 'resumed',
        f'{taught.work_dir}/epoch_2.pth',
        teacher=float_checkpoint,
        resume=True,
        custom_hooks=[dict(type='EMAHook', momentum=0.3)],
    )
    expected = saved(taught.work_dir)
    for kind in ('state_dict', 'ema_state_dict'):
        for key, value in saved(resumed.work_dir)[kind].items():
            assert torch.equal(value, expected[kind][key]), key


def test_mixed_precision(configs, float_checkpoint, tmp_path):
    runner = train(
        configs,
        tmp_path / 'amp',
        float_checkpoint,
        train_cfg__max_epochs=1,
        optim_wrapper__type='mmqnet.BFloat16OptimWrapper',
        default_hooks__checkpoint=dict(interval=-1, save_last=False),
    )
    assert all(loss['distillation/loss_outputs'] > 0 for loss in runner.kept.losses)
    assert all(parameter.isfinite().all() for parameter in runner.model.parameters())


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(teacher='no/where.pth'), FileNotFoundError, "the teacher 'no/where.pth' does not"),
        (dict(model__bbox_head__num_classes=5), ValueError, 'the teacher should be a checkpoint'),
    ],
)
def test_wrong_teacher_is_refused_before_anything_is_loaded(
    configs, float_checkpoint, tmp_path, changes, error, message
):
    with pytest.raises(error, match=message):
        train(configs, tmp_path / 'run', float_checkpoint, **changes)
    assert not MessageHub.get_current_instance().log_scalars


def test_a_test_needs_no_teacher(taught, configs, tmp_path):
    hook = dict(type='mmqnet.DistillationHook', teacher='no/where.pth')
    runner = make_runner(
        configs / 'quantized.py',
        tmp_path,
        default_hooks__distillation=hook,
        default_hooks__gap=None,
        load_from=f'{taught.work_dir}/epoch_3.pth',
    )
    assert 'coco/bbox_mAP' in runner.test()


def test_teacher_is_a_path():
    with pytest.raises(TypeError, match=r'`DistillationHook\.teacher` should be the path'):
        DistillationHook(teacher=None)
