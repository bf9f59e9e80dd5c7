"""What a conversion did to each layer, as data and as a table."""

import io
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from mmqnet.quantizers import DEFAULT_TYPE, QuantizerConfig


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
        return render(table) + (render(self._sums_table()) if self.sums else '')

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


def render(table: Table) -> str:
    """Return a table as text."""
    out = io.StringIO()
    # as wide as the longest names need: rich cuts what does not fit
    # in a notebook rich would show the table instead of writing it
    Console(file=out, width=1000, color_system=None, force_jupyter=False).print(table)
    return out.getvalue()


def describe_quantizer(config: QuantizerConfig | None) -> str:
    """Return a short text, for example ``'7: -4..4'``, ``'LSQ, 16: 0..15'``."""
    if config is None:
        return 'float'
    levels, method = config.levels, getattr(config.type, '__name__', config.type)
    text = f'{len(levels)}: {levels[0]:g}..{levels[-1]:g}'
    if method != DEFAULT_TYPE:
        text = f'{method}, {text}'
    return f'{text}, shared' if config.is_shared else text
