"""Errors at the end of a command: one line that names the cause.

This module imports the standard library only, so that tools can use it before anything else.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from opcode import opmap
from pathlib import Path

_OURS = (ValueError, TypeError, ImportError, RuntimeError)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line where the block raises an error that was foreseen.

    That is one that mmqnet or the tool itself raises, or one of a file. Others, faults of programs,
    keep their traceback; with the environment variable ``MMQNET_TRACEBACK`` all do.

    Example:
        >>> from mmqnet.checks import check_bool
        >>> try:
        ...     with one_line_errors():
        ...         check_bool(1, 'key')
        ... except SystemExit as end:
        ...     print(str(end).partition(': ')[2])
        error: `key` should be True or False, but got 1
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
    """Return whether an error is a message: raised by mmqnet or the script, or of a file.

    An operation that fails in mmqnet, such as the unpacking of a list, has no message for users.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, _OURS) or isinstance(error, RecursionError | NotImplementedError):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    place = Path(code.co_filename)
    is_ours = Path(__file__).parent in place.parents or place == Path(sys.argv[0]).absolute()
    return is_ours and code.co_code[traceback.tb_lasti] == opmap['RAISE_VARARGS']


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line.

    Example:
        >>> one_line(ValueError(chr(10).join(['one', '  two'])))
        'one two'
    """
    return ' '.join(str(error).split()) or type(error).__name__
