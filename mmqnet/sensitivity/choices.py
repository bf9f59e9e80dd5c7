"""Choices of bits: ``w4-a8`` stands for 4-bit weights and 8-bit activations."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from mmqnet.quantizers import QuantizerConfig, num_bits

FLOAT_BITS = 32
ROLES = ('weight', 'activation')
_MOST_BITS = 8  # as named sets have
LevelSpec = str | list[int]


class Choice(NamedTuple):
    """Bits of a layer's weights and of its input; 32 for float.

    Example:
        >>> str(Choice(4, 8))
        'w4-a8'
    """

    weight_bits: int
    activation_bits: int

    def bits(self, role: str) -> int:
        """Return the bits of the ``'weight'`` or of the ``'activation'``."""
        return self.weight_bits if role == 'weight' else self.activation_bits

    def __str__(self) -> str:
        return f'w{self.weight_bits}-a{self.activation_bits}'


def parse_choices(texts: Iterable[str]) -> list[Choice]:
    """Return the choices of a command line, each once.

    Args:
        texts: Such as ``'w4-a8'``, ``'w3-a32'``.

    Raises:
        ValueError: If a text is no choice, or there is none.

    Example:
        >>> parse_choices(['w4-a8', 'w3-a4'])
        [Choice(weight_bits=4, activation_bits=8), Choice(weight_bits=3, activation_bits=4)]
    """
    found: dict[Choice, None] = {}
    for text in texts:
        match = re.fullmatch(r'w(\d+)-a(\d+)', text)
        bits = [int(number) for number in match.groups()] if match else []
        if not bits or any(b not in (*range(1, _MOST_BITS + 1), FLOAT_BITS) for b in bits):
            raise ValueError(
                "a choice of bits should be as 'w4-a8', with 1 to 8 bits or 32 for float, "
                f'but got {text!r}'
            )
        found[Choice(*bits)] = None
    if not found:
        raise ValueError('choices of bits should not be empty')
    return list(found)


def levels_of_bits(own: QuantizerConfig, bits: int) -> LevelSpec:
    """Return the level set of so many bits that is of the kind of a config's own set.

    Unsigned sets give unsigned ones, two's complement integers (as LSQ has them) the same, odd
    integers (as DoReFa has them) the same, and all others symmetric integers. Binary ones are odd
    integers for a method whose levels are (``has_odd_levels``).

    Args:
        own: The config, whose levels have another number of bits.
        bits: 1 to 8.

    Example:
        >>> from mmqnet.quantizers import quantizer_config
        >>> levels_of_bits(quantizer_config(dict(levels='pm4'), 'weight', 'weight'), 4)
        'int4'
    """
    levels = own.levels
    if levels[0] >= 0:
        return f'uint{bits}'
    if bits == 1:
        return 'binary'
    is_odd = levels == tuple(map(float, _odd_integers(num_bits(levels))))
    if is_odd and (len(levels) > 2 or own.has_odd_levels):
        return _odd_integers(bits)
    half = 2 ** (num_bits(levels) - 1)
    if levels == tuple(map(float, range(-half, half))):
        return list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    return f'int{bits}'


def _odd_integers(bits: int) -> list[int]:
    return list(range(1 - 2**bits, 2**bits, 2))
