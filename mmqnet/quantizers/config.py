"""Config of one quantizer: the dict of a config file, checked where it is made, and frozen."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from typing_extensions import Self

from mmqnet.checks import check_choice, check_keys, did_you_mean
from mmqnet.quantizers.level_sets import (
    integer_ranges,
    resolve_levels,
    signed_counterpart,
)

ROLES = ('weight', 'activation')
DEFAULT_TYPE = 'QuantizationNetwork'
_SIGNED_NAMES = ('auto', 'symmetric')
Method = str | type  # the name of a registered class, or a class


def of_role(role: str, default: Any) -> Any:
    """Return a dataclass field for a key that only one role has."""
    return field(default=default, metadata=dict(role=role))


@dataclass(frozen=True)
class QuantizerConfig:
    """What all methods have in common. A method with more keys subclasses it.

    Attributes:
        levels: The n + 1 levels Y, see :func:`resolve_levels`. Weights take signed ones.
        role: ``'weight'`` or ``'activation'`` (the input of a layer); not a key of config files,
            where it follows from the place.
        type: The method: name of a class in ``mmqnet.registry.QUANTIZERS``, or the class itself.
        granularity: ``'layer'`` (default: one alpha and beta a layer), ``'channel'`` (weights only:
            one of each an output channel) or ``'model'`` (one function for all layers together; if
            one of them has a signed input, all get the levels for signed inputs).
        signed_levels: Activations only: what an input gets that is seen to be signed at
            calibration: ``'auto'`` (default) for as many integers ``-m..n-m`` with the m of the
            least squared error; ``'symmetric'`` for as many on both sides of 0; a set with as many
            levels; or None to leave such an input in float. ``levels`` that start below 0 serve
            such inputs too and replace a name or None, which an override may have from the common
            config.
        key: Where the dict is in the config file, for messages.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range, or has no effect for the role.
    """

    # Given as lists, they fit one set of levels only: an override with others leaves them out.
    depends_on_levels: ClassVar[tuple[str, ...]] = ('signed_levels',)
    # Whether weights of one bit become odd integers, not int8's, where they are given more bits.
    has_odd_levels: ClassVar[bool] = False

    levels: tuple[float, ...]
    role: str = 'weight'
    type: Method = DEFAULT_TYPE
    granularity: str = 'layer'
    signed_levels: str | tuple[float, ...] | None = of_role('activation', 'auto')
    key: str = field(default='', compare=False, repr=False)

    def __post_init__(self) -> None:
        check_choice(self.role, ROLES, self.name('role'))
        for item in dataclasses.fields(self):
            owner = item.metadata.get('role', self.role)
            if owner != self.role and getattr(self, item.name) != item.default:
                raise ValueError(
                    f'`{self.name(item.name)}` is a key of quantizers of {owner}s, but got '
                    f'{getattr(self, item.name)!r} for {self.role}s'
                )
        self._set('levels', resolve_levels(self.levels, self.name('levels')))
        granularities = ('layer', 'channel', 'model') if self.is_of_weights else ('layer', 'model')
        check_choice(self.granularity, granularities, self.name('granularity'))
        if self.is_of_weights:
            self._check_weight_levels()
        else:
            self._set('signed_levels', self._resolve_signed_levels())

    @property
    def type_name(self) -> str:
        """Name of the method, for messages."""
        return self.type if isinstance(self.type, str) else self.type.__name__

    @property
    def is_of_weights(self) -> bool:
        """Whether it is the config of a quantizer of weights."""
        return self.role == 'weight'

    @property
    def is_shared(self) -> bool:
        """Whether all layers of the model share one quantizer."""
        return self.granularity == 'model'

    @property
    def mark(self) -> str:
        """Name of a buffer by which a checkpoint tells a method without parameters from others.

        Default: none. It has the shape of the scales, which tells granularities apart.
        """
        return ''

    def level_sets(self, signed: bool) -> list[tuple[float, ...]]:
        """Return the sets of which calibration takes the one of the least squared error.

        Args:
            signed: Whether the values are signed; an empty list leaves them in float.
        """
        if self.is_of_weights or not signed:
            return [self.levels]
        if self.signed_levels is None:
            return []
        if isinstance(self.signed_levels, str):
            return self.automatic_signed_sets()
        return [self.signed_levels]

    def automatic_signed_sets(self) -> list[tuple[float, ...]]:
        """Return what the name in ``signed_levels`` stands for.

        ``'symmetric'`` is the k-bit two's complement integers, ``'auto'`` all ranges of integers.

        Raises:
            ValueError: If ``levels`` does not start at 0, or their number is odd.
        """
        if self.signed_levels == 'symmetric':
            return [signed_counterpart(self.levels)]
        return list(integer_ranges(self.levels))

    def name(self, field_name: str) -> str:
        """Return a key as messages name it, for example ``'quantization.weight.levels'``."""
        return f'{self.key}.{field_name}' if self.key else field_name

    @classmethod
    def keys(cls, role: str) -> list[str]:
        """Return the keys that a dict of this role may have in a config file."""
        fields = [f for f in dataclasses.fields(cls) if f.metadata.get('role', role) == role]
        return [f.name for f in fields if f.name not in ('role', 'key')]

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], role: str, key: str) -> Self:
        """Check the dict of a config file.

        Args:
            config: The dict.
            role: ``'weight'`` or ``'activation'``.
            key: Where it is in the config, for messages, for example ``'quantization.weight'``.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is unknown or missing, or a value is out of range.
        """
        check_keys(config, cls.keys(role), key)
        if 'levels' not in config:
            raise ValueError(f'`{key}` should name its `levels`, but got {dict(config)}')
        return cls(**config, role=role, key=key)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # it is frozen

    def _check_weight_levels(self) -> None:
        if not self.levels[0] < 0 < self.levels[-1]:
            raise ValueError(
                f'`{self.name("levels")}` should have levels below and above 0, as weights have '
                f'both signs, but got {list(self.levels)}'
            )

    def _resolve_signed_levels(self) -> str | tuple[float, ...] | None:
        signed = self.signed_levels
        is_name = isinstance(signed, str) and signed in _SIGNED_NAMES
        if self.levels[0] < 0:
            # an override has a name or None from the common config
            key, own = self.name('signed_levels'), self.levels
            if signed is not None and not is_name and resolve_levels(signed, key) != own:
                raise ValueError(
                    f"`{key}` should be 'auto' beside `levels` that are for signed inputs already, "
                    f'but got {signed!r}'
                )
            return own
        if signed is None:
            return None
        if is_name:
            self.automatic_signed_sets()
            return signed
        hint = did_you_mean(signed, _SIGNED_NAMES) if isinstance(signed, str) else ''
        if hint:
            names = ', '.join(map(repr, _SIGNED_NAMES))
            raise ValueError(
                f'`{self.name("signed_levels")}` should be {names}, a set of levels or None, but '
                f'got {signed!r}.{hint}'
            )
        levels = resolve_levels(signed, self.name('signed_levels'))
        if len(levels) != len(self.levels):
            raise ValueError(
                f'`{self.name("signed_levels")}` should hold as many levels as '
                f'`{self.name("levels")}` ({len(self.levels)}), but got {len(levels)}'
            )
        return levels
