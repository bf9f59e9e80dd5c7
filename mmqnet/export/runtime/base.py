"""What exported detectors and classifiers have in common."""

from typing import Any, ClassVar

import numpy as np
from mmengine.model import BaseModel

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
        """Return the file's outputs for images (3, h, w) in BGR, 0..255."""
        return self.session.run(np.stack([to_input(np.asarray(i), self.metadata) for i in images]))
