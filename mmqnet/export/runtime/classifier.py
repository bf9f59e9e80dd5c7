"""An exported classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmqnet.export.runtime.base import ExportedModel
from mmqnet.export.runtime.images import check_picture, crop_center, resize
from mmqnet.registry import MODELS


@MODELS.register_module()
class ExportedClassifier(ExportedModel):
    """A classifier that a runtime executes.

    Called with a picture, it returns its class; in a test loop of MMEngine it takes the batches of
    MMPretrain's data pipelines.

    Args:
        path: The file, ``.onnx``, ``.tflite`` or ``.pte``.
        backend: ``'onnxruntime'``, ``'openvino'``, ``'litert'`` or ``'executorch'``.
        threads: Of one inference. Default: None, as the runtime chooses.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If it is no exported classifier, or the runtime cannot execute it.
    """

    task = 'classification'
    outputs = 'scores'

    def forward(
        self,
        inputs: np.ndarray | Sequence[Tensor],
        data_samples: list[Any] | None = None,
        mode: str = 'predict',
    ) -> Any:
        """Classify pictures.

        Args:
            inputs: A picture (h, w, 3) in BGR as ``mmcv.imread`` reads it; or images (3, h, w) of
                a data pipeline, in BGR.
            data_samples: Their samples, which get ``pred_score`` and ``pred_label``.
            mode: Always ``'predict'``; there is nothing to train.

        Returns:
            DataSample or list: With the scores of the classes and the label of the best.
        """
        from mmpretrain.structures import DataSample

        if isinstance(inputs, np.ndarray):
            check_picture(inputs)
            image = crop_center(resize(inputs, self.metadata)[0], self.metadata)
            return self.forward([torch.from_numpy(image.transpose(2, 0, 1).copy())])[0]
        scores = torch.from_numpy(self.run(inputs)['scores'].copy())
        if data_samples is None:
            data_samples = [DataSample() for _ in inputs]
        for sample, score in zip(data_samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax(0, keepdim=True))
        return data_samples
