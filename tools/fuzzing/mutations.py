"""Random changes to nested data and to files."""

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Values of other types, out of range, empty, very large, and text that is hard to handle.
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e-320,
    1e308, math.nan, math.inf, -math.inf, '', ' ', '0', 'pm4', 'uint8', 'weight', 'é', '量子', '\0',
    '🙂' * 3, '\ud800', "'\"\n\t\\", '{}', '{x}', '%s', '../..', 'a' * 5000, b'', b'\xff', (), [],
    {}, [[]], [None], [0, 0], [3, 1, 2], [1e308, 1e309], {'type': 'nothing'}, {'': ''}, {None: 1},
    {1: {2: {3: 4}}}, 1j, range(3), set(), object, len, print,
)  # fmt: skip
_KEYS = ('', 'levels', 'type', 'weight', 'activation', 'Weight', 'é', 'a.b', 0, None, '_scope_')


def mutated(value: Any, rng: random.Random, changes: int) -> Any:
    """Return a copy of nested dicts and lists with random changes."""
    value = copy.deepcopy(value)
    for _ in range(changes):
        places = list(_places(value))
        if not places:
            return rng.choice(_ODD)
        container, key = rng.choice(places)
        rng.choice((_replace, _replace, _drop, _add, _nest, _vary, _vary))(container, key, rng)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return []
    return [(value, key) for key, _ in items] + [p for _, item in items for p in _places(item)]


def _replace(container: Any, key: Any, rng: random.Random) -> None:
    container[key] = copy.deepcopy(rng.choice(_ODD))


def _drop(container: Any, key: Any, rng: random.Random) -> None:
    del container[key]


def _add(container: Any, key: Any, rng: random.Random) -> None:
    new = copy.deepcopy(rng.choice([container[key], rng.choice(_ODD)]))
    if isinstance(container, dict):
        container[rng.choice([*_KEYS, f'{key}s', str(key)[:-1]])] = new
    else:
        container.insert(key, new)


def _nest(container: Any, key: Any, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 300))):
        container[key] = rng.choice(([container[key]], {rng.choice(_KEYS): container[key]}))


def _vary(container: Any, key: Any, rng: random.Random) -> None:
    """Change a value a little, within its type."""
    value = container[key]
    if isinstance(value, bool):
        container[key] = not value
    elif isinstance(value, int | float):
        container[key] = value * rng.choice((-1, 0, 2, 0.5, 1e9)) + rng.choice((-1, 0, 1, 0.1))
    elif isinstance(value, str) and value:
        i = rng.randrange(len(value))
        container[key] = value[:i] + rng.choice(('', ' ', 'x', 'é', value[i] * 2)) + value[i + 1 :]
    else:
        _replace(container, key, rng)


def damage_file(path: Path, rng: random.Random) -> None:
    """Flip bytes of a file, cut it, repeat or remove a part, or put others in its place."""
    content = bytearray(path.read_bytes())
    kinds: tuple[Callable[[bytearray, random.Random], bytes], ...] = (_flip, _flip, _cut, _splice)
    path.write_bytes(rng.choice((*kinds, _other))(content, rng))


def _flip(content: bytearray, rng: random.Random) -> bytes:
    # the ends of a file hold its headers and tables
    begin = rng.choice((0, 0, max(0, len(content) - 4000)))
    end = rng.choice((len(content), min(len(content), begin + 4000)))
    for _ in range(rng.choice((1, 1, 4, 64))):
        content[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut(content: bytearray, rng: random.Random) -> bytes:
    return bytes(content[: rng.randrange(len(content))])


def _splice(content: bytearray, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    return bytes(content[:a] + content[b:] if rng.random() < 0.5 else content[:b] + content[a:])


def _other(content: bytearray, rng: random.Random) -> bytes:
    return rng.choice(
        (b'', b'PK\x03\x04', b'\x80\x02', b'text\n', b'<html></html>', b'null', b'[]', b'\xff\xfe')
    )
