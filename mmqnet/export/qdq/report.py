"""What became of a network, as data and as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmqnet.export.agreement import CodeAgreement, codes_table
from mmqnet.export.qdq.network import QdqLayer
from mmqnet.export.qdq.verify import OutputCodes
from mmqnet.export.tables import render


@dataclass(frozen=True)
class QdqReport:
    """What an export did.

    Attributes:
        path: The file.
        runtime: Name of the runtime.
        num_bytes: Size of the file.
        layers: Layers and sums, in the order of the graph.
        operators: How many operators of each kind and type the file holds, as its own reader
            says, for example ``{'CONV_2D': {'int8': 24}}``.
        codes: How the codes of each quantizer agree with the model's; empty if not compared.
        outputs: How the outputs agree with the model's; empty if not compared.
        note: Why codes were not compared, though that was asked for; else empty.
    """

    path: str
    runtime: str
    num_bytes: int
    layers: tuple[QdqLayer, ...]
    operators: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    codes: Sequence[CodeAgreement] = ()
    outputs: Sequence[OutputCodes] = ()
    note: str = ''

    @property
    def integer_layers(self) -> tuple[QdqLayer, ...]:
        """The layers and sums that the runtime can compute in integers."""
        return tuple(layer for layer in self.layers if not layer.reason)

    def table(self) -> str:
        """Return the report as text."""
        rows = [tuple(asdict(layer).values()) for layer in self.layers]
        notes = [
            f'{self.path}: {self.num_bytes / 2**20:.2f} MiB; {len(self.integer_layers)} of '
            f'{len(self.layers)} layers and sums written in integers for {self.runtime}',
            'Operators of the file: ' + '; '.join(map(_operator, self.operators.items())),
        ]
        parts = [render('Layers', ('layer', 'kind', 'weights', 'in float since'), rows, notes)]
        if self.codes:
            parts.append(codes_table(self.codes, 'Codes, of each layer for the same input', 3))
        parts += [self.note] if self.note else []
        parts += [self._outputs()] if self.outputs else []
        return '\n'.join(parts)

    def as_json(self) -> str:
        """Return the report as JSON."""
        values: dict[str, Any] = asdict(self)
        for item, agreement in zip(values['codes'], self.codes, strict=True):
            item.update(equal=agreement.equal, equal_but_ties=agreement.equal_but_ties)
        for item, output in zip(values['outputs'], self.outputs, strict=True):
            item.update(equal=output.equal, mean_difference=output.mean_difference)
        return json.dumps(values, indent=2)

    def _outputs(self) -> str:
        rows = [
            (a.name, str(a.count), f'{a.equal:.2%}', f'{a.mean_difference:.2%}')
            for a in self.outputs
        ]
        headings = ('output', 'values', 'equal codes', 'mean difference')
        note = 'Mean difference: of the values, over their mean magnitude.'
        return render('Outputs, from the picture on', headings, rows, [note])


def _operator(item: tuple[str, Mapping[str, int]]) -> str:
    name, counts = item
    return f'{name} ' + ', '.join(f'{count} {kind}' for kind, count in counts.items())
