"""The gap between soft and hard functions (figure 4 of the paper)."""

import copy
import math
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Dataset

from mmqnet.checks import check_positive_integer
from mmqnet.engine.unwrap import unwrap
from mmqnet.quantizers import soft_evaluation
from mmqnet.registry import HOOKS

_WIDE = 0.1  # as a share of the metric


@HOOKS.register_module()
class SoftHardGapHook(Hook):
    """Validate with soft and with hard functions on a fixed part of the validation set.

    Logs ``gap/soft/METRIC``, ``gap/hard/METRIC`` and ``gap/METRIC`` (soft minus hard) beside the
    metrics of the validation, so that log files and visualization backends hold the curve.

    Args:
        interval (int): Do it at every ``interval``-th validation, counted from the beginning of the
            training, also by a resumed run; always where one only validates. Default 1.
        num_samples (int): How many images, the first of the validation set. Default 200.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If an argument is not positive.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.SoftHardGapHook', interval=2, num_samples=500))
    """

    # after a validation's other hooks, when EMA has swapped its weights back
    priority = 'LOWEST'

    def __init__(self, interval: int = 1, num_samples: int = 200) -> None:
        check_positive_integer(interval, 'SoftHardGapHook.interval')
        check_positive_integer(num_samples, 'SoftHardGapHook.num_samples')
        self._interval = interval
        self._num_samples = num_samples
        self._loader: DataLoader[Any] | None = None
        self._last: dict[str, float] = {}

    def before_train(self, runner: Runner) -> None:
        """Build the data loader and the evaluator, so that errors occur now, not after an epoch.

        Raises:
            ValueError: If the evaluator counts on all images of several data sets.
        """
        if runner.val_loop is not None:
            if 'dataset_prefixes' in runner.cfg.val_evaluator:  # of MMDetection's, by data sets
                raise ValueError(
                    'SoftHardGapHook evaluates the first images of `val_dataloader.dataset`, which '
                    f'`val_evaluator` {runner.cfg.val_evaluator.type!r} cannot: take the hook out '
                    'with `default_hooks.gap=None`'
                )
            self._get_loader(runner)
            _build_evaluator(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Evaluate with both and log the difference."""
        if _validation(runner) % self._interval:
            return
        model = unwrap(runner.model)
        # evaluators print tables of their own
        about = f'on the first {len(self._get_loader(runner).dataset)} images'  # type: ignore[arg-type]
        runner.logger.info(f'Soft/hard gap: the hard functions {about}')
        hard = self._evaluate(runner, model)
        runner.logger.info(f'Soft/hard gap: the soft functions {about}')
        with soft_evaluation(model):
            soft = self._evaluate(runner, model)
        scalars = {}
        for name, value in hard.items():
            if isinstance(value, int | float):
                scalars[f'gap/hard/{name}'] = value
                scalars[f'gap/soft/{name}'] = soft[name]
                scalars[f'gap/{name}'] = soft[name] - value
        runner.visualizer.add_scalars(scalars, step=_step(runner))
        runner.logger.info('  '.join(f'{name}: {value:.4f}' for name, value in scalars.items()))
        self._last = scalars

    def after_train(self, runner: Runner) -> None:
        """Say so if the last gap was wide: then the training ends far from the staircase."""
        prefix = 'gap/hard/'
        for name, hard in self._last.items():
            metric = name.removeprefix(prefix)
            soft = self._last.get(f'gap/soft/{metric}', hard)
            if name.startswith(prefix) and abs(soft - hard) > _WIDE * max(abs(soft), abs(hard)):
                runner.logger.warning(
                    f'The training ends far from the staircase: {metric} is {hard:.4g} with hard '
                    f'functions, with which the model is used, and {soft:.4g} with soft ones: '
                    'train longer, or let the temperature end higher'
                )
                return

    @torch.no_grad()
    def _evaluate(self, runner: Runner, model: Any) -> dict[str, Any]:
        loader = self._get_loader(runner)
        evaluator = _build_evaluator(runner)
        evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
        model.eval()
        for batch in loader:
            evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
        return dict(evaluator.evaluate(len(loader.dataset)))  # type: ignore[arg-type]

    def _get_loader(self, runner: Runner) -> DataLoader[Any]:
        if self._loader is None:
            config = copy.deepcopy(runner.cfg.val_dataloader)
            whole = runner.val_dataloader.dataset
            count = min(self._num_samples, len(whole))
            config.persistent_workers = False
            if isinstance(whole, BaseDataset):
                config.dataset.indices = count
            else:  # wrappers take no `indices`
                config.dataset = _FirstSamples(DATASETS.build(config.dataset), count)
            self._loader = Runner.build_dataloader(config, seed=runner.seed)
            if any('ann_file' in m for m in _as_list(runner.cfg.val_evaluator)):
                _keep_ground_truth(self._loader.dataset)
        return self._loader


class _FirstSamples(Dataset[Any]):
    """The first samples of a data set that wraps others."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset, self._count = dataset, count
        self.metainfo = getattr(dataset, 'metainfo', None)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def _keep_ground_truth(dataset: Any) -> None:
    """Make the pipelines of a data set, and of those that it wraps, keep the annotations."""
    wrapped = [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())]
    for inner in wrapped:
        if inner is not None:
            _keep_ground_truth(inner)
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if hasattr(transform, 'meta_keys'):
            transform.meta_keys = (*transform.meta_keys, 'instances')


def _build_evaluator(runner: Runner) -> Evaluator:
    """Build the validation's evaluator for a part of the images.

    With an annotation file COCO's metric expects results for all images of the file; without one it
    takes the ground truth from the samples, whose pipeline keeps it.
    """
    config = copy.deepcopy(runner.cfg.val_evaluator)
    for metric in _as_list(config):
        if 'ann_file' in metric:
            metric.ann_file = None
        metric.pop('outfile_prefix', None)
    return runner.build_evaluator(config)


def _step(runner: Runner) -> int:
    """Return the epochs or iterations so far, as the training counts; 0 without a training."""
    # not `runner.train_loop` or `runner.iter`, which would build the training
    if not isinstance(runner._train_loop, BaseLoop):
        return 0
    return runner.epoch if isinstance(runner._train_loop, EpochBasedTrainLoop) else runner.iter


def _validation(runner: Runner) -> int:
    """Return the number of this validation, from epochs or iterations; 0 without a training."""
    step = _step(runner)
    return math.ceil(step / runner.train_loop.val_interval) if step else 0


def _as_list(config: Any) -> list[Any]:
    return config if isinstance(config, list) else [config]
