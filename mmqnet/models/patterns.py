"""Patterns that name modules in a config."""

import fnmatch
from collections.abc import Iterable, Mapping

from mmqnet.checks import did_you_mean


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches the module ``name`` or one that contains it.

    Args:
        name: Dotted module name, for example ``backbone.layer1.0.conv1``.
        pattern: A name or a shell-style pattern; ``backbone`` and ``backbone.layer?`` match all
            layers below, ``*.conv1`` every module called conv1.

    Example:
        >>> matches('backbone.layer1.0.conv1', 'backbone.layer?')
        True
        >>> matches('backbone.layer1.0.conv1', 'conv1')
        False
    """
    parts = name.split('.')
    ancestors = ('.'.join(parts[: end + 1]) for end in range(len(parts)))
    return any(fnmatch.fnmatchcase(ancestor, pattern) for ancestor in ancestors)


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Return whether any of the patterns matches ``name``."""
    return any(matches(name, pattern) for pattern in patterns)


def check_patterns(patterns: Iterable[str], layers: Mapping[str, str], key: str) -> None:
    """Check that each pattern matches a layer that can be quantized.

    Args:
        patterns: The patterns of one config key.
        layers: From the names of all layers to the reasons why they cannot be quantized; an
            empty text where there is none.
        key: The config key, for the message.

    Raises:
        ValueError: If a pattern matches none; the message names near misses.
    """
    for pattern in patterns:
        matched = [name for name in layers if matches(name, pattern)]
        if not matched:
            raise ValueError(
                f'`{key}` has the pattern {pattern!r} that matches no layer.'
                f'{_near_misses(pattern, layers)}'
            )
        if all(layers[name] for name in matched):
            found = '; '.join(f'`{name}`: {layers[name]}' for name in matched[:3])
            raise ValueError(
                f'`{key}` has the pattern {pattern!r} that matches no layer that can be '
                f'quantized, only {found}'
            )


def _near_misses(pattern: str, names: Iterable[str]) -> str:
    names = list(names)
    ancestors = {'.'.join(name.split('.')[:end]) for name in names for end in range(1, 9)}
    tops = sorted({name.split('.')[0] for name in names})
    near = did_you_mean(pattern, sorted(ancestors | set(names)), count=3)
    return near or f' The layers are below {tops}.'
