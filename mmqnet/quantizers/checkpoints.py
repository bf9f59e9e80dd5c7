"""Refuses checkpoints of quantizers that the config does not describe.

MMEngine logs a wrong shape as a warning and goes on, with half of the quantizer loaded.
"""

from collections.abc import Mapping
from typing import Any

import torch

from mmqnet.quantizers.config import QuantizerConfig


def check_levels(state: Mapping[str, Any], prefix: str, config: QuantizerConfig) -> None:
    """Checks that the levels in a checkpoint are those of the config.

    Args:
        state: State dict of a model.
        prefix: Name of the quantizer in it, with a trailing dot.
        config: The quantizer's config.

    Raises:
        ValueError: If they are not.
    """
    saved = state.get(f'{prefix}levels')
    if saved is None:
        return
    found = tuple(saved.flatten().tolist())
    levels = config.levels
    if found not in (levels, config.levels_for(signed=True)):
        raise ValueError(
            f'checkpoint key `{prefix}levels` holds {len(found)} levels '
            f'{found[0]:g}..{found[-1]:g}, but the config quantizes to '
            f'{len(levels)} levels {levels[0]:g}..{levels[-1]:g}: '
            'take the config that the checkpoint was trained with, or a float checkpoint'
        )


def check_granularity(state: Mapping[str, Any], prefix: str, shape: torch.Size) -> None:
    """Checks that a checkpoint holds as many scales as the quantizer.

    Args:
        state: State dict of a model.
        prefix: Name of the quantizer in it, with a trailing dot.
        shape: Shape of the quantizer's scales.

    Raises:
        ValueError: If it does not.
    """
    for key in (f'{prefix}log_alpha', f'{prefix}log_beta'):
        saved = state.get(key)
        if saved is not None and saved.shape != shape:
            raise ValueError(
                f'checkpoint key `{key}` has the shape {tuple(saved.shape)}, but the config asks '
                f'for {tuple(shape)}: take the `granularity` that the checkpoint was trained '
                'with, or a float checkpoint'
            )
