"""Failures that all processes share."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_gather_object, get_rank, is_distributed


@contextmanager
def together(what: str) -> Iterator[None]:
    """Fail on all processes if the block fails on one of them.

    Else the others would wait for it until a timeout, whose message does not say what went wrong.
    The block must not communicate.

    Args:
        what: What the block does, for the message.

    Raises:
        RuntimeError: On the processes where the block has succeeded, with the first message of
            those where it has not; these raise their own error.
    """
    if not is_distributed():
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    messages = all_gather_object(None if error is None else f'{type(error).__name__}: {error}')
    if error is not None:
        raise error
    failed = [(rank, message) for rank, message in enumerate(messages) if message is not None]
    if failed:
        rank, message = failed[0]
        raise RuntimeError(f'{what} failed on process {rank} (this is {get_rank()}): {message}')
