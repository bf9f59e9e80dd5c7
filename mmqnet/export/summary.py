"""The closing table of an export, and the same as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from mmqnet.export.agreement import CodeAgreement, codes_table
from mmqnet.export.onnx.integer_layers import LayerPrecision
from mmqnet.export.onnx.report import ExportReport
from mmqnet.export.tables import render
from mmqnet.export.verify_metrics import MetricAgreement
from mmqnet.export.verify_outputs import OutputAgreement

_QUANTIZED = 'not quantized'


@dataclass(frozen=True)
class LayerSummary:
    """A layer of the exported file.

    Attributes:
        name: Name of the module.
        kind: The ONNX operator.
        weights: Type of the weights in the file.
        input: How the codes of its input are computed, or ``'float'``.
        onnxruntime: ``'integer'`` or ``'float'``.
        openvino: Type in which OpenVINO computes it; empty if OpenVINO is not installed.
        reason: Why ONNX Runtime computes it in float; empty if it does not.
    """

    name: str
    kind: str
    weights: str
    input: str
    onnxruntime: str
    openvino: str
    reason: str


@dataclass(frozen=True)
class ExportSummary:
    """What was exported, how runtimes execute it, and how it agrees with the model.

    Attributes:
        report: What the exporter did.
        layers: All layers, in the order of the graph.
        agreement: How the codes agree; empty if they were not compared.
        outputs: How the results agree, if they were compared.
        metrics: How the metrics agree; empty if they were not compared.
    """

    report: ExportReport
    layers: tuple[LayerSummary, ...]
    agreement: tuple[CodeAgreement, ...] = ()
    outputs: OutputAgreement | None = None
    metrics: tuple[MetricAgreement, ...] = ()

    @classmethod
    def of(
        cls,
        report: ExportReport,
        precisions: Sequence[LayerPrecision],
        model: nn.Module,
        agreement: Sequence[CodeAgreement] = (),
        outputs: OutputAgreement | None = None,
        metrics: Sequence[MetricAgreement] = (),
    ) -> 'ExportSummary':
        """Join what is known of an export.

        Args:
            report: Of :func:`mmqnet.export.onnx.export_onnx`.
            precisions: Of :func:`mmqnet.export.onnx.count_integer_layers`.
            model: The model, whose ``quantization_report`` says why layers were left in float.
            agreement: Of :func:`mmqnet.export.verify.compare_codes`.
            outputs: Of :func:`mmqnet.export.verify_outputs.compare_outputs`.
            metrics: Of :func:`mmqnet.export.verify_metrics.compare_metrics`.
        """
        exported = {layer.name: layer for layer in report.layers}
        skipped = getattr(getattr(model, 'quantization_report', None), 'skipped', ())
        reasons = {layer.name: layer.reason for layer in skipped}
        layers = []
        for found in precisions:
            layer = exported.get(found.name)
            reason = layer.reason if layer else reasons.get(found.name, _QUANTIZED)
            if layer and not reason and not found.onnxruntime:
                reason = 'ONNX Runtime does not take the pattern'
            layers.append(
                LayerSummary(
                    name=found.name,
                    kind=found.kind,
                    weights=layer.weights if layer else 'float',
                    input=layer.codes if layer else 'float',
                    onnxruntime='integer' if found.onnxruntime else 'float',
                    openvino=found.openvino,
                    reason='' if found.onnxruntime else reason,
                )
            )
        return cls(report, tuple(layers), tuple(agreement), outputs, tuple(metrics))

    def table(self) -> str:
        """Return the summary as text."""
        headings = ('layer', 'operator', 'weights', 'input', 'ONNX Runtime', 'OpenVINO', 'reason')
        rows = [tuple(asdict(layer).values()) for layer in self.layers]
        integer = sum(layer.onnxruntime == 'integer' for layer in self.layers)
        openvino = sum(layer.openvino in ('u8', 'i8') for layer in self.layers)
        size = f'{self.report.num_bytes / 2**20:.2f} MiB'
        notes = [
            f'{self.report.path}: {size}; of {len(self.layers)} layers {integer} run in integers '
            f'in ONNX Runtime, {openvino} in OpenVINO',
            *(f'{name}: {changed:.2%} of the codes change by the grid, as an estimate'
              for name, changed in self.report.changed_codes.items()),
            *(f'Warning: {warning}' for warning in self.report.warnings),
        ]  # fmt: skip
        parts = [render('Layers', headings, rows, notes)]
        if self.agreement:
            parts.append(codes_table(self.agreement, 'Codes', 4))
        if self.outputs is not None:
            found = self.outputs
            parts.append(
                f'{found.matched} of {found.count} {found.what} matched ({found.share:.2%})'
            )
        if self.metrics:
            first = self.metrics[0]
            parts.append(
                f'{first.name} on {first.pictures} pictures: {first.model:.4g} in torch, '
                f'{first.file:.4g} in the file (difference {first.difference:.2g})'
            )
        return '\n'.join(parts)

    def as_json(self) -> str:
        """Return the summary as JSON."""
        values: dict[str, Any] = asdict(self)
        values['report'].pop('layers')
        for item, agreement in zip(values['agreement'], self.agreement, strict=True):
            item.update(equal=agreement.equal, equal_but_ties=agreement.equal_but_ties)
        for item, metric in zip(values['metrics'], self.metrics, strict=True):
            item.update(difference=metric.difference)
        return json.dumps(values, indent=2)
