"""Atomic writing: whenever a process is killed, a file is complete or what it was before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces it when the block has succeeded.

    If the block fails, the temporary file is deleted and ``path`` is left alone. What a killed
    process leaves, ``.NAME.part``, is overwritten by the next writing.

    Args:
        path: The file to write; its folder is created if it does not exist.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / 'new' / 'table.csv') as part:
        ...     _ = part.write_text('a,b')
        >>> [file.name for file in (folder / 'new').iterdir()]
        ['table.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    try:
        yield part
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())  # a machine that goes down may rename first
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)  # on a disk that is full
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically; its folder is created if it does not exist."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str, encoding: str = 'utf-8') -> None:
    """Write a text file atomically; its folder is created if it does not exist."""
    write_bytes(path, text.encode(encoding))
