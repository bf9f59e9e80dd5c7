"""An exported detector."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmqnet.export.runtime.base import ExportedModel
from mmqnet.export.runtime.images import check_picture, resize
from mmqnet.registry import MODELS


@MODELS.register_module()
class ExportedDetector(ExportedModel):
    """A detector that ONNX Runtime or OpenVINO executes, boxes included.

    Called with a picture, it returns what is on it; in a test loop of MMEngine it takes the batches
    of MMDetection's data pipelines.

    Args:
        path: The ``.onnx`` file.
        backend: ``'onnxruntime'`` or ``'openvino'``.
        threads: Of one inference. Default: None, as the runtime chooses.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If it is no exported detector, or the runtime cannot execute it.
    """

    task = 'detection'
    outputs = 'boxes'

    def forward(
        self,
        inputs: np.ndarray | Sequence[Tensor],
        data_samples: list[Any] | None = None,
        mode: str = 'predict',
    ) -> Any:
        """Detect objects.

        Args:
            inputs: A picture (h, w, 3) in BGR as ``mmcv.imread`` reads it; or images (3, h, w) of
                a data pipeline, in BGR.
            data_samples: Their samples, which get ``pred_instances``.
            mode: Always ``'predict'``; there is nothing to train.

        Returns:
            DetDataSample or list: Boxes in pixels of the picture, or of each original image.
        """
        from mmdet.structures import DetDataSample

        if isinstance(inputs, np.ndarray):
            check_picture(inputs)
            image, factors = resize(inputs, self.metadata)
            sample = DetDataSample(
                metainfo=dict(
                    ori_shape=inputs.shape[:2], img_shape=image.shape[:2], scale_factor=factors
                )
            )
            return self.forward([torch.from_numpy(image.transpose(2, 0, 1))], [sample])[0]
        found = self.run(inputs)
        if data_samples is None:
            data_samples = [DetDataSample() for _ in inputs]
        for i, sample in enumerate(data_samples):
            factors = sample.metainfo.get('scale_factor', (1.0, 1.0))
            shape = tuple(sample.metainfo.get('img_shape', inputs[i].shape[-2:]))
            rows = found['dets'][i], found['labels'][i]
            sample.pred_instances = self._instances(*rows, shape, factors)
        return data_samples

    def _instances(
        self,
        dets: np.ndarray,
        labels: np.ndarray,
        shape: tuple[int, ...],
        factors: Sequence[float],
    ) -> InstanceData:
        """Return the rows that are boxes, in pixels of the original image.

        Args:
            dets: (K, 5).
            labels: (K,).
            shape: Height and width of the image without padding.
            factors: By which its width and height have been resized.
        """
        boxes, scores = torch.from_numpy(dets[:, :4].copy()), torch.from_numpy(dets[:, 4].copy())
        classes, kept = torch.from_numpy(labels.copy()), torch.from_numpy(labels >= 0)
        if self.metadata.clip_border and shape[:2] != self.metadata.input_size:
            # the file cuts at its own border; what lies in the padding is nothing
            limits = boxes.new_tensor([shape[1], shape[0], shape[1], shape[0]])
            boxes = torch.minimum(boxes, limits)
            kept = kept & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes = boxes / boxes.new_tensor([*factors, *factors])
        return InstanceData(bboxes=boxes[kept], scores=scores[kept], labels=classes[kept])
