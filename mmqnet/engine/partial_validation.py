"""Validation on the first samples of the validation set."""

import copy
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset


class PartialValidation:
    """Evaluate a model on the first samples of a run's validation set, as often as asked.

    Args:
        runner: With a validation.
        num_samples: How many samples; all if there are fewer.

    Raises:
        ValueError: If the evaluator counts on all images of several data sets.
    """

    def __init__(self, runner: Runner, num_samples: int) -> None:
        if 'dataset_prefixes' in runner.cfg.val_evaluator:  # of MMDetection's, by data sets
            raise ValueError(
                '`val_evaluator` should evaluate the first images of `val_dataloader.dataset`, '
                f'which {runner.cfg.val_evaluator.type!r} cannot: `default_hooks.gap=None` takes '
                'SoftHardGapHook out, tools/sensitivity.py measures the loss without a metric'
            )
        self._runner = runner
        self._loader = _build_loader(runner, num_samples)
        metrics = self._build_evaluator().metrics  # errors occur now
        self._has_coco = any(_is_coco(type(metric)) for metric in metrics)

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(self._loader.dataset)  # type: ignore[arg-type]

    @property
    def has_coco(self) -> bool:
        """Whether MMDetection's COCO metric evaluates, which gives nothing for no detection."""
        return self._has_coco

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics of a model, which is set to evaluation."""
        evaluator = self._build_evaluator()
        evaluator.dataset_meta = getattr(self._loader.dataset, 'metainfo', None)
        model.eval()
        for batch in self._loader:
            outputs = model.val_step(batch)  # type: ignore[operator]
            evaluator.process(data_samples=outputs, data_batch=batch)
        return dict(evaluator.evaluate(self.num_samples))

    def _build_evaluator(self) -> Evaluator:
        """Build the validation's evaluator for a part of the images.

        With an annotation file COCO's metric expects results for all images of the file; without
        one it takes the ground truth from the samples, whose pipeline keeps it.
        """
        config = copy.deepcopy(self._runner.cfg.val_evaluator)
        for metric in _as_list(config):
            if 'ann_file' in metric:
                metric.ann_file = None
            metric.pop('outfile_prefix', None)
        return self._runner.build_evaluator(config)


class _FirstSamples(Dataset[Any]):
    """The first samples of a data set."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset, self._count = dataset, count
        self.metainfo = getattr(dataset, 'metainfo', None)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def _build_loader(runner: Runner, num_samples: int) -> DataLoader[Any]:
    config = copy.deepcopy(runner.cfg.val_dataloader)
    whole = runner.val_dataloader.dataset
    count = min(num_samples, len(whole))
    config.persistent_workers = False
    if isinstance(whole, BaseDataset) and config.dataset.get('indices') is None:
        config.dataset.indices = count
    else:  # wrappers take no `indices`, and a choice of the user's stays
        config.dataset = _FirstSamples(DATASETS.build(config.dataset), count)
    loader = Runner.build_dataloader(config, seed=runner.seed)
    if any('ann_file' in metric for metric in _as_list(runner.cfg.val_evaluator)):
        _keep_ground_truth(loader.dataset)
    return loader


def _keep_ground_truth(dataset: Any) -> None:
    """Make the pipelines of a data set, and of those that it wraps, keep the annotations."""
    wrapped = [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())]
    for inner in wrapped:
        if inner is not None:
            _keep_ground_truth(inner)
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if hasattr(transform, 'meta_keys'):
            transform.meta_keys = (*transform.meta_keys, 'instances')


def _is_coco(metric: type) -> bool:
    return any(base.__name__ == 'CocoMetric' for base in metric.__mro__)


def _as_list(config: Any) -> list[Any]:
    return config if isinstance(config, list) else [config]
