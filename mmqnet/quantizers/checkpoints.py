"""Refuses checkpoints of quantizers that the config does not describe.

MMEngine logs a wrong shape as a warning and goes on, with half of the quantizer loaded.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from mmqnet.quantizers.config import QuantizerConfig

SHARED = 'shared_'  # begins the name of a quantizer that all layers share


def check_levels(state: Mapping[str, Any], prefix: str, config: QuantizerConfig) -> None:
    """Checks that the levels in a checkpoint are those of the config.

    But for rounding: MMEngine's SyncBuffersHook takes the average of all processes' levels, and a
    third of the sum of three equal numbers may differ from them in the last bit.

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
    if not any(_are_close(found, own) for own in (levels, config.levels_for(signed=True))):
        raise ValueError(
            f'checkpoint key `{prefix}levels` holds {len(found)} levels '
            f'{found[0]:g}..{found[-1]:g}, but the config quantizes to '
            f'{len(levels)} levels {levels[0]:g}..{levels[-1]:g}: '
            'take the config that the checkpoint was trained with, or a float checkpoint'
        )


def _are_close(found: Sequence[float], levels: Sequence[float] | None) -> bool:
    return (
        levels is not None
        and len(found) == len(levels)
        and all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(found, levels, strict=True))
    )


def check_sharing(names: Iterable[str], state: Mapping[str, Any], prefix: str) -> None:
    """Checks that the layers of a checkpoint share a quantizer where those of the model do.

    Otherwise the model's would be taken for missing ones, which calibration fills.

    Args:
        names: Names of the model's quantizers.
        state: State dict of a model, which may be a float one.
        prefix: Name of the model in it, with a trailing dot.

    Raises:
        ValueError: If they do not.
    """
    own = {f'{prefix}{name}' for name in names}
    saved = {key.removesuffix('.levels') for key in state if key.endswith('_quantizer.levels')}
    missing, foreign = sorted(own - saved), sorted(saved - own)
    for kind in ('weight_quantizer', 'input_quantizer'):
        shared = f'{prefix}{SHARED}{kind}'
        found, asked = None, 'all layers together'
        if shared in missing:
            found = next((name for name in foreign if name.endswith(f'.{kind}')), None)
        elif shared in foreign and any(name.endswith(f'.{kind}') for name in missing):
            found, asked = shared, 'each layer'
        if found is not None:
            raise ValueError(
                f'the checkpoint holds `{found}`, but the config asks for a function of {asked}: '
                'take the `granularity` that the checkpoint was trained with, or a float checkpoint'
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
