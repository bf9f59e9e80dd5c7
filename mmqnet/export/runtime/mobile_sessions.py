"""LiteRT and ExecuTorch behind the interface of the other runtimes."""

import json
from pathlib import Path

import numpy as np

from mmqnet.export.executorch.program import ExecuTorchProgram
from mmqnet.export.litert.interpreter import LiteRTProgram, read_metadata
from mmqnet.export.runtime.session import Arrays, Session, cannot_run


class _MobileSession(Session):
    """A file that takes one image and names its outputs in its metadata."""

    program: LiteRTProgram | ExecuTorchProgram

    def describe(self, path: str, text: str | None) -> None:
        """Read what the file says about itself, JSON; None if it says nothing."""
        strings = json.loads(text or '{}')
        super().__init__(path, strings, 1)
        self.outputs = json.loads(strings['output_names'])

    def _run(self, images: np.ndarray) -> Arrays:
        found = self.program.run([np.ascontiguousarray(images)])
        return dict(zip(self.outputs, found, strict=True))


class LiteRTSession(_MobileSession):
    """A file in LiteRT's interpreter, on the CPU."""

    name = 'LiteRT'

    def __init__(self, path: str, threads: int | None) -> None:
        content = Path(path).read_bytes()
        try:
            self.program = LiteRTProgram(content, threads)
        except (RuntimeError, ValueError) as error:
            raise cannot_run(self.name, path, error) from error
        self.describe(path, read_metadata(content))


class ExecuTorchSession(_MobileSession):
    """A file in ExecuTorch, on the CPU."""

    name = 'ExecuTorch'

    def __init__(self, path: str, threads: int | None) -> None:
        if threads is not None:
            raise ValueError(f'`threads` should be None for {self.name}, but got {threads}')
        try:
            self.program = ExecuTorchProgram(Path(path).read_bytes())
        except (RuntimeError, ValueError) as error:
            raise cannot_run(self.name, path, error) from error
        self.describe(path, self.program.metadata)
