"""Agreement of an exported file with the model in the metrics of the config."""

import contextlib
import copy
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from torch import nn
from torch.utils.data import DataLoader

from mmqnet.export.metadata import FileMetadata
from mmqnet.export.pictures import loader_of_test_data
from mmqnet.export.runtime import ExportedClassifier, ExportedDetector


@dataclass(frozen=True)
class MetricAgreement:
    """A metric of the model and of the file, on the same pictures.

    Attributes:
        name: As the evaluator gives it, such as ``'coco/bbox_mAP'``.
        pictures: How many.
        model: The model's.
        file: The file's.
    """

    name: str
    pictures: int
    model: float
    file: float

    @property
    def difference(self) -> float:
        """By how much they differ."""
        return abs(self.model - self.file)


def compare_metrics(
    path: str | Path, model: nn.Module, file: FileMetadata, config: Config, count: int
) -> list[MetricAgreement]:
    """Compare the metrics of a file in ONNX Runtime with the model's own predictions.

    Args:
        path: What :func:`mmqnet.export.onnx.export_onnx` wrote.
        model: The model of MMDetection or MMPretrain, in evaluation mode.
        file: The file's metadata.
        config: With ``test_dataloader`` and ``test_evaluator``.
        count: How many pictures of the test data at most.

    Returns:
        list[MetricAgreement]: In the order of the evaluator; empty for raw outputs and for a config
        without an evaluator.

    Raises:
        ValueError: If the config has no test data, or the file does not take its pictures.
    """
    if file.outputs == 'raw' or not config.get('test_evaluator'):
        return []
    kind = ExportedDetector if file.task == 'detection' else ExportedClassifier
    with _quiet():
        loader = loader_of_test_data(config)
    own = metrics_of(model, config, loader, count)
    found = metrics_of(kind(str(path)), config, loader, count)
    pictures = min(count, len(loader))
    return [
        MetricAgreement(name, pictures, float(value), float(found[name]))
        for name, value in own.items()
        if name in found
    ]


@torch.no_grad()
def metrics_of(
    model: Any, config: Config, loader: DataLoader, count: int | None = None
) -> dict[str, Any]:
    """Return what the config's evaluator finds on test data.

    Args:
        model: Of MMDetection or MMPretrain, in evaluation mode; or an exported file's.
        config: With ``test_evaluator``.
        loader: The data, from :func:`mmqnet.export.pictures.loader_of_test_data`.
        count: How many pictures at most. Default: None, for all.
    """
    with _quiet():
        evaluator = Evaluator(copy.deepcopy(config.test_evaluator))
        evaluator.dataset_meta = loader.dataset.metainfo  # type: ignore[attr-defined]
        seen = []
        for batch in itertools.islice(loader, count):
            seen += [sample.metainfo.get('img_id') for sample in batch['data_samples']]
            evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
        for metric in evaluator.metrics:
            if hasattr(metric, 'img_ids'):  # CocoMetric counts pictures without a result as missed
                metric.img_ids = seen
        return evaluator.evaluate(len(seen))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tables of evaluators."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
