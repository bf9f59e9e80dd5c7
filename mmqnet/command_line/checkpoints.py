"""Checkpoints to start or resume from."""

import logging
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, find_latest_checkpoint
from torch import nn

from mmqnet.models import check_file, is_complete, load_weights
from mmqnet.quantizers import quantizers_of


def check_checkpoint(checkpoint: str) -> None:
    """Check that a checkpoint exists, before a model is built.

    Raises:
        FileNotFoundError: If it is a local path that does not exist.
        IsADirectoryError: If it is a folder.
        ValueError: If it is a packed one, and damaged.

    Example:
        >>> check_checkpoint('nowhere.pth')
        Traceback (most recent call last):
            ...
        FileNotFoundError: the checkpoint 'nowhere.pth' does not exist
    """
    if '://' not in checkpoint and not Path(checkpoint).exists():
        raise FileNotFoundError(f'the checkpoint {checkpoint!r} does not exist')
    if Path(checkpoint).is_dir():
        raise IsADirectoryError(f'{checkpoint!r} is a folder: name one of its checkpoints')
    check_file(checkpoint)


def load_float(model: nn.Module, config: str, checkpoint: str) -> None:
    """Load the float checkpoint of a model that is to be quantized.

    Args:
        model: The converted model.
        config: Path of its config file, for messages.
        checkpoint: Path of the checkpoint.

    Raises:
        ValueError: If the model is a float one, or the checkpoint a quantized one, or of another
            model.

    Example:
        >>> load_float(nn.Linear(4, 2), 'config.py', 'float.pth')
        Traceback (most recent call last):
            ...
        ValueError: the model of 'config.py' is a float one: `model.type` should be ...
    """
    if not quantizers_of(model):
        raise ValueError(
            f'the model of {config!r} is a float one: `model.type` should be '
            "'mmqnet.QuantizedModel'"
        )
    load_weights(model, checkpoint, exact=True)
    if any(quantizer.is_calibrated for quantizer in quantizers_of(model).values()):
        raise ValueError(
            f'{checkpoint!r} is of a quantized model, which tools/test.py evaluates: calibration '
            'starts from the checkpoint of the float model'
        )


def resume(config: Config, checkpoint: str) -> None:
    """Make the run that a config describes resume where it was stopped.

    Args:
        config: Changed in place.
        checkpoint: Path of a checkpoint, or ``'auto'`` for the latest complete one in the work dir.
            Without one there, as after a stop before the first checkpoint, the run starts from the
            beginning, with the weights that the config loads.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it is truncated.

    Example:
        >>> import tempfile
        >>> from mmengine.runner import save_checkpoint
        >>> path = f'{tempfile.mkdtemp()}/epoch_1.pth'
        >>> save_checkpoint(dict(state_dict={}, meta={}), path)
        >>> config = Config(dict(work_dir='work_dirs/tiny'))
        >>> resume(config, path)
        >>> config.resume, config.load_from == path
        (True, True)
    """
    if checkpoint == 'auto':
        latest = latest_checkpoint(config.work_dir)
        if latest is None:
            return
        checkpoint = latest
    check_checkpoint(checkpoint)
    if '://' not in checkpoint and not is_complete(checkpoint):
        raise ValueError(f'the checkpoint {checkpoint!r} is truncated: its end is missing')
    config.resume, config.load_from = True, checkpoint


def latest_checkpoint(work_dir: str) -> str | None:
    """Find the checkpoint that ``last_checkpoint`` names, or another one if that is truncated.

    In a folder that was moved or renamed it is the one of that name there: the path in
    ``last_checkpoint`` may be that of another run by now.

    Another hook than :class:`CheckpointHook` may leave half a checkpoint, or an empty
    ``last_checkpoint``, when its process is killed. Then a line in the log says so, and the newest
    complete checkpoint of the folder is taken.

    Args:
        work_dir: The run's folder.

    Returns:
        str or None: Path of the checkpoint; None if the run has saved none.

    Raises:
        ValueError: If there was one, but none is complete.
    """
    if not Path(work_dir, 'last_checkpoint').exists():
        return None
    named = find_latest_checkpoint(work_dir) or ''
    here = Path(work_dir, Path(named).name)
    if here.is_file() and not (Path(named).exists() and here.samefile(named)):
        named = str(here)
    wrong = _what_is_wrong(named)
    if not wrong:
        return named
    wrong = f'`last_checkpoint` in {work_dir!r} {wrong}'
    folders = [Path(work_dir), *([Path(named).parent] if named else [])]
    newest = next((path for folder in folders for path in _resumable(folder)), None)
    if newest is None:
        raise ValueError(
            f'{wrong}, and {str(folders[-1])!r} holds no complete checkpoint with an optimizer: '
            'name a checkpoint after --resume, or remove `last_checkpoint` to start from the '
            'beginning'
        )
    print_log(
        f'{wrong}: resuming from the newest complete checkpoint {str(newest)!r}',
        logger='current',
        level=logging.WARNING,
    )
    return str(newest)


def _what_is_wrong(named: str) -> str:
    if not named:
        return 'is empty'
    if '://' in named or is_complete(named):
        return ''
    return f'names {named!r}, which {"is truncated" if Path(named).exists() else "does not exist"}'


def _resumable(folder: Path) -> Iterator[Path]:
    """Yield the complete checkpoints with all that resuming needs, the newest first."""
    for path in sorted(folder.glob('*.pth'), key=lambda p: p.stat().st_mtime, reverse=True):
        if is_complete(path):
            try:
                checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
            except (OSError, ValueError):
                continue
            if {'meta', 'message_hub', 'optimizer'} <= checkpoint.keys():
                yield path
