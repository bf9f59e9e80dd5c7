"""What all runtimes have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmqnet.export.metadata import FileMetadata

Arrays = dict[str, np.ndarray]


class Session:
    """An exported file, loaded by a runtime; the base of those below.

    Attributes:
        path: The file.
        metadata: What it says about itself.
        batch: How many images it takes; 0 for any number.
    """

    name: str

    def __init__(self, path: str, strings: Mapping[str, str], batch: Any) -> None:
        self.path = path
        self.metadata = FileMetadata.from_strings(strings, path)
        self.batch = batch if isinstance(batch, int) else 0

    def run(self, images: np.ndarray) -> Arrays:
        """Return the outputs, by their names.

        Args:
            images: (N, 3, H, W) float32, of the file's height and width.

        Raises:
            ValueError: If the size is another.
        """
        expected = (3, *self.metadata.input_size)
        if images.shape[1:] != expected:
            raise ValueError(
                f'the images should be of shape {expected}, as {self.path!r} takes them, but got '
                f'{images.shape[1:]}'
            )
        if not self.batch:
            return self._run(images)
        parts = [
            self._run_part(images[i : i + self.batch]) for i in range(0, len(images), self.batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_part(self, images: np.ndarray) -> Arrays:
        """Run as many images as the file takes, with empty ones where there are fewer."""
        missing = self.batch - len(images)
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return {name: value[: len(images)] for name, value in self._run(filled).items()}

    def _run(self, images: np.ndarray) -> Arrays:
        raise NotImplementedError


def cannot_run(runtime: str, path: str, error: Exception) -> ValueError:
    """Return one line: the last one of a runtime's message says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ValueError(f'{runtime} cannot run {path!r}: {lines[-1] if lines else error}')
