"""A file of ``torch.save`` without its overhead for each tensor."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def share_storage(value: Any) -> Any:
    """Return nested dicts with copies of their tensors, all of one dtype in one storage.

    A file has a header for each storage. A tensor with several names is stored once.

    Example:
        >>> shared = share_storage(dict(a=torch.ones(2), b=dict(c=torch.zeros(3))))
        >>> shared['a'].untyped_storage().nbytes(), shared['b']['c'].storage_offset()
        (20, 2)
    """
    unique = {tensor_key(tensor): tensor for tensor in _tensors(value)}
    views: dict[tuple[Any, ...], Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in unique.values()):
        group = {key: tensor for key, tensor in unique.items() if tensor.dtype is dtype}
        flat = torch.cat([tensor.detach().cpu().flatten() for tensor in group.values()])
        sizes = [tensor.numel() for tensor in group.values()]
        for (key, tensor), piece in zip(group.items(), flat.split(sizes), strict=True):
            views[key] = piece.view(tensor.shape)
    return _replace(value, lambda tensor: views[tensor_key(tensor)])


def tensor_key(tensor: Tensor) -> tuple[Any, ...]:
    """Return the same for the same memory only."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def save(value: Any, path: str | Path) -> None:
    """Write what ``torch.save`` writes, with its description of the tensors compressed.

    The numbers are not: a file of theirs is read as fast as any.
    """
    content = io.BytesIO()
    torch.save(value, content)
    with zipfile.ZipFile(content) as plain, zipfile.ZipFile(path, 'w') as packed:
        for name in plain.namelist():
            method = zipfile.ZIP_DEFLATED if name.endswith('.pkl') else zipfile.ZIP_STORED
            entry = zipfile.ZipInfo(name)  # of a fixed date: the same model gives the same file
            packed.writestr(entry, plain.read(name), compress_type=method, compresslevel=9)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)


def _replace(value: Any, new: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return new(value)
    if isinstance(value, Mapping):
        return {key: _replace(item, new) for key, item in value.items()}
    return value
