"""Two operators on boxes, each one node of a traced graph and of ONNX.

Their sizes are fixed, so nothing behind them depends on what they find.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmqnet.export.packages import require


@torch.library.custom_op('mmqnet::suppress', mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int) -> Tensor:
    """Return the scores with those set to 0 that non-maximum suppression drops.

    Args:
        boxes: (N, B, 4), x1, y1, x2, y2.
        scores: (N, B); a box of score 0 is none.
        iou_threshold: Overlap above which the box of the lower score is dropped.
        max_boxes: How many boxes of an image are kept at most.

    Returns:
        Tensor: (N, B).
    """
    from mmcv.ops import nms

    kept = torch.zeros_like(scores)
    for image in range(len(scores)):
        found = scores[image].nonzero().squeeze(1)
        if len(found):
            _, best = nms(boxes[image, found], scores[image, found], iou_threshold)
            best = found[best[:max_boxes]]
            kept[image, best] = scores[image, best]
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int) -> Tensor:
    return torch.empty_like(scores)


@torch.library.custom_op('mmqnet::roi_align', mutates_args=())
def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: list[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Return the mean features of regions, as MMCV's RoIAlign.

    Args:
        features: (N, C, H, W).
        rois: (R, 5), index of the image, x1, y1, x2, y2 in pixels of the input.
        output_size: Height and width of the result.
        spatial_scale: From pixels of the input to cells of ``features``.
        sampling_ratio: Samples a bin and side; 0 for as many as fit.
        aligned: Whether pixels have their centers at .5.

    Returns:
        Tensor: (R, C, *output_size).
    """
    from mmcv.ops.roi_align import RoIAlignFunction

    height, width = output_size
    return RoIAlignFunction.apply(
        features, rois, (height, width), spatial_scale, sampling_ratio, 'avg', aligned
    )


@roi_align.register_fake
def _(
    features: Tensor,
    rois: Tensor,
    output_size: list[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return features.new_empty(rois.shape[0], features.shape[1], *output_size)


def translation_table() -> dict[Any, Callable]:
    """Return the ONNX functions of the operators, for ``custom_translation_table``.

    Raises:
        ImportError: If onnxscript is not installed.
    """
    require('onnxscript')
    import onnxscript

    op: Any = onnxscript.opset21

    def integers(*values: int) -> Any:
        return op.Constant(value_ints=values)

    def number(value: float) -> Any:
        return op.Constant(value_floats=[value])

    def suppress_onnx(boxes: Any, scores: Any, iou_threshold: float, max_boxes: int) -> Any:
        of_one_class = op.Unsqueeze(scores, integers(1))
        limits = (integers(max_boxes), number(iou_threshold), number(0.0))
        selected = op.NonMaxSuppression(boxes, of_one_class, *limits)
        places = op.Gather(selected, integers(0, 2), axis=1)  # of the rows image, class, box
        zeros = op.Mul(scores, number(0.0))
        return op.ScatterND(zeros, places, op.GatherND(scores, places))

    def roi_align_onnx(
        features: Any,
        rois: Any,
        output_size: list[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        images = op.Slice(rois, integers(0), integers(1), integers(1))
        return op.RoiAlign(
            features,
            op.Slice(rois, integers(1), integers(5), integers(1)),
            op.Cast(op.Squeeze(images, integers(1)), to=onnxscript.INT64.dtype),
            coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )

    return {
        torch.ops.mmqnet.suppress.default: suppress_onnx,
        torch.ops.mmqnet.roi_align.default: roi_align_onnx,
    }
