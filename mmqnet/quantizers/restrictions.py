"""What a method cannot quantize, refused where the config is read."""

from collections.abc import Sequence

from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.level_sets import span

_SHOWN = 8  # levels that a message spells out


def check_role(config: QuantizerConfig, role: str, instead: str) -> None:
    """Refuse a method for weights or for activations.

    Args:
        config: The config, not yet checked.
        role: The only role that the method has.
        instead: Methods for the other role, for the message.

    Raises:
        ValueError: If the config has the other role.
    """
    if config.role != role:
        raise ValueError(
            f'`{config.name("type")}` should be a method for {config.role}s, such as {instead}, '
            f'but got {config.type_name!r}, which quantizes {role}s'
        )


def check_levels(config: QuantizerConfig, allowed: Sequence[float], spelled: str) -> None:
    """Refuse other levels than the only set that a method has.

    Raises:
        ValueError: If ``levels`` is another set.
    """
    if config.levels != tuple(allowed):
        raise ValueError(
            f'`{config.name("levels")}` should be {spelled} for the method {config.type_name}, '
            f'but got {_shown(config.levels)}'
        )


def check_positive_top(config: QuantizerConfig) -> None:
    """Refuse levels that are all negative or 0, also for signed inputs.

    Raises:
        ValueError: If the largest level of a set is not positive.
    """
    for signed in (False, True):
        for levels in config.level_sets(signed):
            if levels[-1] <= 0:
                key = config.name('levels' if levels == config.levels else 'signed_levels')
                raise ValueError(f'`{key}` should have a level above 0, but got {list(levels)}')


def check_unsigned(config: QuantizerConfig) -> None:
    """Refuse levels of a method that clips its input at 0, unless they start there.

    Raises:
        ValueError: If ``levels`` starts elsewhere, or ``signed_levels`` is a set.
    """
    method = config.type_name
    if config.levels[0] != 0:
        raise ValueError(
            f'`{config.name("levels")}` should start at 0, where {method} clips, but got '
            f'{list(config.levels)}'
        )
    if config.signed_levels not in ('auto', None):
        raise ValueError(
            f"`{config.name('signed_levels')}` should be 'auto' or None, which both leave a signed "
            f'input in float, since {method} clips at 0, but got {config.signed_levels!r}'
        )


def _shown(levels: Sequence[float]) -> str:
    return str(list(levels)) if len(levels) <= _SHOWN else span(levels)
