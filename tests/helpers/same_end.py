"""Comparison of what two checkpoints would go on with, bit by bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

KEPT = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')


def differences(expected: Path, found: Path) -> list[str]:
    """Return the names of the weights, averages and other states that differ."""
    first, second = (torch.load(path, weights_only=False) for path in (expected, found))
    assert set(KEPT) < first.keys(), first.keys()
    return [name for key in KEPT for name in _differing(first[key], second.get(key), key)]


def _differing(expected: Any, found: Any, where: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from _differing(expected.get(key), found.get(key), f'{where}.{key}')
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            yield where
        for i, (a, b) in enumerate(zip(expected, found, strict=False)):
            yield from _differing(a, b, f'{where}[{i}]')
    elif isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
        if not torch.equal(expected, found):
            yield where
    elif expected != found:
        yield where
