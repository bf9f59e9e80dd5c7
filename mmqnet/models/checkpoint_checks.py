"""Checks that a file is a checkpoint, and one of this model.

MMEngine names no file when it cannot read one, and only warns of keys that do not match, however
many they are.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmqnet.models.packed_weights import check_file, has_zip_end, unpack

_QUANTIZER = re.compile(r'(.*?_quantizer)\.')


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """Read a checkpoint into the memory of the CPU.

    Args:
        path: A local path, or a URL that MMEngine understands.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is truncated or no checkpoint.
    """
    if '://' not in path:
        check_end(path)
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    weights_of(checkpoint, path)
    return checkpoint


def weights_of(checkpoint: Any, path: str) -> OrderedDict[str, Any]:
    """Return the weights in a checkpoint by their names in the model.

    Args:
        checkpoint: What the file holds: a dict with ``'state_dict'``, or that alone.
        path: Of the file, for messages.

    Raises:
        ValueError: If it holds something else.
    """
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        kind = type(checkpoint if state is None else state).__name__
        raise ValueError(f'{path!r} is no checkpoint: it holds a {kind} in place of named weights')
    weights = OrderedDict((str(key).removeprefix('module.'), v) for key, v in state.items())
    try:
        weights = OrderedDict(unpack(weights))
    except ValueError as error:
        raise ValueError(f'{path!r} cannot be loaded: {error}') from error
    # versions of modules, by which older checkpoints are converted
    weights._metadata = getattr(state, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return weights


def check_state(model: nn.Module, checkpoint: Any, path: str) -> None:
    """Refuse a checkpoint of another model, or of one that is quantized in another way.

    One that holds a part of the model, or a head for other classes, is accepted; see
    :func:`warn_of_differences`. So is a float one for a quantized model.

    Args:
        model: The model that will be loaded, not wrapped.
        checkpoint: What the file holds: a dict with ``'state_dict'``, or that alone.
        path: Of the file, for messages.

    Raises:
        ValueError: If it holds quantizers that the model does not have, or nothing of the model.
    """
    state, own = weights_of(checkpoint, path), _own_state(model)
    _check_quantizers(own, state, path)
    wanted = _plain(own)
    named = [key for key in wanted if key in state]
    for key in own.keys() & state.keys():
        if isinstance(own[key], Tensor) and not isinstance(state[key], Tensor):
            kind = type(state[key]).__name__
            raise ValueError(f'`{key}` should be a tensor, but is of the type {kind} in {path!r}')
        if isinstance(own[key], Tensor) and own[key].is_complex() != state[key].is_complex():
            kind = state[key].dtype
            raise ValueError(f'`{key}` should be of {own[key].dtype}, but is of {kind} in {path!r}')
    if any(_fits(own[key], state[key]) for key in named) or not wanted:
        return
    if named:
        shape = tuple(getattr(state[named[0]], 'shape', ()))
        raise ValueError(
            f'`{named[0]}` should be of the shape {tuple(own[named[0]].shape)}, but is {shape} in '
            f'{path!r}, and no other weight fits: is it of another model?'
        )
    found = f'Its keys are {some_of(state)}' if state else 'It is empty'
    raise ValueError(f'{path!r} holds no {some_of(wanted)}: is it of another model? {found}')


def warn_of_differences(model: nn.Module, checkpoint: Any, path: str) -> None:
    """Log one line if a checkpoint leaves a part of the model as it is.

    The scales and thresholds of quantizers, which a float checkpoint does not have, are not meant.

    Args:
        model: The model that will be loaded, not wrapped.
        checkpoint: As for :func:`check_state`, which has accepted it.
        path: Of the file, for the message.
    """
    state, own = weights_of(checkpoint, path), _own_state(model)
    wanted = _plain(own)
    missing = [key for key in wanted if key not in state]
    shaped = [key for key in wanted if key in state and not _fits(own[key], state[key])]
    if not missing and not shaped:
        return
    foreign = [key for key in _plain(state) if key not in own]
    kinds = (('missing', missing), ('of another shape', shaped), ('not in the model', foreign))
    parts = [f'{len(keys)} {kind} ({some_of(keys)})' for kind, keys in kinds if keys]
    print_log(
        f'{path!r} holds a part of the model; of its {len(wanted)} keys and others: '
        f'{"; ".join(parts)}',
        logger='current',
        level=logging.WARNING,
    )


def quantizers_in(state: Iterable[str]) -> list[str]:
    """Return the names of the quantizers of which a state dict holds keys."""
    matches = (_QUANTIZER.match(key) for key in state)
    return list(dict.fromkeys(match[1] for match in matches if match))


def _check_quantizers(own: Mapping[str, Any], state: Mapping[str, Any], path: str) -> None:
    saved, known = quantizers_in(state), quantizers_in(own)
    foreign = [name for name in saved if name not in known]
    if not foreign:
        return
    if known:
        model, others = 'has no such quantizers', ', or the checkpoint of the float model'
    else:
        model, others = 'is a float one', ''
    raise ValueError(
        f'{path!r} is of a quantized model and holds {some_of(foreign)}, but the model of the '
        f'config {model}: take the config that the checkpoint was trained with{others}'
    )


def check_end(path: str) -> None:
    """Check that a local checkpoint exists and has its end, without reading it.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is truncated, or a packed one that is damaged.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'the checkpoint {path!r} does not exist')
    check_file(str(file))


def is_complete(checkpoint: str | Path) -> bool:
    """Return whether a checkpoint has its end: torch writes a zip file, whose table comes last.

    Example:
        >>> import tempfile
        >>> from mmengine.runner import save_checkpoint
        >>> path = Path(tempfile.mkdtemp(), 'epoch_1.pth')
        >>> save_checkpoint(dict(state_dict={}), str(path))
        >>> is_complete(path)
        True
        >>> _ = path.write_bytes(path.read_bytes()[:-10])
        >>> is_complete(path)
        False
    """
    return Path(checkpoint).is_dir() or has_zip_end(checkpoint)  # DeepSpeed's are folders


def _own_state(model: nn.Module) -> dict[str, Any]:
    # around a model that is tested with augmentation, MMEngine loads the model inside
    inner = model.module if isinstance(model, BaseTTAModel) else model
    assert isinstance(inner, nn.Module)
    return inner.state_dict()


def _plain(state: Iterable[str]) -> list[str]:
    """Return the keys of the float model; counters of batches are left out, as MMEngine does."""
    return [k for k in state if not _QUANTIZER.match(k) and 'num_batches_tracked' not in k]


def _fits(own: Any, saved: Any) -> bool:
    return getattr(saved, 'shape', None) == own.shape


def some_of(names: Iterable[str]) -> str:
    """Return the first three of some keys, for a message, and how many others there are."""
    names = list(names)
    shown = ', '.join(f'`{name}`' for name in names[:3])
    return f'{shown} and {len(names) - 3} others' if len(names) > 3 else shown
