"""What exported detectors and classifiers have in common."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.model import BaseModel
from torch import Tensor

from mmqnet.export.runtime.images import to_input
from mmqnet.export.runtime.sessions import open_session


class ExportedModel(BaseModel):
    """An exported file with the interface of a model, so that MMEngine's loops test it.

    Args:
        path: The file, ``.onnx``, ``.tflite`` or ``.pte``.
        backend: ``'onnxruntime'``, ``'openvino'``, ``'litert'`` or ``'executorch'``.
        threads: Of one inference. Default: None, as the runtime chooses.

    Attributes:
        metadata: What the file says about itself.
    """

    task: ClassVar[str]
    outputs: ClassVar[str]

    def __init__(self, path: str, backend: str = 'onnxruntime', threads: int | None = None) -> None:
        super().__init__()
        self.session = open_session(path, backend, threads)
        self.metadata = self.session.metadata
        got = (self.metadata.task, self.metadata.outputs)
        if got != (self.task, self.outputs):
            raise ValueError(
                f'the file {path!r} should be of a {self.task} model with the outputs '
                f'{self.outputs!r} for a {type(self).__name__}, but it is of {got[0]} with '
                f'{got[1]!r}'
            )

    def run(self, images: Any) -> dict[str, np.ndarray]:
        """Return the file's outputs for images (3, h, w) in BGR, 0..255.

        Raises:
            TypeError: If they are no arrays or tensors.
            ValueError: If there is none, or they do not fit the file.
        """
        is_batch = isinstance(images, Sequence | Tensor | np.ndarray) and len(images)
        if not is_batch or not all(isinstance(i, Tensor | np.ndarray) for i in images):
            kind = type(images).__name__
            raise TypeError(
                'the input should be a picture, an array (h, w, 3), or a list of images, arrays '
                f'or tensors (3, h, w), but got a {kind} of others'
            )
        return self.session.run(np.stack([to_input(np.asarray(i), self.metadata) for i in images]))
