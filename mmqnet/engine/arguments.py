"""Checks of what hooks and command lines are given."""

import argparse


def check_positive_integers(owner: str, **values: int) -> None:
    """Refuses arguments of ``owner`` that are not positive integers.

    Raises:
        ValueError: Which names the first one.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'`{owner}.{name}` should be a positive integer, but got {value!r}')


def positive_integer(text: str) -> int:
    """Type of a command line's argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'should be a positive integer, but got {text!r}')
    return int(text)
