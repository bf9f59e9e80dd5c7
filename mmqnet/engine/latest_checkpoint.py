"""The checkpoint from which an interrupted run goes on."""

import logging
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, find_latest_checkpoint


def latest_checkpoint(work_dir: str) -> str | None:
    """Finds the checkpoint that ``last_checkpoint`` names, or another one if that is torn.

    Another hook than :class:`CheckpointHook` may leave half a checkpoint, or an empty
    ``last_checkpoint``, when its process is killed. Then a line in the log says so, and the newest
    complete checkpoint of the folder is taken.

    Args:
        work_dir: The run's folder.

    Returns:
        str or None: Path of the checkpoint; None if the run never came to saving one.

    Raises:
        ValueError: If there was one, but none is complete.
    """
    if not Path(work_dir, 'last_checkpoint').exists():
        return None
    named = find_latest_checkpoint(work_dir) or ''
    wrong = _what_is_wrong(named)
    if not wrong:
        return named
    wrong = f'`last_checkpoint` in {work_dir!r} {wrong}'
    folder = Path(named).parent if Path(named).parent.is_dir() and named else Path(work_dir)
    newest = next(_resumable(folder), None)
    if newest is None:
        raise ValueError(
            f'{wrong}, and {str(folder)!r} holds no complete checkpoint with an optimizer: name a '
            'checkpoint after --resume, or remove `last_checkpoint` to start from the beginning'
        )
    print_log(
        f'{wrong}: resuming from the newest complete checkpoint {str(newest)!r}',
        logger='current',
        level=logging.WARNING,
    )
    return str(newest)


def is_complete(checkpoint: str | Path) -> bool:
    """Whether a checkpoint has its end; torch writes a zip file, whose table comes last."""
    return Path(checkpoint).is_dir() or zipfile.is_zipfile(checkpoint)  # DeepSpeed's are folders


def _what_is_wrong(named: str) -> str:
    if not named:
        return 'is empty'
    if '://' in named or is_complete(named):
        return ''
    return f'names {named!r}, which {"is torn" if Path(named).exists() else "does not exist"}'


def _resumable(folder: Path) -> Iterator[Path]:
    """Complete checkpoints with all that resuming needs, the newest first."""
    for path in sorted(folder.glob('*.pth'), key=lambda p: p.stat().st_mtime, reverse=True):
        if is_complete(path):
            try:
                checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
            except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
                continue
            if {'meta', 'message_hub', 'optimizer'} <= checkpoint.keys():
                yield path
