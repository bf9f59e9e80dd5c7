"""Files that are there in full or not at all, whenever a process is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

WHOLE_FILES = 'mmqnet.whole_files'


class WholeFileBackend(LocalBackend):
    """MMEngine's local files, written aside and then renamed.

    What a killed process leaves beside the file, ``.NAME.part``, the next writing replaces.
    """

    def __init__(self) -> None:
        self._outdated: list[str | Path] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file; its folder is made if need be."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.{path.name}.part')
        try:
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # a machine that goes down may rename first
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)  # on a disk that is full
            raise

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes a text file; its folder is made if need be."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        """Removes a file, at the end of a :meth:`removing_last` block if there is one."""
        if self._outdated is None:
            super().remove(filepath)
        else:
            self._outdated.append(filepath)

    @contextmanager
    def removing_last(self) -> Iterator[None]:
        """Within the block files are only written; what it removes goes when it has succeeded."""
        self._outdated = []
        try:
            yield
            outdated = self._outdated
        finally:
            self._outdated = None
        for path in outdated:
            self.remove(path)


register_backend(WHOLE_FILES, WholeFileBackend)
