"""An exported detector whose boxes are decoded here: runtimes of small devices have no NMS."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmqnet.export.runtime.detector import ExportedDetector
from mmqnet.registry import MODELS


@MODELS.register_module()
class ExportedRawDetector(ExportedDetector):
    """A file with the outputs of a one-stage head, and MMDetection's decoding behind it.

    Args:
        path: The file, exported with ``--raw``.
        bbox_head: The config of the detector's head.
        test_cfg: The config of what follows it: score threshold, NMS.
        backend: ``'onnxruntime'``, ``'openvino'``, ``'litert'`` or ``'executorch'``.
        threads: Of one inference. Default: None, as the runtime chooses.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If it holds no such outputs, or the runtime cannot execute it.
    """

    outputs: ClassVar[str] = 'raw'

    def __init__(
        self,
        path: str,
        bbox_head: dict[str, Any],
        test_cfg: dict[str, Any],
        backend: str = 'litert',
        threads: int | None = None,
    ) -> None:
        super().__init__(path, backend, threads)
        settings = dict(bbox_head, train_cfg=None, test_cfg=test_cfg, init_cfg=None)
        self.head = MODELS.build(settings).requires_grad_(False)

    @torch.no_grad()
    def decode(
        self, found: Mapping[str, np.ndarray], metas: Sequence[dict[str, Any]]
    ) -> list[InstanceData]:
        """Return the boxes in pixels of the original images."""
        groups = itertools.groupby(found.items(), lambda item: item[0].rpartition('_')[0])
        maps = [[torch.from_numpy(values) for _, values in group] for _, group in groups]
        return self.head.predict_by_feat(*maps, batch_img_metas=list(metas), rescale=True)
