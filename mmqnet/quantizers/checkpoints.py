"""Refuse checkpoints of quantizers that the config does not describe.

MMEngine logs a wrong shape as a warning and goes on, with half of the quantizer loaded.
"""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.level_sets import span


def check_saved_quantizer(
    saved: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str, config: QuantizerConfig
) -> None:
    """Check that what a checkpoint holds of a quantizer was written by one like it.

    Args:
        saved: The checkpoint's entries of the quantizer.
        own: The quantizer's entries.
        prefix: Name of the quantizer in the checkpoint, with a trailing dot.
        config: The quantizer's config.

    Raises:
        ValueError: If the levels, the entries or their shapes are others.
    """
    _check_levels(saved, prefix, config)
    foreign, missing = sorted(saved.keys() - own.keys()), sorted(own.keys() - saved.keys())
    if foreign or missing:
        described = [f'holds `{prefix}{key}`' for key in foreign[:1]]
        described += [f'lacks `{prefix}{key}`' for key in missing[:1]]
        raise ValueError(
            f'the checkpoint {" and ".join(described)}: it was written by a quantizer of another '
            f'type than {config.type!r}, or with other settings; take the config that the '
            'checkpoint was trained with, or a float checkpoint'
        )
    for key, tensor in own.items():
        if saved[key].shape != tensor.shape:
            raise ValueError(
                f'checkpoint key `{prefix}{key}` has the shape {tuple(saved[key].shape)}, but the '
                f'config asks for {tuple(tensor.shape)}: take the `granularity` that the '
                'checkpoint was trained with, or a float checkpoint'
            )


def _check_levels(saved: Mapping[str, Tensor], prefix: str, config: QuantizerConfig) -> None:
    """Check the levels, but for rounding.

    MMEngine's SyncBuffersHook takes the average of all processes' levels, and a third of the sum of
    three equal numbers may differ from them in the last bit.
    """
    if 'levels' not in saved:
        return
    found = tuple(saved['levels'].flatten().tolist())
    if not any(_are_close(found, own) for own in _known_sets(config)):
        raise ValueError(
            f'checkpoint key `{prefix}levels` holds {span(found)}, but the config quantizes to '
            f'{span(config.levels)}: take the config that the checkpoint was trained with, or a '
            'float checkpoint'
        )


def _known_sets(config: QuantizerConfig) -> list[tuple[float, ...]]:
    return [levels for signed in (False, True) for levels in config.level_sets(signed)]


def _are_close(found: Sequence[float], levels: Sequence[float]) -> bool:
    return len(found) == len(levels) and all(
        math.isclose(a, b, rel_tol=1e-5) for a, b in zip(found, levels, strict=True)
    )
