"""Checks of values in configs and of arguments; depends on the standard library only.

Every message names the key, what would be right and the value: TypeError for wrong types,
ValueError for wrong values.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def did_you_mean(name: object, known: Iterable[str], count: int = 1) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, or nothing.

    Args:
        name: What was given.
        known: The names that exist.
        count: How many of them to name at most.

    Example:
        >>> did_you_mean('slop', ['slope', 'cap'])
        " Did you mean 'slope'?"
        >>> did_you_mean('start', ['slope', 'cap'])
        ''
    """
    near = near_misses(name, known, count)
    return f' Did you mean {_alternatives(near)}?' if near else ''


def near_misses(
    name: object, known: Iterable[str], count: int = 1, cutoff: float = 0.6
) -> list[str]:
    """Return the known names that are nearly the given one, the nearest first.

    Args:
        name: What was given.
        known: The names that exist.
        count: How many of them at most. Default 1.
        cutoff: Similarity from which on names are near, 0..1. Default 0.6, as difflib has it.

    Example:
        >>> near_misses('slop', ['slope', 'cap'])
        ['slope']
        >>> near_misses('lsq', ['LSQ', 'PACT'])
        ['LSQ']
    """
    import difflib  # only for a message: mmqnet is imported when Python starts

    spelled = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(str(name).casefold(), spelled, n=count, cutoff=cutoff)
    return [spelled[other] for other in near]


def check_keys(config: Any, known: Sequence[str], key: str) -> None:
    """Check that a dict has known keys only.

    Raises:
        TypeError: If ``config`` is no dict.
        ValueError: If it holds an unknown key; the message names near misses.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f'`{key}` should be a dict, but got {config!r}')
    for name in config:
        if name not in known:
            raise ValueError(
                f'`{key}` has the unknown key {name!r}; known keys are {sorted(known)}.'
                f'{did_you_mean(name, known)}'
            )


def check_choice(value: Any, choices: Sequence[str], key: str) -> None:
    """Check that a value is one of ``choices``.

    Raises:
        ValueError: If ``value`` is none of them.
    """
    if value not in tuple(choices):  # a tuple compares: a list cannot be looked up in a set
        raise ValueError(f'`{key}` should be {_alternatives(choices)}, but got {value!r}')


def check_bool(value: Any, key: str) -> None:
    """Check that a value is True or False.

    Raises:
        TypeError: If ``value`` is no bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f'`{key}` should be True or False, but got {value!r}')


def check_number(
    value: Any,
    key: str,
    *,
    zero: bool = False,
    infinite: bool = False,
    optional: bool = False,
) -> None:
    """Check that a value is a positive, finite number.

    Args:
        value: What was given.
        key: Where it was given.
        zero: Whether 0 is allowed too.
        infinite: Whether infinity is allowed too.
        optional: Whether None is allowed too.

    Raises:
        TypeError: If ``value`` is no number.
        ValueError: If it is out of range.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = 'a number or None' if optional else 'a number'
        raise TypeError(f'`{key}` should be {kind}, but got {value!r}')
    if not (value >= 0 if zero else value > 0) or (math.isinf(value) and not infinite):
        sign = 'not negative' if zero else 'positive'
        right = sign if infinite else f'{sign} and finite'
        raise ValueError(f'`{key}` should be {right}, but got {value!r}')


def check_integer(value: Any, key: str, allowed: range, what: str) -> None:
    """Check that a value is an integer of a range.

    Args:
        value: What was given.
        key: Where it was given.
        allowed: The range.
        what: The range in words, for the message.

    Raises:
        TypeError: If ``value`` is no integer.
        ValueError: If it is out of range.
    """
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value not in allowed:
        error = ValueError if is_integer else TypeError
        raise error(f'`{key}` should be {what}, but got {value!r}')


def check_positive_integer(value: Any, key: str) -> None:
    """Check that a value is a positive integer.

    Raises:
        TypeError: If ``value`` is no integer.
        ValueError: If it is not positive.
    """
    check_integer(value, key, range(1, sys.maxsize), 'a positive integer')


def check_seed(value: Any, key: str) -> None:
    """Check that a value is a seed that Python, NumPy and torch all take.

    Raises:
        TypeError: If ``value`` is no integer.
        ValueError: If it is out of range.
    """
    check_integer(value, key, range(2**32), 'an integer from 0 to 2**32 - 1')


def is_list_of_numbers(value: Any) -> bool:
    """Return whether ``value`` is a list or tuple of numbers; strings and bools are none."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )


def _alternatives(names: Sequence[str]) -> str:
    *others, last = map(repr, names)
    return f'{", ".join(others)} or {last}' if others else last
