"""Classifiers as modules from pixels to scores."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from mmqnet.checks import check_bool
from mmqnet.export.export_module import ExportModule, channel_statistics
from mmqnet.export.input_format import check_shape, classes_of, input_format
from mmqnet.export.metadata import FileMetadata


class ClassifierExport(ExportModule):
    """A classifier of MMPretrain: ``scores`` (N, classes), the probabilities."""

    output_names = ('scores',)

    def __init__(self, model: nn.Module, metadata: FileMetadata) -> None:
        super().__init__(model, metadata)
        self._flips = not getattr(model.data_preprocessor, 'to_rgb', False)

    def predict(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of a normalized input (N, 3, H, W)."""
        return (F.softmax(self.model(x, mode='tensor'), dim=1),)


class RawClassifierExport(ClassifierExport):
    """The same before the softmax: ``logits`` (N, classes)."""

    output_names = ('logits',)

    def predict(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of a normalized input (N, 3, H, W)."""
        return (self.model(x, mode='tensor'),)


def export_module(
    model: nn.Module,
    config: Config,
    *,
    shape: Sequence[int],
    preprocess: bool = True,
    raw: bool = False,
) -> ExportModule:
    """Return the module to export of a classifier.

    Args:
        model: An ImageClassifier whose head is a softmax over classes; it is set to evaluation.
        config: That it was built from, with the pipeline of its test data.
        shape: Height and width of the input in pixels.
        preprocess: Whether the input is RGB, 0..255; otherwise it is normalized, in the network's
            order of channels.
        raw: Whether the output is that of the head, before the softmax.

    Raises:
        TypeError: If the model is no classifier.
        ValueError: If its head is none of those.
    """
    check_bool(preprocess, 'preprocess')
    check_bool(raw, 'raw')
    _check_head(model)
    mean, std = channel_statistics(model.data_preprocessor)
    metadata = FileMetadata(
        task='classification',
        outputs='raw' if raw else 'scores',
        input_size=check_shape(shape),
        classes=tuple((getattr(model, 'dataset_meta', None) or {}).get('classes', ()))
        or classes_of(config),
        **input_format(_with_channel_order(config), mean, std, preprocess),
    )
    model.eval()
    kind = RawClassifierExport if raw else ClassifierExport
    return kind(model, metadata).train(False)


def _check_head(model: nn.Module) -> None:
    from mmpretrain.models import ClsHead, ImageClassifier

    if not isinstance(model, ImageClassifier):
        raise TypeError(f'the model should be an ImageClassifier, but is a {type(model).__name__}')
    head = getattr(model, 'head', None)
    if not isinstance(head, ClsHead) or type(head)._get_predictions is not ClsHead._get_predictions:
        raise ValueError(
            f'the head {type(head).__name__} cannot be exported: it should be a ClsHead with a '
            'softmax over classes, such as LinearClsHead'
        )


def _with_channel_order(config: Config) -> Config:
    """Return the config with MMPretrain's ``to_rgb`` under MMDetection's name."""
    model = config.get('model') or {}
    settings = model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    described = dict(settings, bgr_to_rgb=settings.get('to_rgb', False))
    loader = config.get('test_dataloader') or {}
    return Config(dict(model=dict(data_preprocessor=described), test_dataloader=loader))
