"""What a conversion did to each layer, as data and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from mmqnet.quantizers import DEFAULT_TYPE, QuantizerConfig
from mmqnet.tables import as_text


@dataclass(frozen=True)
class LayerReport:
    """One layer of the model.

    Attributes:
        name: Dotted module name.
        kind: Class name of the float layer.
        weight: Levels of its weights, for example ``'7: -4..4'``, with ``', shared'`` where all
            layers have one function; or ``'float'``.
        activation: Levels of its input, or ``'float'``.
        reason: Why it was left in float; empty if it was not.
        num_weights: Number of weights.
        weight_bits: Bits that one weight takes.
        output: Levels of its output, or ``'float'``.
    """

    name: str
    kind: str
    weight: str
    activation: str
    reason: str
    num_weights: int
    weight_bits: int
    output: str = 'float'

    @property
    def weight_bytes(self) -> float:
        """Return the bytes of the packed weights."""
        return self.num_weights * self.weight_bits / 8


@dataclass(frozen=True)
class SumReport:
    """A module that adds integers.

    Attributes:
        name: Dotted module name of a residual block or an FPN.
        kind: Its class name.
        quantizers: Names of the quantizers within it that were added for its sums.
        levels: Their levels, for example ``'256: 0..255'``; signed operands get signed ones.
    """

    name: str
    kind: str
    quantizers: tuple[str, ...]
    levels: str


@dataclass(frozen=True)
class QuantizationReport:
    """What a conversion did, layer by layer, in the order of registration.

    Attributes:
        layers: The layers that multiply by weights.
        sums: The modules whose sums are between integers.
    """

    layers: tuple[LayerReport, ...]
    sums: tuple[SumReport, ...] = ()

    @property
    def quantized(self) -> tuple[LayerReport, ...]:
        """The layers that have a quantizer."""
        return tuple(layer for layer in self.layers if not layer.reason)

    @property
    def skipped(self) -> tuple[LayerReport, ...]:
        """The layers that were left in float."""
        return tuple(layer for layer in self.layers if layer.reason)

    def weight_bytes(self, prefix: str = '') -> float:
        """Return the bytes of the packed weights of layers whose names start with ``prefix``."""
        return sum(layer.weight_bytes for layer in self.layers if layer.name.startswith(prefix))

    def float_weight_bytes(self, prefix: str = '') -> float:
        """Return the bytes of the same weights in float32."""
        return sum(
            4.0 * layer.num_weights for layer in self.layers if layer.name.startswith(prefix)
        )

    def table(self) -> str:
        """Return the report as text."""
        table = Table(title='Quantization', title_justify='left')
        for heading in (
            'layer',
            'class',
            'weights',
            'weight levels',
            'input levels',
            *(['output levels'] if self._has_outputs else []),
            'in float as',
        ):
            table.add_column(heading, justify='right' if heading == 'weights' else 'left')
        for layer in self.layers:
            table.add_row(
                layer.name,
                layer.kind,
                f'{layer.num_weights:,}',
                layer.weight,
                layer.activation,
                *([layer.output] if self._has_outputs else []),
                layer.reason,
            )
        table.caption = (
            f'{len(self.quantized)} of {len(self.layers)} layers quantized; weights '
            f'{self.weight_bytes() / 2**20:.2f} MiB instead of '
            f'{self.float_weight_bytes() / 2**20:.2f} MiB'
        )
        table.caption_justify = 'left'
        return as_text(table) + (as_text(self._sums_table()) if self.sums else '')

    @property
    def _has_outputs(self) -> bool:
        return any(layer.output != 'float' for layer in self.layers)

    def _sums_table(self) -> Table:
        table = Table(title='Sums of integers', title_justify='left')
        for heading in ('module', 'class', 'levels', 'quantizers'):
            table.add_column(heading)
        for sums in self.sums:
            table.add_row(sums.name, sums.kind, sums.levels, ', '.join(sums.quantizers))
        return table


def describe_quantizer(config: QuantizerConfig | None, levels: Sequence[float] = ()) -> str:
    """Return a short text, for example ``'7: -4..4'``, ``'LSQ, 16: 0..15'``.

    Args:
        config: None for float.
        levels: Of the quantizer, which calibration may have changed. Default: the config's.
    """
    if config is None:
        return 'float'
    levels = levels or config.levels
    text = f'{len(levels)}: {levels[0]:g}..{levels[-1]:g}'
    if config.type_name != DEFAULT_TYPE:
        text = f'{config.type_name}, {text}'
    return f'{text}, shared' if config.is_shared else text
