"""A training, and what to say when the world around it fails."""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from mmengine.runner import Runner, find_latest_checkpoint

from mmqnet.failures import naming
from mmqnet.models import is_complete

_WORKER = re.compile(r'DataLoader worker \(pid.*')


def check_work_dir(work_dir: str) -> None:
    """Make the folder of a run, and check that files can be written there.

    Raises:
        OSError: If they cannot.

    Example:
        >>> check_work_dir('/dev/null/run')
        Traceback (most recent call last):
            ...
        OSError: the work dir '/dev/null/run' cannot be written: Not a directory
    """
    probe = Path(work_dir, f'.{os.getpid()}.probe')
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        with probe.open('wb') as file:
            file.write(bytes(4096))
    except OSError as error:
        raise OSError(f'the work dir {work_dir!r} cannot be written: {error.strerror}') from error
    finally:
        _remove(probe)


def train(runner: Runner) -> None:
    """Train, and name cause and remedy if a disk, the data or a worker of the loader fails.

    Raises:
        RuntimeError: If the training was stopped by one of these.

    Example:
        >>> from types import SimpleNamespace
        >>> def fail():
        ...     raise OSError(28, 'No space left on device')
        >>> runner = SimpleNamespace(train=fail, load_or_resume=fail, epoch=0, iter=7)
        >>> runner.work_dir = '/nowhere'
        >>> train(runner)
        Traceback (most recent call last):
            ...
        RuntimeError: the training stopped after 7 iterations, in epoch 1: [Errno 28] No space left
        on device. It had saved no checkpoint
    """
    # a disk that is full would print a traceback for each line of the log
    logging.raiseExceptions = False
    runner.load_or_resume = functools.partial(_load, runner, runner.load_or_resume)
    try:
        runner.train()
    except Exception as error:
        cause = _cause_of(error)
        if cause is None:
            raise
        epoch, iteration = runner.epoch, runner.iter
        raise RuntimeError(
            f'the training stopped after {iteration} iterations, in epoch {epoch + 1}: {cause}. '
            f'{_remedy(runner.work_dir)}'
        ) from error


def _load(runner: Runner, load: Callable[[], None]) -> None:
    with naming(f'the checkpoint {runner._load_from!r} cannot be loaded'):
        load()


def _cause_of(error: Exception) -> str | None:
    worker = _WORKER.search(str(error))
    if worker and isinstance(error, RuntimeError):
        return (
            f'{worker[0].rstrip(" .")}: fewer `train_dataloader.num_workers` need less memory, and '
            '0 shows an error of the data pipeline'
        )
    if isinstance(error, AssertionError) and 'resumed keys cannot be modified' in str(error):
        return 'the `message_hub` of the checkpoint that it was resumed from is damaged'
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # the text of an error in a worker is its whole traceback, the message last
    is_of_worker = lines[0].startswith('Caught ') and 'in DataLoader worker' in lines[0]
    return lines[-1].strip() if isinstance(error, OSError) or is_of_worker else None


def _remedy(work_dir: str) -> str:
    named = Path(work_dir, 'last_checkpoint').exists() and find_latest_checkpoint(work_dir)
    if named and ('://' in named or is_complete(named)):
        return f'Once this is mended, --resume goes on from {named!r}, which is complete'
    return 'It had saved no checkpoint'


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # below a file
        path.unlink(missing_ok=True)
