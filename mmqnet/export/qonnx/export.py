"""From a model to a QONNX file.

Each quantizer of activations is a MultiThreshold, each quantized layer a Conv or MatMul of integers
with one Mul by the scales behind it, and one Add for bias and normalization.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.inference_cost import inference_cost
from torch import Tensor, nn

from mmqnet.atomic import write_bytes
from mmqnet.export.agreement import PREFIX
from mmqnet.export.freeze import frozen
from mmqnet.export.onnx.layers import write_other_weights
from mmqnet.export.onnx.translate import translate
from mmqnet.export.qonnx.activations import DOMAIN, write_activations
from mmqnet.export.qonnx.layers import QonnxLayer, write_layers
from mmqnet.export.tables import render
from mmqnet.version import __version__

_OPSET = 18  # the first that torch writes without converting


@dataclass(frozen=True)
class QonnxReport:
    """What a QONNX file holds.

    Attributes:
        layers: The layers with quantized weights, each time that they run.
        file_bytes: Size of the file.
        cost: Of one picture, by qonnx: multiplications by types (``'op_mac_UINT4_INT4'``), weights
            by type (``'mem_w_INT4'``), ``'total_mem_w_bits'``, ``'total_macs'``, ``'total_bops'``.
            A layer that runs several times counts as several.
    """

    layers: tuple[QonnxLayer, ...]
    file_bytes: int
    cost: dict[str, float]

    def table(self) -> str:
        """Return the report as text."""
        rows = [(x.name, x.weights, x.inputs, x.reason) for x in self.layers]
        integers = sum(not layer.reason for layer in self.layers)
        macs = {k.removeprefix('op_mac_'): v for k, v in self.cost.items() if k.startswith('op_')}
        notes = [
            f'{self.file_bytes / 2**20:.2f} MiB; {integers} of {len(self.layers)} quantized layers '
            f'in integers; weights of {self.cost["total_mem_w_bits"] / 8 / 2**20:.2f} MiB',
            *(f'{count / 1e6:,.1f} million products {kind}' for kind, count in macs.items()),
        ]
        return render('Layers', ('layer', 'weights', 'input', 'in float as'), rows, notes)

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2)


class _Network(nn.Module):
    """A model from a normalized image to what its head computes, before boxes are decoded.

    Of a two-stage detector, to the outputs of the RPN's head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, model.training

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        if getattr(model, 'with_rpn', False):
            outputs = model.rpn_head(model.extract_feat(x))
        elif hasattr(model, 'data_preprocessor'):
            outputs = model(x, mode='tensor')
        else:
            outputs = model(x)
        return tuple(_tensors(outputs))


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, list | tuple):
        for output in outputs:
            yield from _tensors(output)


def write_qonnx(
    model: nn.Module,
    shape: Sequence[int],
    path: str | Path,
    output_names: Sequence[str] | None = None,
) -> QonnxReport:
    """Write the backbone, neck and head of a model in integers, as QONNX.

    The input ``input`` is a normalized image, (1, 3, H, W). There is no decoding of boxes and no
    NMS. What the file holds is executed by ``qonnx.core.onnx_exec.execute_onnx``.

    Args:
        model: A detector, a classifier or any module, in evaluation mode, calibrated.
        shape: Of the input, (1, 3, H, W).
        path: The file, written atomically.
        output_names: Names of all outputs of the head, in order. Default ``output_0``, ...

    Raises:
        OSError: If the file cannot be written.
        RuntimeError: If a quantizer has not been calibrated.
        ValueError: If the model is in training mode, cannot be expressed in ONNX or takes no such
            input, or the file would be larger than 2 GiB.
    """
    network, example = frozen(_Network(model)), torch.zeros(*shape)
    names = output_names or _output_names(network, example)
    program = translate(network, [example], ['input'], names, dynamic_batch=False, opset=_OPSET)
    graph = program.graph
    types: dict[ir.Value, str] = {}
    codes = write_activations(graph, types, PREFIX)
    layers = write_layers(graph, codes, types, PREFIX)
    write_other_weights(graph)
    for value, name in zip(graph.outputs, names, strict=True):
        value.name = name  # those that were written anew have other names
    _tidy(program)
    annotated = _annotated(program, types)
    write_bytes(path, _serialized(annotated.model))
    return QonnxReport(tuple(layers), Path(path).stat().st_size, _cost(annotated))


def _output_names(network: nn.Module, example: Tensor) -> list[str]:
    try:
        with torch.no_grad():
            outputs = network(example)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'the model takes no input of {tuple(example.shape)}: {reason}') from error
    return [f'output_{i}' for i in range(len(outputs))]


def _tidy(program: ir.Model) -> None:
    """Remove what is left over, and torch's notes, which hold paths of this machine."""
    program.graph.sort()
    program.opset_imports[DOMAIN] = 1
    ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    )(program)
    for value in [*program.graph.inputs, *(v for n in program.graph for v in n.outputs)]:
        value.metadata_props.clear()
    program.producer_name, program.producer_version = 'mmqnet', __version__
    program.metadata_props.clear()


def _annotated(program: ir.Model, types: dict[ir.Value, str]) -> ModelWrapper:
    """Return qonnx's model with the data types of all tensors."""
    model = ModelWrapper(ir.to_proto(program))
    known = set(model.get_all_tensor_names())
    for value, name in types.items():
        if value.name in known:
            model.set_tensor_datatype(value.name, DataType[name])
    return model.transform(InferShapes()).transform(InferDataTypes())


def _serialized(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model)
    try:
        return model.SerializeToString()
    except ValueError as error:
        raise ValueError('the QONNX file would be larger than 2 GiB') from error


def _cost(model: ModelWrapper) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        cost = inference_cost(model, discount_sparsity=False)['total_cost']
    return {key: value for key, value in cost.items() if isinstance(value, float)}
