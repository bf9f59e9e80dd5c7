import json
import sys

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mmqnet import compat
from mmqnet.import_hooks import on_import

# Executed here, where mmqnet comes before mmdet, and in a new Python, where it comes after.
SSD = """
import torch
import mmdet.models
from mmengine import ConfigDict

def make_head(kind=None):
    kind = kind or mmdet.models.SSDHead
    return kind(
        num_classes=3,
        in_channels=(8,),
        test_cfg=ConfigDict(
            nms_pre=10, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.02,
            max_per_img=5),
        anchor_generator=dict(
            type='mmdet.SSDAnchorGenerator', scale_major=False, input_size=32, strides=[8],
            ratios=([2],), min_sizes=[8], max_sizes=[16]),
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder')).eval()

def evaluate():
    meta = dict(img_shape=(32, 32), scale_factor=(1.0, 1.0))
    head = make_head()
    results = head.predict_by_feat(*head([torch.rand(1, 8, 4, 4)]), batch_img_metas=[meta])
    return len(results[0])
"""


class ToyModel(BaseModel):
    """A linear layer with a loss."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        outputs = self.linear(torch.stack(inputs))
        return dict(loss=outputs.square().mean()) if mode == 'loss' else outputs


def train_toy_model(folder, epochs, resume=False):
    runner = Runner(
        ToyModel(),
        str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(2), data_samples=0)] * 4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[5]),
        resume=resume,
        experiment_name=f'toy-{epochs}',
        log_level='WARNING',
    )
    runner.train()
    return runner


def test_import_is_light(run_python):
    code = "import sys, mmqnet; print(*{'torch', 'mmengine', 'numpy'} & set(sys.modules))"
    assert run_python(code).split() == []


def test_import_survives_without_the_stack(run_python):
    code = """
        import sys
        for name in ('mmdet', 'mmpretrain', 'torchvision', 'mmengine'):
            sys.modules[name] = None
        import mmqnet, mmqnet.compat
        mmqnet.compat.apply_all()
        print(mmqnet.__version__)
    """
    assert run_python(code).strip()


def test_applying_twice_changes_nothing():
    compat.apply_all()
    before = list(sys.meta_path)
    compat.apply_all()
    assert sys.meta_path == before


@pytest.mark.parametrize('before', [True, False])
def test_repair_runs_once_around_the_import(before, tmp_path, monkeypatch):
    name = f'module_repaired_{"before" if before else "after"}'
    (tmp_path / f'{name}.py').write_text('value = 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    seen = []

    def repair(module):
        seen.append(getattr(module, 'value', None))

    on_import(name, repair, before)
    on_import(name, repair, before)
    assert seen == []
    __import__(name)
    assert seen == [None if before else 1]
    on_import(name, repair, before)  # it is too late to come before, and time to come after
    assert seen == ([None] if before else [1, 1])
    sys.modules.pop(name)


def test_ssd_head_is_evaluated():
    pytest.importorskip('mmdet')
    scope = {}
    exec(SSD, scope)
    assert 0 < scope['evaluate']() <= 5


def test_ssd_head_imported_before_mmqnet_is_evaluated(run_python):
    code = """
try:
    print('unrepaired', evaluate())  # once upstream is mended
except AttributeError as error:
    print('unrepaired', 'loss_cls' in str(error))
import mmqnet
print('repaired', 0 < evaluate() <= 5)
"""
    output = run_python(SSD + code).splitlines()[-2:]
    assert output[0] in ('unrepaired True', 'unrepaired 5')
    assert output[1] == 'repaired True'


def test_ssd_head_keeps_a_loss_of_its_own():
    pytest.importorskip('mmdet')
    from mmdet.models import SSDHead

    compat.repair_ssd_head()
    wrapped = SSDHead.__init__
    compat.repair_ssd_head()
    assert SSDHead.__init__ is wrapped

    class HeadWithLoss(SSDHead):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.loss_cls = torch.nn.CrossEntropyLoss()

    scope = {}
    exec(SSD, scope)
    assert scope['make_head']().loss_cls is None
    head = scope['make_head'](HeadWithLoss)
    assert isinstance(head.loss_cls, torch.nn.CrossEntropyLoss)
    assert 'loss_cls' in dict(head.named_children())


def test_runner_resumes_from_its_own_checkpoint(tmp_path):
    first = train_toy_model(tmp_path, epochs=1)
    second = train_toy_model(tmp_path, epochs=2, resume=True)
    assert (first.epoch, second.epoch, second.iter) == (1, 2, 4)
    history = second.message_hub.get_scalar('train/loss')
    assert len(history.data[0]) == 4  # two iterations of each run
    assert history.mean() > 0


def hooks_of_toy_runner(folder, **default_hooks):
    runner = Runner(
        ToyModel(), str(folder), default_hooks=default_hooks, experiment_name=folder.name
    )
    return {type(hook).__name__ for hook in runner.hooks}


def test_none_takes_any_hook_out(tmp_path):
    every = hooks_of_toy_runner(tmp_path / 'all', ema=dict(type='EMAHook'))
    some = hooks_of_toy_runner(tmp_path / 'some', timer=None, ema=None)
    assert every - some == {'EMAHook', 'IterTimerHook'}
    assert some <= every


def test_none_takes_our_hooks_out_with_the_stock_tools(run_python, root, tmp_path):
    """They import mmqnet late, by the prefix of the model's type."""
    code = f"""
        import sys
        from mmengine.config import Config
        from mmengine.runner import Runner
        config = Config.fromfile({str(root / 'configs/resnet/resnet18_w1-a2_in1k.py')!r})
        config.work_dir = {str(tmp_path)!r}
        config.merge_from_dict(dict(default_hooks=dict(gap=None, phases=None, visualization=None)))
        assert 'mmqnet.engine' not in sys.modules
        print(*(type(hook).__name__ for hook in Runner.from_cfg(config).hooks))
    """
    hooks = run_python(code).splitlines()[-1].split()
    assert {'CalibrationHook', 'TemperatureHook', 'ScaleLogHook'} <= set(hooks)
    assert not {'SoftHardGapHook', 'PhaseHook', 'VisualizationHook'} & set(hooks)


@pytest.mark.parametrize('last', [dict(metainfo=dict(classes=('Tree',))), {}])
def test_an_empty_data_set_is_named(tmp_path, last):
    annotations = dict(
        images=[dict(id=0, file_name='0.png', width=8, height=8)],
        annotations=[],
        categories=[dict(id=0, name='tree')],
    )
    (tmp_path / 'train.json').write_text(json.dumps(annotations))
    config = dict(
        type='CocoDataset',
        ann_file=str(tmp_path / 'train.json'),
        data_prefix=dict(img=''),
        metainfo=dict(classes=('tree',)),
        filter_cfg=dict(filter_empty_gt=True),
    )
    message = r'CocoDataset of `ann_file` .*train\.json. has no samples.*classes.*filter_cfg'
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(ValueError, match=message):
        DATASETS.build(config | last)


def test_annotations_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / 'train.json'
    path.write_text('{"images": [{"id": 0}], "annotations": [], "categories": []}')
    config = dict(type='CocoDataset', ann_file=str(path), data_prefix=dict(img=''))
    message = r"CocoDataset of `ann_file` .*train\.json. cannot be read: KeyError: 'file_name'"
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(ValueError, match=message):
        DATASETS.build(config)


def test_torchvision_imports(run_python):
    """Whether or not its operators fit this torch."""
    pytest.importorskip('torchvision')
    code = """
        import mmqnet
        import torch, torchvision
        from torchvision.transforms import functional
        print(functional.hflip(torch.arange(3.0).view(1, 1, 3)).flatten().tolist())
    """
    assert run_python(code, startup=False).strip() == '[2.0, 1.0, 0.0]'


def test_missing_operators_are_defined_once(run_python, tmp_path):
    """A package named torchvision, with operators that cannot be loaded, shows the fault."""
    folder = tmp_path / 'torchvision'
    folder.mkdir()
    (folder / '_C.so').write_bytes(b'not a library')
    (folder / '__init__.py').write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\n"
        'def fake(dets, scores, iou_threshold):\n    return scores.new_empty(0)\n'
    )
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import mmqnet.compat
        import torchvision, torch
        mmqnet.compat._define_missing_operators(torchvision)
        print(len(mmqnet.compat._libraries), hasattr(torch.ops.torchvision, 'qnms'))
    """
    assert run_python(code, startup=False).split() == ['1', 'True']
    assert 'does not exist' in run_python(
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
        'try:\n    import torchvision\nexcept RuntimeError as error:\n    print(error)',
        startup=False,
    )
