"""The ``quantization`` dict of a config file, checked where it is made, and frozen."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmqnet.checks import check_bool, check_keys
from mmqnet.models.patterns import matches
from mmqnet.models.shared_functions import check_shared_configs
from mmqnet.quantizers import QuantizerConfig, merge_override, quantizer_config

_POSITIONS = ('first', 'last')
_KINDS = ('weight', 'activation')


class LayerQuantizers(NamedTuple):
    """The quantizers of one layer; None for float."""

    weight: QuantizerConfig | None
    activation: QuantizerConfig | None
    output: QuantizerConfig | None = None


@dataclass(frozen=True)
class QuantizationConfig:
    """What to quantize, and how.

    Attributes:
        weight: Quantizer of the weights, a dict or a config; None (default) leaves them in float.
        activation: Quantizer of the layers' inputs; None (default) leaves them in float.
        include: Patterns of the layers to quantize, see :func:`matches`. Default: all.
        exclude: Patterns of layers that stay in float, whatever ``include`` says. Default: none.
        keep_float: Which of the ``'first'`` and ``'last'`` layers of the model stay in float.
            Default: both.
        first: A dict with ``weight`` and ``activation`` (or one of them), which replace the common
            ones, key by key, in the first layers; None stands for float. With ``output``, which
            replaces the common ``activation`` key by key, the outputs are quantized too: of the
            layer, or of the ConvModule that holds it. For layers that ``keep_float`` does not name.
            Default None: they get the common ones.
        last: The same for the layers that give the predictions.
        quantize_identity: Whether a residual block adds its quantized input (True, the default, as
            in the paper's code) or the input itself, which is then quantized for the layers that
            read it. ``sums`` quantizes what is added in either case.
        sums: Quantizer of the operands of sums, in residual blocks and FPNs whose layers are all
            quantized, so that integers are added: replaces the common ``activation`` key by key.
            None (default) leaves the outputs of their branches in float.
        overrides: From pattern to a dict as for ``first``, for the layers that match. Later ones
            win.
        key: Where the dict is in the config file, for messages.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a key is unknown, a value out of range, or nothing is to be quantized.
    """

    weight: QuantizerConfig | None = None
    activation: QuantizerConfig | None = None
    include: tuple[str, ...] = ('*',)
    exclude: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = _POSITIONS
    first: Mapping[str, QuantizerConfig | None] | None = None
    last: Mapping[str, QuantizerConfig | None] | None = None
    quantize_identity: bool = True
    sums: QuantizerConfig | None = None
    overrides: Mapping[str, Mapping[str, QuantizerConfig | None]] = field(default_factory=dict)
    key: str = field(default='quantization', compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ('include', 'exclude', 'keep_float'):
            self._set(name, _strings(getattr(self, name), f'{self.key}.{name}'))
        for position in self.keep_float:
            if position not in _POSITIONS:
                raise ValueError(
                    f"`{self.key}.keep_float` should hold 'first' and 'last' only, "
                    f'but got {position!r}'
                )
        check_bool(self.quantize_identity, f'{self.key}.quantize_identity')
        common = {kind: getattr(self, kind) for kind in _KINDS}
        for kind, given in common.items():
            self._set(kind, _quantizer(given, kind, f'{self.key}.{kind}'))
        for position in _POSITIONS:
            self._set(position, self._checked_position(position, common))
        self._set('overrides', self._checked_overrides(common))
        check_shared_configs(self._all_quantizers())
        self._set('sums', self._checked_sums(common['activation']))
        if self.weight is None and self.activation is None and not self.overrides:
            raise ValueError(
                f'`{self.key}` quantizes nothing: give `{self.key}.weight`, '
                f'`{self.key}.activation` or `{self.key}.overrides`'
            )

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], key: str = 'quantization'
    ) -> 'QuantizationConfig':
        """Check the dict of a config file.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is unknown, a value out of range, or nothing is to be quantized.
        """
        names = [item.name for item in dataclasses.fields(cls) if item.name != 'key']
        check_keys(config, names, key)
        return cls(**config, key=key)

    def for_layer(
        self, name: str, positions: Collection[str] = (), without: str | None = None
    ) -> LayerQuantizers:
        """Return the quantizers of the layer ``name``.

        They are the common ones, with what its positions and then the overrides say.

        Args:
            name: Dotted name of the layer.
            positions: Those of ``'first'`` and ``'last'`` that it is. Default: none.
            without: Pattern of an override that is left out. Default: none.
        """
        chosen: dict[str, Any] = {kind: getattr(self, kind) for kind in _KINDS}
        for position in _POSITIONS:
            if position in positions:
                chosen.update(getattr(self, position) or {})
        for pattern, override in self.overrides.items():
            if pattern != without and matches(name, pattern):
                chosen.update(override)
        return LayerQuantizers(**chosen)

    def _checked_overrides(
        self, common: Mapping[str, Any]
    ) -> dict[str, dict[str, QuantizerConfig | None]]:
        key = f'{self.key}.overrides'
        if not isinstance(self.overrides, Mapping):
            raise TypeError(
                f'`{key}` should be a dict from pattern to dict, but got {self.overrides!r}'
            )
        result = {}
        for pattern, override in self.overrides.items():
            if not isinstance(pattern, str):
                raise TypeError(f'the patterns of `{key}` should be strings, but got {pattern!r}')
            result[pattern] = _merged(override, common, f'{key}[{pattern!r}]')
        return result

    def _checked_position(
        self, position: str, common: Mapping[str, Any]
    ) -> dict[str, QuantizerConfig | None] | None:
        given, key = getattr(self, position), f'{self.key}.{position}'
        if given is None:
            return None
        merged = _merged(given, common, key)
        if position in self.keep_float:
            raise ValueError(
                f'`{key}` can have no effect while `{self.key}.keep_float` holds {position!r}: '
                f'leave it out there, or drop `{key}`'
            )
        return merged

    def _checked_sums(self, common: Any) -> QuantizerConfig | None:
        key = f'{self.key}.sums'
        if self.sums is None:
            return None
        sums = _of_outputs(common, self.sums, key)
        if all(quantizer.is_of_weights for quantizer in self._all_quantizers()):
            raise ValueError(
                f"`{key}` can have no effect, as layers' inputs stay in float: give "
                f'`{self.key}.activation`, or drop `{key}`'
            )
        return sums

    def _all_quantizers(self) -> list[QuantizerConfig]:
        given = [self.weight, self.activation]
        for special in (self.first, self.last, *self.overrides.values()):
            given += [q for kind, q in (special or {}).items() if kind in _KINDS]
        return [quantizer for quantizer in given if quantizer is not None]

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # it is frozen


def _merged(special: Any, common: Mapping[str, Any], key: str) -> dict[str, QuantizerConfig | None]:
    check_keys(special, LayerQuantizers._fields, key)
    result = {
        kind: _quantizer(merge_override(common[kind], special[kind]), kind, f'{key}.{kind}')
        for kind in _KINDS
        if kind in special
    }
    if 'output' in special:
        result['output'] = _of_outputs(common['activation'], special['output'], f'{key}.output')
    return result


def _of_outputs(common: Any, given: Any, key: str) -> QuantizerConfig | None:
    """Return the quantizer of outputs, which has the common settings of inputs."""
    quantizer = _quantizer(merge_override(common, given), 'activation', key)
    if quantizer is not None and quantizer.is_shared:
        raise ValueError(
            f"`{key}.granularity` should be 'layer', as outputs do not share the function of "
            f"layers' inputs, but got {quantizer.granularity!r}"
        )
    return quantizer


def _quantizer(config: Any, role: str, key: str) -> QuantizerConfig | None:
    return None if config is None else quantizer_config(config, role, key)


def _strings(value: Any, key: str) -> tuple[str, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(item, str) for item in value):
        raise TypeError(f'`{key}` should be a list of strings, but got {value!r}')
    return tuple(value)
