"""Packed checkpoints: quantized weights as level codes at their bits, and how they load.

The weights of a layer are stored as codes, a value for each level, and a factor for the layer or
for each output channel. Value times factor is a weight that the layer quantizes to the same level
as the one it stands for. Layers that share a parameter (the projections of an attention) name it,
and their first row in it. All packed layers are one entry among the weights of a checkpoint, so
that whatever loads weights into a model loads these.
"""

import logging
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmqnet.ops import unpack_codes

ENTRY = 'packed_weights'
_VERSION = 1


def packed_entry(layers: Mapping[str, dict[str, Any]], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a packed checkpoint holds among its weights under the name ``ENTRY``.

    Args:
        layers: For each layer its ``shape`` (list of int), ``bits``, ``codes`` (packed, uint8),
            ``values`` (n + 1,) of the levels and ``factors`` (1,) or (C,) of the output channels,
            or of a shape that broadcasts to the weights. Optional: ``parameter`` of which they are
            rows, by its name in the model, and ``first_row``.
        others: The weights and buffers that are not packed, for their checksums.
    """
    return dict(
        version=_VERSION,
        layers={name: {**layer, 'checksum': _of_layer(layer)} for name, layer in layers.items()},
        checksums={key: _checksum(tensor) for key, tensor in others.items()},
    )


def expand_layer(layer: Mapping[str, Any]) -> Tensor:
    """Return the weights of one packed layer, float32, see :func:`packed_entry`."""
    shape, factors = layer['shape'], layer['factors']
    codes = unpack_codes(layer['codes'], layer['bits'], math.prod(shape))
    if factors.dim() == 1:
        factors = factors.view(-1, *(1,) * (len(shape) - 1))
    return layer['values'].index_select(0, codes.int()).view(shape) * factors


def unpack(state: Mapping[str, Any], prefix: str = '') -> Mapping[str, Any]:
    """Return the weights of a checkpoint with the packed ones expanded; others as they are.

    Args:
        state: Weights by their names.
        prefix: What the model's names in ``state`` begin with.

    Raises:
        ValueError: If packed weights are damaged, or of a later version of mmqnet.
    """
    entry = state.get(f'{prefix}{ENTRY}')
    if entry is None:
        return state
    try:
        if entry['version'] > _VERSION:
            raise ValueError(
                f'the packed checkpoint is of version {entry["version"]}, which a later mmqnet '
                f'wrote: this one reads up to {_VERSION}'
            )
        expanded = {k: v for k, v in state.items() if k != f'{prefix}{ENTRY}'}
        _check_sums(entry, expanded, prefix)
        for name, weight in _expanded(entry['layers']):
            expanded[f'{prefix}{name}'] = weight
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f'the packed checkpoint is damaged: {error!r}') from error
    return expanded


def _expanded(layers: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Yield names of parameters and their values."""
    parts: dict[str, dict[int, Tensor]] = {}
    for name, layer in layers.items():
        rows = parts.setdefault(layer.get('parameter', f'{name}.weight'), {})
        rows[layer.get('first_row', 0)] = expand_layer(layer)
    for name, rows in parts.items():
        yield name, torch.cat([rows[first] for first in sorted(rows)]) if len(rows) > 1 else rows[0]


def has_zip_end(path: str | Path) -> bool:
    """Return whether a file has the table of a zip file at its end."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # Python 3.11 raises it for some damaged tables
        return False


def check_file(path: str) -> None:
    """Refuse a packed checkpoint of which a byte has changed, or that has no end.

    torch compares no checksums, and would read what it finds.

    Args:
        path: A checkpoint of any kind; others, and URLs, are accepted as they are.

    Raises:
        ValueError: If it is damaged.
    """
    if '://' in path or not Path(path).is_file():
        return
    with open(path, 'rb') as begin:
        is_zip = begin.read(2) == b'PK'
    if is_zip and not has_zip_end(path):
        raise ValueError(f'the checkpoint {path!r} is truncated: its end is missing')
    try:
        damaged = _damaged_entry(path) if is_zip else None
    except Exception as error:  # whatever the bytes make of it
        raise ValueError(f'the checkpoint {path!r} is damaged: {error}') from error
    if damaged:
        raise ValueError(f'the checkpoint {path!r} is damaged: {damaged!r} in it has changed')


def _damaged_entry(path: str) -> str | None:
    with zipfile.ZipFile(path) as file:
        # only packed ones are compressed; torch can be told to leave checksums out of others
        is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist())
        return file.testzip() if is_packed else None


def unpack_when_loading(model: nn.Module) -> None:
    """Make a quantized model load packed checkpoints as it loads others."""
    model._register_load_state_dict_pre_hook(_unpack_in_place, with_module=True)


def _unpack_in_place(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Expand the packed weights of a whole checkpoint.

    Raises:
        ValueError: If they are damaged, or the model would not quantize them.
    """
    entry = state.get(f'{prefix}{ENTRY}')
    if entry is None:
        return
    expanded = unpack(state, prefix)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in entry['layers']:
        layer = modules.get(name)
        if layer is not None and getattr(layer, 'weight_quantizer', None) is None:
            raise ValueError(
                f'the checkpoint holds packed weights of `{name}`, which the config leaves in '
                'float: take the config that the checkpoint was trained with'
            )
    del state[f'{prefix}{ENTRY}']
    state.update(expanded)
    print_log(
        f'the checkpoint is packed: the weights of {len(entry["layers"])} layers are values of '
        'their levels, the same in evaluation; a training starts from these',
        logger='current',
        level=logging.INFO,
    )


def _check_sums(entry: Mapping[str, Any], state: Mapping[str, Any], prefix: str) -> None:
    damaged = [n for n, layer in entry['layers'].items() if layer['checksum'] != _of_layer(layer)]
    damaged += [
        key
        for key, checksum in entry['checksums'].items()
        if f'{prefix}{key}' in state and _checksum(state[f'{prefix}{key}']) != checksum
    ]
    if damaged:
        names = ', '.join(f'`{name}`' for name in damaged[:3])
        raise ValueError(
            f'the packed checkpoint is damaged: {names} ({len(damaged)} in all) changed since it '
            'was written'
        )


def _of_layer(layer: Mapping[str, Any]) -> int:
    place = [layer[key] for key in ('parameter', 'first_row') if key in layer]
    checksum = zlib.crc32(repr((list(layer['shape']), layer['bits'], *place)).encode())
    for key in ('codes', 'values', 'factors'):
        checksum = _checksum(layer[key], checksum)
    return checksum


def _checksum(tensor: Tensor, start: int = 0) -> int:
    """Return the CRC-32 of a tensor's values."""
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return zlib.crc32(flat.numpy(), start)  # type: ignore[arg-type]
