"""MMEngine's backend for local files, with atomic writing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmqnet import atomic

ATOMIC = 'mmqnet.atomic'


class AtomicBackend(LocalBackend):
    """Write local files atomically; everything else is MMEngine's."""

    def __init__(self) -> None:
        self._outdated: list[str | Path] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; its folder is created if it does not exist."""
        atomic.write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file; its folder is created if it does not exist."""
        atomic.write_text(filepath, obj, encoding)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, at the end of a :meth:`removing_last` block if there is one."""
        if self._outdated is None:
            super().remove(filepath)
        else:
            self._outdated.append(filepath)

    @contextmanager
    def removing_last(self) -> Iterator[None]:
        """Defer removals to the end of the block, and drop them if the block fails."""
        self._outdated = []
        try:
            yield
            outdated = self._outdated
        finally:
            self._outdated = None
        for path in outdated:
            self.remove(path)


register_backend(ATOMIC, AtomicBackend)
