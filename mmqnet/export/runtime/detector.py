"""An exported detector."""

from collections.abc import Mapping, Sequence
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
        shapes = [tuple(x.shape[-2:]) for x in inputs]
        metas = [
            dict(dict(scale_factor=(1.0, 1.0), img_shape=shape, ori_shape=shape), **sample.metainfo)
            for shape, sample in zip(shapes, data_samples, strict=True)
        ]
        for sample, instances in zip(data_samples, self.decode(found, metas), strict=True):
            sample.pred_instances = instances
        return data_samples

    def decode(
        self, found: Mapping[str, np.ndarray], metas: Sequence[dict[str, Any]]
    ) -> list[InstanceData]:
        """Return the boxes in pixels of the original images.

        Args:
            found: The file's outputs, for one or more images.
            metas: What is known of each image, ``scale_factor`` among it.
        """
        return [
            _instances(dets, labels, meta['scale_factor'])
            for dets, labels, meta in zip(found['dets'], found['labels'], metas, strict=True)
        ]


def _instances(dets: np.ndarray, labels: np.ndarray, factors: Sequence[float]) -> InstanceData:
    """Return the rows that are boxes, in pixels of the original image.

    Args:
        dets: (K, 5).
        labels: (K,).
        factors: By which width and height of the image have been resized.
    """
    rows, classes = torch.from_numpy(dets[labels >= 0]), torch.from_numpy(labels[labels >= 0])
    boxes = rows[:, :4] / rows.new_tensor([*factors, *factors])
    return InstanceData(bboxes=boxes, scores=rows[:, 4], labels=classes)
