"""The module that exports a detector, chosen by what turns its head's outputs into boxes."""

from collections.abc import Sequence
from typing import Any

from mmdet.models import SingleStageDetector, StandardRoIHead, TwoStageDetector
from mmdet.models.dense_heads import GFLHead, RPNHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads import BBoxHead, SingleRoIExtractor
from mmdet.models.task_modules import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from mmengine.config import Config
from torch import nn

from mmqnet.checks import check_bool
from mmqnet.export.detection.dense import DenseExport, GFLExport, RawExport, YOLOXExport
from mmqnet.export.detection.two_stage import TwoStageExport
from mmqnet.export.export_module import ExportModule, channel_statistics
from mmqnet.export.input_format import check_shape, classes_of, input_format
from mmqnet.export.metadata import FileMetadata

# By the functions themselves: a head that inherits them ends in the same boxes, whatever its class.
_PREDICTING = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
_HEADS: tuple[tuple[type, type[ExportModule]], ...] = (
    (BaseDenseHead, DenseExport),
    (GFLHead, GFLExport),
    (YOLOXHead, YOLOXExport),
)
_CODERS = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder)


def export_module(
    model: nn.Module,
    config: Config,
    *,
    shape: Sequence[int],
    preprocess: bool = True,
    raw: bool = False,
) -> ExportModule:
    """Return the module to export of a detector.

    Its input is ``input`` (N, 3, H, W). Its outputs are ``dets`` (N, K, 5), rows of x1, y1, x2, y2
    in pixels of the input and the score, and ``labels`` (N, K), int64; K is the config's
    ``max_per_img``, and rows without a box have the label -1 and the score 0. They are what
    ``model.predict`` returns with ``rescale=False``.

    Args:
        model: A detector of MMDetection, float or quantized; it is set to evaluation.
        config: That it was built from, with the pipeline of its test data.
        shape: Height and width of the input in pixels.
        preprocess: Whether the input is RGB, 0..255; otherwise it is normalized, in the network's
            order of channels.
        raw: Whether the outputs are those of the head, before decoding and NMS.

    Raises:
        TypeError: If the model is no detector.
        ValueError: If it ends in something that cannot be exported, or does not take the shape.
    """
    check_bool(preprocess, 'preprocess')
    check_bool(raw, 'raw')
    kind = _kind(model, raw)
    mean, std = channel_statistics(model.data_preprocessor)
    metadata = FileMetadata(
        task='detection',
        outputs='raw' if raw else 'boxes',
        input_size=check_shape(shape),
        classes=tuple((getattr(model, 'dataset_meta', None) or {}).get('classes', ()))
        or classes_of(config),
        **input_format(config, mean, std, preprocess),
    )
    model.train(False)
    return kind(model, metadata).train(False)


def _kind(model: nn.Module, raw: bool) -> type[ExportModule]:
    if isinstance(model, SingleStageDetector):
        _check_same(model, SingleStageDetector, ('predict',))
        kind = _kind_of_head(model.bbox_head)
        return RawExport if raw else kind
    if not isinstance(model, TwoStageDetector):
        raise TypeError(
            'the model should be a SingleStageDetector or a TwoStageDetector of MMDetection for an '
            f'export with boxes, but got {type(model).__name__}'
        )
    if raw:
        raise ValueError(
            'the outputs of a head without decoding need a one-stage detector, but '
            f'{type(model).__name__} pools features of decoded proposals'
        )
    _check_two_stage(model)
    return TwoStageExport


def _kind_of_head(head: nn.Module) -> type[ExportModule]:
    _check_coder(head)
    for base, kind in _HEADS:
        if all(_function(type(head), name) is _function(base, name) for name in _PREDICTING):
            if getattr(head.loss_cls, 'custom_cls_channels', False):
                raise _refusal(head, f'an activation of its own ({type(head.loss_cls).__name__})')
            return kind
    own = [n for n in _PREDICTING if _function(type(head), n) is not _function(BaseDenseHead, n)]
    raise _refusal(head, f'functions of its own ({", ".join(own)})')


def _check_two_stage(model: Any) -> None:
    _check_same(model, TwoStageDetector, ('predict',))
    _check_same(model.rpn_head, RPNHead, _PREDICTING)
    _check_coder(model.rpn_head)
    roi = model.roi_head
    _check_same(roi, StandardRoIHead, ('predict', 'predict_bbox', '_bbox_forward'))
    if roi.with_mask:
        raise _refusal(roi, 'masks')
    _check_same(roi.bbox_roi_extractor, SingleRoIExtractor, ('forward', 'map_roi_levels'))
    _check_same(roi.bbox_head, BBoxHead, ('predict_by_feat', '_predict_by_feat_single'))
    _check_coder(roi.bbox_head)
    for layer in roi.bbox_roi_extractor.roi_layers:
        if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
            raise _refusal(roi.bbox_roi_extractor, f'{layer}')
    if roi.bbox_head.custom_cls_channels or not roi.bbox_head.with_reg:
        raise _refusal(roi.bbox_head, 'an activation of its own or no boxes')


def _check_same(module: nn.Module, base: type, names: Sequence[str]) -> None:
    """Check that a module has the functions of a class of MMDetection."""
    own = [n for n in names if _function(type(module), n) is not _function(base, n)]
    if own:
        raise _refusal(module, f'functions of its own ({", ".join(own)})')


def _check_coder(head: nn.Module) -> None:
    coder = getattr(head, 'bbox_coder', None)
    if coder is not None and type(coder) not in _CODERS:
        raise _refusal(head, f'boxes of a {type(coder).__name__}')


def _function(kind: type, name: str) -> Any:
    return getattr(kind, name, None)


def _refusal(module: nn.Module, what: str) -> ValueError:
    return ValueError(
        f'{type(module).__name__} cannot be exported with boxes, because it has {what}; exported '
        'are heads that end as BaseDenseHead, GFLHead, YOLOXHead and StandardRoIHead of MMDetection'
    )
