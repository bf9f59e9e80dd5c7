"""One-stage detectors."""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from mmqnet.export.box_operators import translation_table
from mmqnet.export.detection.postprocess import (
    Suppression,
    above,
    detections,
    flatten,
    large_enough,
    take,
)
from mmqnet.export.export_module import ExportModule
from mmqnet.export.metadata import FileMetadata

_BOXES_WITHOUT_LIMIT = 300  # where a head reports as many as there are


class DetectorExport(ExportModule):
    """A detector; the base of those below."""

    output_names = ('dets', 'labels')
    suppression: Suppression

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Return ``dets`` and ``labels``."""
        return self.detect(self.prepare(input), self.border(input))

    def detect(self, x: Tensor, border: Tensor) -> tuple[Tensor, ...]:
        """Return ``dets`` and ``labels``.

        Args:
            x: (N, 3, H, W), normalized.
            border: What :meth:`border` returns.
        """
        raise NotImplementedError

    def border(self, input: Tensor) -> Tensor:
        """Return the largest x, y, x, y of the images in the input, (N, 4), or (1, 4) for all.

        MMDetection cuts boxes at the image, not at its padding on the right and at the bottom. A
        file is not told where that begins, but sees it: padding that is added after normalization
        is the mean, in general no integer, and the pixels are integers.
        """
        height, width = self.file.input_size
        channel = self.file.channel_of_padding
        if channel is None:
            return input.new_tensor([[width, height, width, height]])
        pixels = input[:, channel] != self.file.pad_value[channel]
        sides = [pixels[:, 0].sum(1), pixels[:, :, 0].sum(1)]
        return torch.stack(sides * 2, 1).to(input.dtype)

    @property
    def head(self) -> Any:
        """The head of a one-stage detector."""
        return self.model.bbox_head

    @property
    def translation_table(self) -> dict[Any, Callable]:
        """ONNX functions of NMS and RoIAlign."""
        return translation_table()

    def describe(self, score_threshold: float, clip_border: bool) -> None:
        """Write what becomes of the boxes into the metadata."""
        self.file = self.file.with_changes(
            score_threshold=float(score_threshold),
            iou_threshold=self.suppression.iou_threshold,
            class_agnostic=self.suppression.class_agnostic,
            max_per_image=self.suppression.max_boxes,
            clip_border=clip_border,
        )

    def add_priors(self, head: Any, prefix: str, **options: Any) -> int:
        """Keep a head's priors for the input size as constants; return the number of levels."""
        size = self.file.input_size
        x = torch.zeros(1, 3, *size, device=self.mean.device)
        try:
            with torch.no_grad():
                scores = head(self.model.extract_feat(x))[0]
        except RuntimeError as error:
            raise ValueError(
                f'the model should take an input of {size[0]} x {size[1]} pixels (height x width), '
                f'but fails: {str(error).splitlines()[0]}'
            ) from error
        sizes = [level.shape[-2:] for level in scores]
        priors = head.prior_generator.grid_priors(sizes, device=x.device, **options)
        for i, level in enumerate(priors):
            self.register_buffer(f'{prefix}{i}', get_box_tensor(level), persistent=False)
        return len(priors)

    def decode(self, coder: Any, priors: Tensor, deltas: Tensor, border: Tensor) -> Tensor:
        """Return boxes (N, k, 4) in pixels of the input, cut at the border if the coder does so.

        Args:
            coder: The head's.
            priors: (N, k, 4) anchors or (N, k, 2) points.
            deltas: (N, k, 4).
            border: What :meth:`border` returns.
        """
        boxes = coder.decode(priors.flatten(0, 1), deltas.flatten(0, 1))
        boxes = get_box_tensor(boxes).reshape(-1, *priors.shape[1:2], 4)
        return torch.minimum(boxes.clamp(min=0), border[:, None]) if coder.clip_border else boxes


class DenseExport(DetectorExport):
    """A detector whose head MMDetection's ``BaseDenseHead`` turns into boxes.

    Among them are SSD, RetinaNet, FCOS, ATSS and RTMDet.
    """

    def __init__(self, model: Any, metadata: FileMetadata) -> None:
        super().__init__(model, metadata)
        self.num_levels = self.add_priors(self.head, 'priors')
        test_cfg = self.head.test_cfg
        self.suppression = Suppression.from_config(test_cfg, 'model.test_cfg')
        self.score_threshold = test_cfg.get('score_thr', 0)
        self.candidates = test_cfg.get('nms_pre', -1)
        self.min_size = test_cfg.get('min_bbox_size', -1)
        self.describe(self.score_threshold, self.head.bbox_coder.clip_border)

    def detect(self, x: Tensor, border: Tensor) -> tuple[Tensor, ...]:
        """Return ``dets`` and ``labels``."""
        outputs = zip(*self.head(self.model.extract_feat(x)), strict=True)
        levels = [self._level(level, *maps) for level, maps in enumerate(outputs)]
        priors, deltas, scores, labels = (torch.cat(p, 1) for p in zip(*levels, strict=True))
        # once for all levels: the decoder is most of what there is to trace
        boxes = self.decode(self.head.bbox_coder, priors, deltas, border)
        scores = large_enough(boxes, scores, self.min_size)
        return detections(*self.suppression(boxes, scores, labels))

    def _level(
        self,
        level: int,
        cls_score: Tensor,
        bbox_pred: Tensor,
        factor: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return priors, deltas, scores and labels of a level's best pairs of a place and a class.

        They are (N, k, 4) or (N, k, 2), (N, k, 4), (N, k) and (N, k).
        """
        scores = self.class_scores(cls_score)
        classes, pairs = scores.shape[2], scores.shape[1] * scores.shape[2]
        count = min(self.candidates, pairs) if self.candidates > 0 else pairs
        scores, places = scores.reshape(-1, pairs).topk(count)
        # MMDetection drops low scores first: the same pairs, but millions of comparisons
        scores = above(scores, self.score_threshold)
        labels, places = places % classes, places // classes
        if factor is not None:
            scores = scores * flatten(factor, 1).squeeze(-1).sigmoid().gather(1, places)
        deltas = self.deltas(level, bbox_pred, places)
        return self.priors(level)[places], deltas, scores, labels

    def class_scores(self, cls_score: Tensor) -> Tensor:
        """Return the scores (N, places, classes), without the background's."""
        logits = flatten(cls_score, self.head.cls_out_channels)
        if self.head.use_sigmoid_cls:
            return logits.sigmoid()
        return logits.softmax(-1)[..., :-1]

    def priors(self, level: int) -> Tensor:
        """Return what the coder takes as the priors of a level, (places, 4) or (places, 2)."""
        return getattr(self, f'priors{level}')

    def deltas(self, level: int, bbox_pred: Tensor, places: Tensor) -> Tensor:
        """Return what the coder takes at some places (N, k) of a level, (N, k, 4)."""
        return take(flatten(bbox_pred, self.head.bbox_coder.encode_size), places)


class GFLExport(DenseExport):
    """GFL: distances are the means of distributions."""

    def priors(self, level: int) -> Tensor:
        """Return the centers of the anchors of a level, (places, 2)."""
        return self.head.anchor_center(super().priors(level))

    def deltas(self, level: int, bbox_pred: Tensor, places: Tensor) -> Tensor:
        """Return distances in pixels at some places (N, k) of a level, (N, k, 4)."""
        head = self.head
        bins = take(flatten(bbox_pred, 4 * (head.reg_max + 1)), places)
        distances = head.integral(bins.flatten(0, 1)) * head.prior_generator.strides[level][0]
        return distances.reshape(-1, places.shape[1], 4)


class YOLOXExport(DetectorExport):
    """YOLOX: one class a place, and no limit to the candidates."""

    def __init__(self, model: Any, metadata: FileMetadata) -> None:
        super().__init__(model, metadata)
        self.num_levels = self.add_priors(self.head, 'priors', with_stride=True)
        test_cfg = self.head.test_cfg
        key = 'model.test_cfg'
        self.suppression = Suppression.from_config(test_cfg, key, _BOXES_WITHOUT_LIMIT)
        self.score_threshold = test_cfg.score_thr
        self.describe(self.score_threshold, clip_border=False)

    def detect(self, x: Tensor, border: Tensor) -> tuple[Tensor, ...]:
        """Return ``dets`` and ``labels``; boxes are not cut."""
        head = self.head
        cls_scores, bbox_preds, objectnesses = head(self.model.extract_feat(x))
        classes = torch.cat([flatten(m, head.cls_out_channels) for m in cls_scores], 1).sigmoid()
        deltas = torch.cat([flatten(m, 4) for m in bbox_preds], 1)
        objects = torch.cat([flatten(m, 1) for m in objectnesses], 1).sigmoid().squeeze(-1)
        priors = torch.cat([getattr(self, f'priors{i}') for i in range(self.num_levels)])
        boxes = head._bbox_decode(priors, deltas)
        scores, labels = classes.max(-1)
        scores = scores * objects
        scores = torch.where(scores >= self.score_threshold, scores, scores.new_zeros(()))
        return detections(*self.suppression(boxes, scores, labels))


class RawExport(ExportModule):
    """The outputs of a one-stage detector's head, a level after the other, for a decoder of others.

    Their names are those of MMDetection: ``cls_score_0``, ``bbox_pred_0``, then the score factors
    of heads that have them.
    """

    def __init__(self, model: Any, metadata: FileMetadata) -> None:
        super().__init__(model, metadata)
        x = torch.zeros(1, 3, *metadata.input_size, device=self.mean.device)
        with torch.no_grad():
            outputs = model.bbox_head(model.extract_feat(x))
        kinds = ('cls_score', 'bbox_pred', 'score_factor')
        self.output_names = tuple(
            f'{kind}_{i}'
            for kind, maps in zip(kinds, outputs, strict=False)
            for i in range(len(maps))
        )

    def predict(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps (N, channels, h, w)."""
        outputs = self.model.bbox_head(self.model.extract_feat(x))
        return tuple(level for maps in outputs for level in maps)
