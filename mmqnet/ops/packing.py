# Copyright (c) mmqnet developers. All rights reserved.
"""Level codes packed at their bits, without gaps."""

import torch
from torch import Tensor

from mmqnet.checks import check_integer

_GROUP = 8  # codes that fill whole bytes, whatever their bits


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack codes at their bits: the first code is in the lowest bits of the first byte.

    Args:
        codes: Integers 0..2^bits - 1, of any shape; N of them.
        bits: Bits of one code, 1 to 8.

    Returns:
        Tensor: (ceil(N * bits / 8),), uint8.

    Raises:
        TypeError: If ``codes`` holds no integers.
        ValueError: If a code does not fit into the bits, or ``bits`` is out of range.

    Example:
        >>> pack_codes(torch.tensor([1, 0, 2, 3, 1]), 2).tolist()
        [225, 1]
    """
    _check_bits(bits)
    _check_codes(codes, bits)
    size = _size(codes.numel(), bits)
    words = codes.new_zeros(-(-codes.numel() // _GROUP), dtype=torch.int64)
    padded = codes.new_zeros(len(words) * _GROUP, dtype=torch.uint8)
    padded[: codes.numel()] = codes.flatten()
    for place, column in enumerate(padded.view(-1, _GROUP).unbind(1)):
        words |= column.long() << (bits * place)
    columns = [(words >> (8 * place)) & 0xFF for place in range(bits)]
    return torch.stack(columns, dim=1).flatten()[:size].to(torch.uint8)


def unpack_codes(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the codes that :func:`pack_codes` has packed.

    Args:
        packed: (ceil(count * bits / 8),), uint8.
        bits: Bits of one code, 1 to 8.
        count: How many codes there are.

    Returns:
        Tensor: (count,), uint8.

    Raises:
        TypeError: If ``packed`` is not of uint8.
        ValueError: If its size is another one, or ``bits`` is out of range.

    Example:
        >>> unpack_codes(torch.tensor([225, 1], dtype=torch.uint8), 2, 5).tolist()
        [1, 0, 2, 3, 1]
    """
    _check_bits(bits)
    if packed.dtype is not torch.uint8:
        raise TypeError(f'`packed` should be of torch.uint8, but is of {packed.dtype}')
    size = _size(count, bits)
    if packed.shape != (size,):
        raise ValueError(
            f'`packed` should hold {size} bytes for {count} codes of {bits} bits, but has the '
            f'shape {tuple(packed.shape)}'
        )
    groups = -(-count // _GROUP)
    padded = packed.new_zeros(groups * bits)
    padded[:size] = packed
    words = packed.new_zeros(groups, dtype=torch.int64)
    for place, column in enumerate(padded.view(-1, bits).unbind(1)):
        words |= column.long() << (8 * place)
    mask = 2**bits - 1
    columns = [((words >> (bits * place)) & mask).to(torch.uint8) for place in range(_GROUP)]
    return torch.stack(columns, dim=1).flatten()[:count]


def _size(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def _check_bits(bits: int) -> None:
    check_integer(bits, 'bits', range(1, 9), 'an integer from 1 to 8')


def _check_codes(codes: Tensor, bits: int) -> None:
    if codes.is_floating_point() or codes.is_complex() or codes.dtype is torch.bool:
        raise TypeError(f'`codes` should be integers, but are of {codes.dtype}')
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits:
        raise ValueError(
            f'`codes` should be 0 to {2**bits - 1} for {bits} bits, but are {int(codes.min())} to '
            f'{int(codes.max())}'
        )
