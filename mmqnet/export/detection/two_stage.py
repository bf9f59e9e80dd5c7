"""Faster R-CNN and its like."""

from typing import Any

import torch
from torch import Tensor

from mmqnet.export.detection.dense import DetectorExport
from mmqnet.export.detection.postprocess import (
    Suppression,
    above,
    detections,
    flatten,
    large_enough,
    take,
)
from mmqnet.export.metadata import FileMetadata


class TwoStageExport(DetectorExport):
    """A region proposal network, RoIAlign, and a head on the pooled features.

    All images have the same number of proposals, those that are none with the score 0. Each
    proposal is pooled at all levels, with an empty region where it does not belong.
    """

    def __init__(self, model: Any, metadata: FileMetadata) -> None:
        super().__init__(model, metadata)
        self.num_levels = self.add_priors(self.rpn, 'priors')
        self.proposals = Suppression.from_config(self.rpn.test_cfg, 'model.test_cfg.rpn')
        test_cfg = self.roi.test_cfg
        self.suppression = Suppression.from_config(test_cfg, 'model.test_cfg.rcnn')
        self.score_threshold = test_cfg.score_thr
        self.describe(self.score_threshold, self.roi.bbox_head.bbox_coder.clip_border)

    @property
    def rpn(self) -> Any:
        """The region proposal network."""
        return self.model.rpn_head

    @property
    def roi(self) -> Any:
        """The head on regions."""
        return self.model.roi_head

    def detect(self, x: Tensor, border: Tensor) -> tuple[Tensor, ...]:
        """Return ``dets`` and ``labels``."""
        features = self.model.extract_feat(x)
        proposals, objectness = self.propose(features, border)
        images = torch.arange(proposals.shape[0], device=x.device, dtype=x.dtype)
        images = images.view(-1, 1, 1).expand(-1, proposals.shape[1], 1)
        rois = torch.cat([images, proposals], -1).flatten(0, 1)
        pooled = self.pool(features, rois)
        if self.roi.with_shared_head:
            pooled = self.roi.shared_head(pooled)
        cls_score, bbox_pred = self.roi.bbox_head(pooled)
        return self.classify(proposals, objectness, cls_score, bbox_pred, border)

    def propose(self, features: tuple[Tensor, ...], border: Tensor) -> tuple[Tensor, Tensor]:
        """Return proposals (N, P, 4) and their scores (N, P)."""
        test_cfg, levels = self.rpn.test_cfg, []
        for level, (cls_score, bbox_pred) in enumerate(zip(*self.rpn(features), strict=True)):
            scores = flatten(cls_score, self.rpn.cls_out_channels)
            if self.rpn.use_sigmoid_cls:
                scores = scores.sigmoid().squeeze(-1)
            else:
                scores = scores.softmax(-1)[..., 0]
            limit = test_cfg.get('nms_pre', -1)
            count = min(limit, scores.shape[1]) if limit > 0 else scores.shape[1]
            scores, places = scores.topk(count)
            priors = getattr(self, f'priors{level}')[places]
            deltas = take(flatten(bbox_pred, 4), places)
            levels.append((priors, deltas, scores, torch.full_like(places, level)))
        priors, deltas, scores, of_level = (torch.cat(p, 1) for p in zip(*levels, strict=True))
        boxes = self.decode(self.rpn.bbox_coder, priors, deltas, border)
        scores = large_enough(boxes, scores, test_cfg.get('min_bbox_size', -1))
        boxes, scores, _ = self.proposals(boxes, scores, of_level)
        return torch.where((scores > 0).unsqueeze(-1), boxes, boxes.new_zeros(())), scores

    def pool(self, features: tuple[Tensor, ...], rois: Tensor) -> Tensor:
        """Return the features (R, C, h, w) of regions (R, 5), each from the level of its size."""
        extractor = self.roi.bbox_roi_extractor
        features = features[: extractor.num_inputs]
        of_level = extractor.map_roi_levels(rois, len(features))
        pooled: Any = None
        for level, (x, layer) in enumerate(zip(features, extractor.roi_layers, strict=True)):
            here = (of_level == level).unsqueeze(-1)
            own = torch.where(here, rois, rois.new_zeros(()))
            options = (layer.spatial_scale, layer.sampling_ratio, layer.aligned)
            found = torch.ops.mmqnet.roi_align(x, own, list(layer.output_size), *options)
            here = here.view(-1, 1, 1, 1)
            pooled = found if pooled is None else torch.where(here, found, pooled)
        return pooled

    def classify(
        self,
        proposals: Tensor,
        objectness: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        border: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return ``dets`` and ``labels`` of proposals (N, P, 4), each with a box for each class."""
        count, head = proposals.shape[1], self.roi.bbox_head
        classes = cls_score.shape[-1] - 1
        sets = 1 if head.reg_class_agnostic else classes
        priors = proposals.repeat_interleave(sets, 1)
        deltas = bbox_pred.reshape(-1, count * sets, 4)
        boxes = self.decode(head.bbox_coder, priors, deltas, border)
        if sets != classes:
            boxes = boxes.repeat_interleave(classes, 1)
        scores = cls_score.softmax(-1)[..., :-1].reshape(-1, count, classes)
        scores = above(scores, self.score_threshold)
        scores = torch.where((objectness > 0).unsqueeze(-1), scores, scores.new_zeros(()))
        labels = torch.arange(classes, device=scores.device).expand_as(scores)
        return detections(*self.suppression(boxes, scores.flatten(1), labels.flatten(1)))
