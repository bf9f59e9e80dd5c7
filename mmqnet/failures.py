"""Errors at the end of a command: one line that names the cause.

This module imports the standard library only, so that tools can use it before anything else.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OURS = (ValueError, TypeError, OSError, ImportError, RuntimeError)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line where the block raises an error that was foreseen.

    That is one that mmqnet or the tool itself raises. Others, faults of programs, keep their
    traceback; with the environment variable ``MMQNET_TRACEBACK`` all do.

    Example:
        >>> from mmqnet.atomic import write_text
        >>> try:
        ...     with one_line_errors():
        ...         write_text('/dev/null/a', '')
        ... except SystemExit as end:
        ...     print(str(end).partition(': ')[2])
        error: [Errno 20] Not a directory: '/dev/null'
    """
    try:
        yield
    except Exception as error:
        if os.environ.get('MMQNET_TRACEBACK') or not is_foreseen(error):
            raise
        sys.exit(f'{Path(sys.argv[0]).name}: error: {one_line(error)}')


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Raise one line in place of an error of the block that was not foreseen.

    For what is made from files of users: whatever fails there, they are the cause.

    Args:
        what: What cannot be done, the name of the file included.

    Raises:
        ValueError: If the block fails with an error that is not foreseen.

    Example:
        >>> with naming("the config file 'a.py' cannot be read"):
        ...     {}['model']
        Traceback (most recent call last):
            ...
        ValueError: the config file 'a.py' cannot be read: KeyError: 'model'
    """
    try:
        yield
    except Exception as error:
        if is_foreseen(error):
            raise
        raise ValueError(f'{what}: {type(error).__name__}: {one_line(error)}') from error


def is_foreseen(error: BaseException) -> bool:
    """Return whether mmqnet, or the script that runs, has raised an error as a message."""
    if not isinstance(error, _OURS) or isinstance(error, RecursionError | NotImplementedError):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    place = Path(traceback.tb_frame.f_code.co_filename)
    return Path(__file__).parent in place.parents or place == Path(sys.argv[0]).absolute()


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line.

    Example:
        >>> one_line(ValueError('one\\n  two'))
        'one two'
    """
    return ' '.join(str(error).split()) or type(error).__name__
