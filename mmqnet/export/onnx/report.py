"""What an export did, as data and as a table."""

import json
from dataclasses import asdict, dataclass

from mmqnet.export.tables import render

# Sums of two products in 16 bits: the instruction of CPUs without VNNI, which saturates.
LARGEST_PAIR = 2**15 - 1
SATURATION_FLAG = 'session.x64quantprecision'


def largest_safe_weight(largest_code: int) -> int:
    """Return the largest weight of 8 bits with which no sum of two products saturates.

    Example:
        >>> largest_safe_weight(255), largest_safe_weight(15)
        (64, 127)
    """
    return min(127, LARGEST_PAIR // (2 * max(largest_code, 1)))


@dataclass(frozen=True)
class ExportedLayer:
    """A layer in the file.

    Attributes:
        name: Name of the module and of the node.
        kind: The ONNX operator.
        weights: Type in which the weights are stored: ``'int4'``, ``'int8'`` or ``'float'``.
        weight_bits: What one code takes.
        largest_weight: The largest magnitude of an integer weight.
        codes: How its input becomes codes: ``'rounding'``, ``'chain'``, ``'tree'``, ``'grid'``, or
            ``'float'`` for an input in float.
        largest_code: The largest code of its input.
        reason: Why no runtime can be expected to compute it in integers; empty if it can.
        rounded: Whether its weights have been rounded to fewer bits, so that nothing saturates.
    """

    name: str
    kind: str
    weights: str
    weight_bits: int
    largest_weight: int
    codes: str
    largest_code: int
    reason: str
    rounded: bool = False

    @property
    def can_saturate(self) -> bool:
        """Whether two products may exceed 16 bits, so that CPUs without VNNI saturate."""
        return 2 * self.largest_weight * self.largest_code > LARGEST_PAIR


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        path: The file.
        num_bytes: Its size, with that of external data.
        layers: The layers with quantized weights, in the order of the graph.
        changed_codes: For each activation whose thresholds were moved to a grid, by its name, the
            estimated share of changed codes.
        warnings: What the user should know.
        external_data: File with the weights, if the model is too large for one file; else None.
    """

    path: str
    num_bytes: int
    layers: tuple[ExportedLayer, ...]
    changed_codes: dict[str, float]
    warnings: tuple[str, ...]
    external_data: str | None = None

    @property
    def integer_layers(self) -> tuple[ExportedLayer, ...]:
        """The layers that a runtime can be expected to compute in integers."""
        return tuple(layer for layer in self.layers if not layer.reason)

    def table(self) -> str:
        """Return the report as text."""
        headings = ('layer', 'operator', 'weights', 'input', 'in float since')
        rows = [
            (layer.name, layer.kind, layer.weights, layer.codes, layer.reason)
            for layer in self.layers
        ]
        caption = (
            f'{self.path}: {self.num_bytes / 2**20:.2f} MiB; {len(self.integer_layers)} of '
            f'{len(self.layers)} quantized layers in integers'
        )
        return render('Export', headings, rows, [caption, *self.warnings])

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2)
