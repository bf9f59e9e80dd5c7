"""A model as a file for a runtime that takes quantize and dequantize nodes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mmqnet.atomic import write_bytes
from mmqnet.export.qdq.network import QdqNetwork, quantized_network
from mmqnet.export.qdq.report import QdqReport
from mmqnet.export.qdq.target import METADATA, Target
from mmqnet.export.qdq.verify import compare_codes, compare_outputs, forced


def export_qdq(
    target: Target,
    module: nn.Module,
    example: Sequence[Tensor],
    path: str | Path,
    *,
    output_names: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> tuple[QdqReport, QdqNetwork]:
    """Write a module as a file for LiteRT or ExecuTorch.

    Args:
        target: ``LiteRT()`` or ``ExecuTorch()``.
        module: In evaluation mode; calibrated, if it is quantized. A wrapper holds the model as
            ``model``.
        example: Inputs, whose sizes are those of the file.
        path: The file, written atomically.
        output_names: Names of the outputs, which the file keeps beside ``metadata``.
        metadata: Text for the file.

    Returns:
        tuple: What became of each layer, and the graph.

    Raises:
        ImportError: If the converter is not installed.
        OSError: If the file cannot be written.
        RuntimeError: If a quantizer has not been calibrated.
        ValueError: If the module is in training mode, has a quantizer that int8 cannot express, or
            the converter refuses it.
    """
    network = quantized_network(module, example, codes=target.codes)
    names = json.dumps(list(output_names))
    text = json.dumps(dict(metadata or {}, output_names=names))
    converted = target.convert(network.module, example, {METADATA: text})
    write_bytes(path, converted.content)
    report = QdqReport(
        path=str(path),
        runtime=target.name,
        num_bytes=len(converted.content),
        layers=network.layers,
        operators=converted.operators,
    )
    return report, network


def compared(
    report: QdqReport,
    target: Target,
    network: QdqNetwork,
    module: nn.Module,
    output_names: Sequence[str],
    inputs: Sequence[Sequence[Tensor]],
) -> QdqReport:
    """Return a report with the agreement of codes and outputs, by the runtime itself.

    The codes need a second conversion: of the network cut at each quantizer.

    Args:
        report: Of the file.
        target: Its format.
        network: Its graph.
        module: The module that was exported.
        output_names: Names of its outputs.
        inputs: Batches of its inputs.
    """
    run = target.load(Path(report.path).read_bytes())
    steps = dict(zip(output_names, network.steps, strict=True))
    outputs = compare_outputs(run, module, steps, inputs)
    if not network.quantizers:
        return replace(report, outputs=tuple(outputs))
    cut = forced(network)
    arguments = [n.meta['val'].shape for n in cut.graph.nodes if n.op == 'placeholder']
    example = [torch.zeros(shape) for shape in arguments]
    try:
        run = target.load(target.convert(cut, example, {}).content)
    except ValueError as error:
        return replace(report, outputs=tuple(outputs), note=f'Codes are not compared: {error}')
    codes = compare_codes(run, network, module, inputs)
    return replace(report, codes=tuple(codes), outputs=tuple(outputs))
