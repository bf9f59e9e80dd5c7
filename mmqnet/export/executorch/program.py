"""Running a ``.pte`` file."""

from collections.abc import Sequence

import numpy as np
import torch

from mmqnet.export.packages import require
from mmqnet.export.qdq.target import METADATA


class ExecuTorchProgram:
    """A file, loaded by ExecuTorch's runtime for Python.

    Args:
        content: Of the file.

    Attributes:
        metadata: The JSON that it says about itself, or None if it is not mmqnet's.

    Raises:
        ImportError: If ExecuTorch is not installed.
        RuntimeError: If it cannot load the file.
    """

    def __init__(self, content: bytes) -> None:
        require('executorch.runtime', extra='executorch')
        from executorch.runtime import Runtime

        self.program = Runtime.get().load_program(content)
        self.method = self.program.load_method('forward')
        self.metadata: str | None = None
        if METADATA in self.program.method_names:
            (self.metadata,) = self.program.load_method(METADATA).execute([])

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for the inputs, float32."""
        outputs = self.method.execute([torch.from_numpy(x) for x in inputs])
        return [y.numpy().copy() for y in outputs]
