"""Checks of what configs, hooks and command lines are given; depends on nothing.

Every message names the key, what would be right and the value: TypeError for wrong types,
ValueError for wrong values.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or nothing."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f' Did you mean {near[0]!r}?' if near else ''


def check_keys(config: Any, known: Sequence[str], key: str) -> None:
    """Refuses a dict with keys that nobody reads.

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
    """Refuses what is not one of ``choices``.

    Raises:
        ValueError: If ``value`` is none of them.
    """
    if value not in tuple(choices):  # a tuple compares: a list cannot be looked up in a set
        *others, last = map(repr, choices)
        allowed = f'{", ".join(others)} or {last}' if others else last
        raise ValueError(f'`{key}` should be {allowed}, but got {value!r}')


def check_bool(value: Any, key: str) -> None:
    """Refuses what is not True or False.

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
    """Refuses what is not a positive, finite number.

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
    """Refuses what is not an integer of a range.

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


def is_list_of_numbers(value: Any) -> bool:
    """Whether ``value`` is a list or tuple of numbers; strings and bools are none."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )
