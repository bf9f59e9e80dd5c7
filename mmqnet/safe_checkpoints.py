"""Reading checkpoints without running what they hold; errors that name the file.

``torch.load`` with ``weights_only`` builds what it knows and what is allowed here, and calls
nothing else. This module imports the standard library only; :mod:`mmqnet.compat` applies
:func:`repair` when MMEngine's own reading is imported.
"""

import functools
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# torch.load obeys them wherever it is called, in MMDetection and MMPretrain too.
_STRICT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_TRUSTING = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_UNKNOWN = re.compile(r'(?:GLOBAL|class) ([\w.]+)')
_REASON = re.compile(r'WeightsUnpickler error: (.+)')
_ADVICE = re.compile(r' (In PyTorch|Re-running) .*')  # torch's, to load the file without a guard


@contextmanager
def safe_loading(trust: bool = False) -> Iterator[None]:
    """Refuse checkpoints that hold more than weights and the state of a training, in the block.

    Args:
        trust: Whether to allow them instead: loading one can run any code. Default False.

    Example:
        >>> with safe_loading():
        ...     print(os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'])
        1
    """
    before = {name: os.environ.pop(name, None) for name in (_STRICT, _TRUSTING)}
    os.environ[_TRUSTING if trust else _STRICT] = '1'
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def unreadable(path: str, error: Exception) -> ValueError:
    """Return one line that says why a file could not be read as a checkpoint."""
    unknown = _UNKNOWN.search(str(error))
    if unknown:
        return ValueError(
            f'{path!r} holds {unknown[1]!r}, more than weights and the state of a training: '
            'loading it could run code of its author. If you trust the file, add '
            '--trust-checkpoint'
        )
    reason = _REASON.search(str(error))
    first = reason[1] if reason else (str(error).splitlines() or [''])[0]
    what = _ADVICE.sub('', first)
    return ValueError(f'{path!r} cannot be read as a checkpoint: {type(error).__name__}: {what}')


def repair(module: ModuleType) -> None:
    """Let ``mmengine.runner.checkpoint`` read what MMEngine writes, and name what it cannot read.

    Args:
        module: That module, just imported.
    """
    import torch

    if hasattr(module.CheckpointLoader, '_mmqnet_repair'):
        return
    module.CheckpointLoader._mmqnet_repair = True
    if hasattr(torch.serialization, 'add_safe_globals'):  # torch >= 2.4
        torch.serialization.add_safe_globals(checkpoint_classes())
    if hasattr(module, '_safe_torch_load'):
        _restrain(module)
    _name_files(module.CheckpointLoader)


def _restrain(module: Any) -> None:
    """Make OneDL's fallback to full pickle, and its list of what is safe, obey this module."""
    original = module._safe_torch_load

    @functools.wraps(original)
    def _safe_torch_load(
        file: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> Any:
        if weights_only is None and (_STRICT in os.environ or _TRUSTING in os.environ):
            weights_only = _STRICT in os.environ
        return original(file, map_location=map_location, weights_only=weights_only)

    module._safe_torch_load = _safe_torch_load
    # It holds the real getattr, which would take precedence over `_saved_function`, and lacks
    # OneCycleLR, so that each reading of its state falls back with twenty lines of warning.
    module.get_torch_safe_globals = list


def _name_files(loader: Any) -> None:
    original = loader.load_checkpoint.__func__

    def load_checkpoint(
        cls: Any, filename: Any, map_location: Any = None, logger: Any = 'current'
    ) -> Any:
        try:
            return original(cls, filename, map_location, logger)
        except (FileNotFoundError, ImportError):  # which name what is missing
            raise
        except Exception as error:  # whatever the bytes of another file make the unpickler do
            raise unreadable(str(filename), error) from error

    loader.load_checkpoint = classmethod(functools.wraps(original)(load_checkpoint))


def checkpoint_classes() -> list[Any]:
    """Return what a checkpoint of MMEngine holds beside tensors, for torch's safe globals.

    It saves a HistoryBuffer of NumPy arrays for every logged scalar, and the annealing function of
    OneCycleLR and its like.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    rebuild = np.array(0.0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    numbers = [np.dtype(kind) for kind in ('f8', 'f4', 'i8', 'i4', 'u8', 'u4', 'u1', '?')]
    allowed: list[Any] = [HistoryBuffer, OneCycleParamScheduler, np.ndarray, np.dtype]
    allowed += {type(number) for number in numbers}
    # The names of NumPy 1 and of NumPy 2: a checkpoint may come from a machine with the other.
    for package in ('numpy.core', 'numpy._core'):
        allowed.append((rebuild, f'{package}.multiarray._reconstruct'))
        allowed.append((scalar, f'{package}.multiarray.scalar'))
    # Functions of a class are saved as `getattr(HistoryBuffer, 'min')`. The real getattr in a
    # hostile file would reach anything.
    allowed.append((_saved_function, 'builtins.getattr'))
    return allowed


def _saved_function(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` while a checkpoint is read.

    It gives the public methods of HistoryBuffer and the annealing functions of OneCycleLR only.
    """
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    allowed = (owner is HistoryBuffer and not name.startswith('_')) or (
        owner is OneCycleParamScheduler and name.startswith('_annealing_')
    )
    method = getattr(owner, name, None) if allowed else None
    if not inspect.isfunction(method):
        raise TypeError(f'a checkpoint should not ask for {name!r} of {owner!r}')
    return method
