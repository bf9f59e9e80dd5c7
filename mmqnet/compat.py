"""Repairs of upstream faults, each applied only where the fault is present.

A repair waits for the import of the module that it concerns, or is applied at once if that has been
imported already. So importing mmqnet imports neither torch nor anything of the stack, and a repair
works whether mmqnet comes first or, as with the stock tools of MMDetection, is imported late by the
``mmqnet.`` prefix in a config. This module imports the standard library only.
"""

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

from mmqnet.failures import naming
from mmqnet.import_hooks import on_import

__all__ = [
    'apply_all',
    'repair_annotation_errors',
    'repair_checkpoint_loading',
    'repair_default_hooks',
    'repair_empty_datasets',
    'repair_ssd_head',
    'repair_torchvision',
]


def repair_ssd_head() -> None:
    """Let MMDetection 3.2 and later, and the OneDL fork, evaluate an SSD.

    ``BaseDenseHead._predict_by_feat_single`` reads ``self.loss_cls``, which SSDHead never sets: its
    ``__init__`` skips the one of AnchorHead. See open-mmlab/mmdetection issues 11063, 11305, 11780.
    """
    on_import('mmdet.models.dense_heads.ssd_head', _set_missing_loss_cls)


def _set_missing_loss_cls(module: ModuleType) -> None:
    head = module.SSDHead
    original = head.__init__
    if getattr(original, '_mmqnet_repair', False):
        return

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        # Of the instance, not of the class: there it would hide the loss that a subclass or a later
        # release sets, since torch keeps modules out of reach of the usual attribute look-up.
        if not hasattr(self, 'loss_cls'):
            self.loss_cls = None

    init._mmqnet_repair = True  # type: ignore[attr-defined]
    head.__init__ = init


def repair_default_hooks() -> None:
    """Let ``default_hooks.NAME=None`` take any hook out, as MMEngine's documentation has it.

    ``Runner.register_default_hooks`` does so for the six hooks that it brings itself, and fails
    with an AssertionError without a message for those that a config adds, such as MMDetection's
    ``visualization`` and ours. The runner builds its model first, so a config with a type of mmqnet
    is repaired in the stock tools too.
    """
    on_import('mmengine.runner.runner', _drop_hooks_that_are_none)


def _drop_hooks_that_are_none(module: ModuleType) -> None:
    import inspect  # takes 10 ms, and mmqnet is imported when Python starts

    original = module.Runner.register_default_hooks
    if 'assert hook is not None' not in inspect.getsource(original):
        return  # without the fault, or repaired

    def register_default_hooks(self: Any, hooks: dict[str, Any] | None = None) -> None:
        own = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'}
        given = (hooks or {}).items()
        original(self, {name: hook for name, hook in given if hook is not None or name in own})

    module.Runner.register_default_hooks = register_default_hooks


def repair_empty_datasets() -> None:
    """Let MMEngine say which data set is empty.

    ``BaseDataset`` fails with ``need at least one array to concatenate`` when no sample is left,
    usually since the annotation file has other class names than the config. See
    open-mmlab/mmdetection issues 9610 and 10916.
    """
    on_import('mmengine.dataset.base_dataset', _name_empty_datasets)


def _name_empty_datasets(module: ModuleType) -> None:
    original = module.BaseDataset._serialize_data
    if getattr(original, '_mmqnet_repair', False):
        return

    def _serialize_data(self: Any) -> Any:
        if not self.data_list:
            classes = tuple(self.metainfo.get('classes') or ())
            raise ValueError(
                f'the {type(self).__name__} of `ann_file` {self.ann_file!r} has no samples: does '
                f'that file use the names of `metainfo.classes` {classes[:8]}, and does '
                f'`filter_cfg` {self.filter_cfg} leave any?'
            )
        return original(self)

    _serialize_data._mmqnet_repair = True  # type: ignore[attr-defined]
    module.BaseDataset._serialize_data = _serialize_data


def repair_annotation_errors() -> None:
    """Let MMEngine and MMDetection say which annotation file, or sample, they cannot read.

    A key that lacks or a box of three numbers ends in an error of whatever reads it, which names
    neither. See open-mmlab/mmdetection issue 9610.
    """
    on_import('mmengine.dataset.base_dataset', _name_annotations)
    on_import('mmdet.datasets.base_det_dataset', _name_annotations)


def _name_annotations(module: ModuleType) -> None:
    kind = getattr(module, 'BaseDetDataset', None) or module.BaseDataset
    if getattr(kind.full_init, '_mmqnet_repair', False):
        return
    full_init, prepare_data = kind.full_init, kind.prepare_data

    @functools.wraps(full_init)
    def named_init(self: Any) -> None:
        with naming(f'the {type(self).__name__} of `ann_file` {self.ann_file!r} cannot be read'):
            full_init(self)

    @functools.wraps(prepare_data)
    def named_data(self: Any, idx: Any) -> Any:
        try:
            return prepare_data(self, idx)
        except OSError:  # which names the picture
            raise
        except Exception:
            with naming(f'sample {idx} of `ann_file` {self.ann_file!r} cannot be loaded'):
                raise

    named_init._mmqnet_repair = True  # type: ignore[attr-defined]
    kind.full_init = named_init
    if 'prepare_data' in vars(kind):
        kind.prepare_data = named_data


def repair_checkpoint_loading() -> None:
    """Let MMEngine load its own checkpoints with torch's check on, and no others.

    ``torch.load`` of torch 2.6 and later refuses classes that it does not know, and MMEngine saves
    some. Up to 0.10.7 it cannot load them: see open-mmlab/mmengine issue 1655 and pull request
    1650. OneDL's loads whatever is refused, such as the state of OneCycleLR (as torch's own,
    pytorch/pytorch pull request 123775), without the check after a warning. Neither names the file
    that it cannot read. See :mod:`mmqnet.safe_checkpoints`.
    """
    on_import('mmengine.runner.checkpoint', _read_safely)


def _read_safely(module: ModuleType) -> None:
    from mmqnet import safe_checkpoints  # which imports much, and mmqnet is imported early

    safe_checkpoints.repair(module)


def repair_torchvision() -> None:
    """Let torchvision be imported beside a build of torch that its operators do not fit.

    The usual case is a CPU build of torch with torchvision's common wheel, which is made for CUDA.
    Its operators cannot be loaded, and its import fails with ``operator torchvision::nms does not
    exist``, although MMPretrain needs its transforms only. See pytorch/vision issues 9077, 9085.
    """
    on_import('torchvision', _define_missing_operators, before=True)


_libraries: list = []  # torch forgets the operators of a Library that is garbage collected


def _define_missing_operators(module: ModuleType) -> None:
    import torch

    if hasattr(torch.ops.torchvision, 'nms'):
        return
    binary = next(Path(module.__path__[0]).glob('_C.*'), None)
    try:
        if binary is not None:
            torch.ops.load_library(str(binary))
            return
    except OSError:
        pass
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _libraries.append(library)


def apply_all() -> None:
    """Apply every repair; a second call changes nothing."""
    repair_torchvision()
    repair_checkpoint_loading()
    repair_default_hooks()
    repair_empty_datasets()
    repair_annotation_errors()
    repair_ssd_head()
