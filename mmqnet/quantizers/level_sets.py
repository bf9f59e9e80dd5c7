"""Level sets Y of the quantization function, by name or by list."""

import functools
import itertools
import math
import re
from collections.abc import Sequence
from itertools import pairwise

import torch

from mmqnet.checks import did_you_mean, is_list_of_numbers

LevelSpec = str | Sequence[float]

_NAMED: dict[str, tuple[float, ...]] = {
    'binary': (-1.0, 1.0),
    'ternary': (-1.0, 0.0, 1.0),
    'pm2': (-2.0, -1.0, 0.0, 1.0, 2.0),
    'pm4': (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0),
}
# Additive powers of two (Li et al., ICLR 2020, arXiv 1909.13144), as the authors' code has them:
# the magnitudes of k bits are all sums of one number of each term.
_APOT_TERMS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((0, 1, 2, 4),),
    3: ((0, 1, 4, 8), (0, 2)),
    4: ((0, 2, 8, 32), (0, 1, 4, 16)),
}
_APOT_NAMES = ('apot3', 'apot4', 'uapot2', 'uapot3', 'uapot4')
_MAX_BITS = 8
# Neighbours nearer to each other than this share of the larger one may be rounded to the same
# number when they are multiplied by a scale in float32.
_LEAST_GAP = 1e-6


def resolve_levels(spec: LevelSpec, key: str = 'levels') -> tuple[float, ...]:
    """Turn the name or the list of a config into a strictly increasing tuple of levels.

    Args:
        spec: ``'binary'`` (-1, 1), ``'ternary'`` (-1, 0, 1), ``'pm2'`` (-2..2), ``'pm4'``
            (-4, -2, -1, 0, 1, 2, 4), ``'int{k}'`` for -(2^(k-1)-1)..2^(k-1)-1 with k in 2..8
            (``'int5'`` is -15..15), ``'uint{k}'`` for 0..2^k-1 with k in 1..8, ``'apot3'``,
            ``'apot4'`` (sums of powers of two with a sign; ``'apot3'`` is ``'pm4'``),
            ``'uapot2'`` (0, 1, 2, 4), ``'uapot3'``, ``'uapot4'`` (the same from 0), or any strictly
            increasing list of finite numbers.
        key: The config key, for error messages.

    Returns:
        tuple[float, ...]: The n + 1 levels, as float32 holds them.

    Raises:
        TypeError: If ``spec`` is neither a string nor a sequence of numbers.
        ValueError: If the name is unknown or the numbers are not finite and strictly increasing.
    """
    if isinstance(spec, str):
        return _resolve_name(spec, key)
    if not is_list_of_numbers(spec):
        raise TypeError(f'`{key}` should be a name or a list of numbers, but got {spec!r}')
    levels = as_float32([float(level) for level in spec])
    if len(levels) < 2:
        raise ValueError(f'`{key}` should hold at least 2 levels, but got {list(spec)}')
    increasing = all(low < high for low, high in pairwise(levels))
    if not increasing or not all(map(math.isfinite, levels)):
        raise ValueError(f'`{key}` should be finite and strictly increasing, but got {list(spec)}')
    for low, high in pairwise(levels):
        least = _LEAST_GAP * max(abs(low), abs(high))
        if high - low < least:
            raise ValueError(
                f'`{key}` should hold levels that still differ in float32 after scaling, but '
                f'{low!r} and {high!r} are less than {least:g} apart, in {list(spec)}'
            )
    return levels


def as_float32(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return the numbers as float32 holds them, so that they equal what a checkpoint gives back."""
    return tuple(torch.tensor(numbers, dtype=torch.float32, device='cpu').tolist())


def signed_counterpart(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return the integers with a sign that take as many bits as ``levels``.

    ``0..2^k-1`` and other sets of 2^k levels from 0 on become ``-2^(k-1)..2^(k-1)-1``, the range
    of a k-bit two's complement integer, and ``(0, 1)`` becomes ``(-1, 1)``.

    Raises:
        ValueError: If ``levels`` does not start at 0, or their number is odd.
    """
    return _shifted_down(levels, len(levels) / 2)


def zero_centred_counterpart(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return the symmetric set with as many levels as ``levels``, without a level 0.

    ``0..3`` becomes ``-1.5, -0.5, 0.5, 1.5``, and ``(0, 1)`` becomes ``(-1, 1)``.

    Raises:
        ValueError: If ``levels`` does not start at 0, or their number is odd.
    """
    return _shifted_down(levels, (len(levels) - 1) / 2)


def _shifted_down(levels: tuple[float, ...], offset: float) -> tuple[float, ...]:
    _check_unsigned(levels)
    if len(levels) == 2:
        return _NAMED['binary']
    return tuple(i - offset for i in range(len(levels)))


def _check_unsigned(levels: tuple[float, ...]) -> None:
    if levels[0] != 0 or len(levels) % 2:
        raise ValueError(
            '`signed_levels` should be given, as a list or as None for inputs left in float, '
            'when `levels` does not start at 0 or their number is odd, '
            f'but got levels={list(levels)}'
        )


@functools.cache
def integer_ranges(levels: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Return the sets of as many integers as ``levels`` that hold 0 and a positive number.

    They are ``-m..n-m`` with m from 0 to n - 1; ``(0, 1)`` has ``(-1, 1)`` beside it.

    Raises:
        ValueError: If ``levels`` does not start at 0, or their number is odd.
    """
    counterpart = signed_counterpart(levels)  # raises for other levels
    n = len(levels) - 1
    ranges = tuple(tuple(float(i - m) for i in range(n + 1)) for m in range(n))
    return ranges if counterpart in ranges else (*ranges, counterpart)


def span(levels: Sequence[float]) -> str:
    """Return the number of levels and their ends, for messages.

    Example:
        >>> span((-7, 0, 7))
        '3 levels -7..7'
    """
    return f'{len(levels)} levels {levels[0]:g}..{levels[-1]:g}'


def num_bits(levels: Sequence[float]) -> int:
    """Return the bits that one level index takes."""
    return max(1, math.ceil(math.log2(len(levels))))


def _resolve_name(name: str, key: str) -> tuple[float, ...]:
    if name in _NAMED:
        return _NAMED[name]
    if name in _APOT_NAMES:
        return _additive_powers(int(name[-1]), signed=not name.startswith('u'))
    match = re.fullmatch(r'(u?)int(\d+)', name)
    if match is None:
        known = [*_NAMED, *_APOT_NAMES, 'int2', 'int5', 'int8', 'uint1', 'uint2', 'uint8']
        names = ', '.join(map(repr, [*_NAMED, *_APOT_NAMES]))
        raise ValueError(
            f"`{key}` should be one of {names}, 'int2'..'int{_MAX_BITS}', "
            f"'uint1'..'uint{_MAX_BITS}' or a list of numbers, but got {name!r}."
            f'{did_you_mean(name, known)}'
        )
    unsigned, bits = bool(match[1]), int(match[2])
    if not (1 if unsigned else 2) <= bits <= _MAX_BITS:
        raise ValueError(
            f'`{key}` should have {1 if unsigned else 2} to {_MAX_BITS} bits, but got {name!r}'
        )
    if unsigned:
        return tuple(map(float, range(2**bits)))
    top = 2 ** (bits - 1) - 1
    return tuple(map(float, range(-top, top + 1)))


def _additive_powers(bits: int, signed: bool) -> tuple[float, ...]:
    """Return sums of powers of two; a sign takes one of the bits."""
    terms = _APOT_TERMS[bits - 1 if signed else bits]
    magnitudes = sorted(float(sum(numbers)) for numbers in itertools.product(*terms))
    negative = [-level for level in reversed(magnitudes[1:])] if signed else []
    return (*negative, *magnitudes)
