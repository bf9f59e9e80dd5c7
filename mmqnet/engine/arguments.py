"""Checks of what hooks are given."""

import sys


def check_positive_integers(owner: str, **values: int) -> None:
    """Refuses arguments of ``owner`` that are not positive integers.

    Raises:
        TypeError: If one is no integer.
        ValueError: If one is not positive.
    """
    for name, value in values.items():
        _check_integer(f'{owner}.{name}', value, range(1, sys.maxsize), 'a positive integer')


def check_seed(owner: str, seed: int) -> None:
    """Refuses a ``seed`` of ``owner`` that Python, NumPy and torch do not all take.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is out of range.
    """
    _check_integer(f'{owner}.seed', seed, range(2**32), 'an integer from 0 to 2**32 - 1')


def _check_integer(key: str, value: int, allowed: range, what: str) -> None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value not in allowed:
        error = ValueError if is_integer else TypeError
        raise error(f'`{key}` should be {what}, but got {value!r}')
