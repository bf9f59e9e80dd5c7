"""What MMDetection does between a head's outputs and the boxes, with fixed sizes.

A candidate that is none has the score 0; so the number of rows never depends on the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmqnet.export import box_operators  # noqa: F401 -- registers the operators

_FAR = -1e6  # a coordinate that is the largest of no image


@dataclass(frozen=True)
class Suppression:
    """MMCV's ``batched_nms``: one suppression of boxes that are shifted by their class.

    Attributes:
        iou_threshold: Overlap above which the box of the lower score is dropped.
        max_boxes: K, the rows of the result.
        class_agnostic: Whether boxes of different classes suppress each other.
    """

    iou_threshold: float
    max_boxes: int
    class_agnostic: bool = False

    @classmethod
    def from_config(cls, test_cfg: Any, key: str, default_boxes: int = 0) -> 'Suppression':
        """Read ``nms`` and ``max_per_img`` of a ``test_cfg``.

        Args:
            test_cfg: The head's.
            key: Where it is in the config, for messages.
            default_boxes: Rows, if ``max_per_img`` is missing.

        Raises:
            ValueError: If it is not the usual NMS, or the number of boxes is missing.
        """
        nms = test_cfg.get('nms')
        if not isinstance(nms, Mapping) or nms.get('type', 'nms') != 'nms':
            raise ValueError(f"`{key}.nms` should be of type 'nms' for an export, but got {nms!r}")
        unknown = set(nms) - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
        if unknown or 'iou_threshold' not in nms:
            raise ValueError(
                f'`{key}.nms` should have `iou_threshold`, and no more than `class_agnostic` and '
                f'`split_thr` beside it for an export, but got {nms!r}'
            )
        boxes = test_cfg.get('max_per_img', default_boxes)
        if boxes < 1:
            raise ValueError(f'`{key}.max_per_img` should be positive, but got {boxes!r}')
        return cls(float(nms['iou_threshold']), boxes, bool(nms.get('class_agnostic', False)))

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the best boxes (N, K, 4), scores (N, K) and labels (N, K), by falling scores.

        Args:
            boxes: (N, B, 4).
            scores: (N, B), 0 for none.
            labels: (N, B), int64.
        """
        shifted = boxes
        if not self.class_agnostic:
            # The maximum is of the candidates alone, as MMDetection has dropped the others.
            candidates = torch.where((scores > 0).unsqueeze(-1), boxes, boxes.new_tensor(_FAR))
            highest = candidates.amax((1, 2)).unsqueeze(1)
            shifted = boxes + (labels.to(boxes.dtype) * (highest + 1)).unsqueeze(-1)
        kept = torch.ops.mmqnet.suppress(shifted, scores, self.iou_threshold, self.max_boxes)
        missing = max(0, self.max_boxes - kept.shape[1])
        boxes, labels = F.pad(boxes, (0, 0, 0, missing)), F.pad(labels, (0, missing))
        best, places = F.pad(kept, (0, missing)).topk(self.max_boxes)
        return take(boxes, places), best, labels.gather(1, places)


def detections(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``dets`` (N, K, 5) and ``labels`` (N, K); what is none has zeros and the label -1."""
    found = scores > 0
    dets = torch.cat([boxes, scores.unsqueeze(-1)], -1)
    dets = torch.where(found.unsqueeze(-1), dets, dets.new_zeros(()))
    return dets, torch.where(found, labels, labels.new_tensor(-1))


def above(scores: Tensor, threshold: float) -> Tensor:
    """Return the scores with those set to 0 that are not above a threshold."""
    return torch.where(scores > threshold, scores, scores.new_zeros(()))


def large_enough(boxes: Tensor, scores: Tensor, min_size: float) -> Tensor:
    """Return the scores with those of boxes set to 0 that are not larger than ``min_size``.

    Args:
        boxes: (N, B, 4).
        scores: (N, B).
        min_size: In pixels; negative to keep all, as ``min_bbox_size`` of MMDetection.
    """
    if min_size < 0:
        return scores
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    large = (width > min_size) & (height > min_size)
    return torch.where(large, scores, scores.new_zeros(()))


def flatten(x: Tensor, channels: int) -> Tensor:
    """Return a head's output (N, A * channels, H, W) as (N, H * W * A, channels)."""
    places = x.shape[1] // channels * x.shape[2] * x.shape[3]
    return x.permute(0, 2, 3, 1).reshape(-1, places, channels)


def take(x: Tensor, places: Tensor) -> Tensor:
    """Return the rows ``places`` (N, k) of ``x`` (N, B, D), as (N, k, D)."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
