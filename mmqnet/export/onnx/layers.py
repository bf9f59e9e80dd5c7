"""The layers of a graph: which run in integers, and what each gets for weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.activations import Functions
from mmqnet.export.onnx.bias import bias_of, emit_bias, fold_batch_norm, scaled_for_bias
from mmqnet.export.onnx.graph import add_constant, constant, is_op
from mmqnet.export.onnx.report import ExportedLayer, largest_safe_weight
from mmqnet.export.onnx.translate import HARD_QUANTIZE
from mmqnet.export.onnx.weights import (
    LAYERS,
    Weights,
    emit_float,
    emit_integers,
    read_weights,
)
from mmqnet.quantizers import Staircase

FLOAT_LAYERS = ('small', 'fast')
SATURATION = ('warn', 'avoid')
_IN_FLOAT = 'its output is used in float'
_FUSED_WITH_GEMM = (
    'Elu',
    'HardSigmoid',
    'LeakyRelu',
    'Relu',
    'Selu',
    'Sigmoid',
    'Softplus',
    'Tanh',
)


@dataclass(frozen=True, eq=False)
class QuantizedNode:
    """A node of the graph that multiplies by quantized weights.

    Attributes:
        node: The node, whose weights have not been written yet.
        weights: Its weights, with the normalization behind it.
        is_twofold: Whether there are two nodes for it, see :mod:`mmqnet.export.onnx.twins`.
    """

    node: ir.Node
    weights: Weights
    is_twofold: bool = False


def find_layers(graph: ir.Graph, prefix: str) -> list[QuantizedNode]:
    """Name all layers like their modules; find the quantized ones, and fold normalizations in."""
    nodes = [node for node in graph if is_op(node, *LAYERS)]
    found = []
    names = graphs.module_names(nodes, prefix, {node: _parameter_module(node) for node in nodes})
    for node, name in names.items():
        node.name = name or node.name
        weights = read_weights(node)
        if weights is not None:
            found.append(QuantizedNode(node, fold_batch_norm(node, weights)))
    return found


def _parameter_module(node: ir.Node) -> str:
    """Return the module of a float layer by its parameter: a folded norm gives the node its own."""
    value = node.inputs[1]
    name = value.name if value is not None and value.is_initializer() else None
    return name.removesuffix('.weight') if name and name.endswith('.weight') else ''


def write_layer(
    layer: QuantizedNode,
    functions: Functions,
    forms: Mapping[str, str],
    float_layers: str,
    saturation: str,
) -> ExportedLayer:
    """Write the weights of a layer into the graph, and say what became of it.

    Args:
        layer: The layer.
        functions: The functions of activations.
        forms: From the names of quantizers to how they are written.
        float_layers: What layers that no runtime computes in integers hold: ``'small'`` or
            ``'fast'``.
        saturation: Whether weights that may saturate without VNNI are rounded to fewer bits:
            ``'avoid'``; or not: ``'warn'``.
    """
    node, weights = layer.node, layer.weights
    reason = _reason(node, weights)
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    name = source.name if source is not None and source.name is not None else ''
    function = functions.by_name.get(name)
    largest_code = 0 if function is None else max(function.codes)
    largest, rounded = 0, False
    if not weights.fits_int8 or (reason and float_layers == 'fast'):
        kind = emit_float(node, weights)
    else:
        # a transposed convolution ends in float, and so does its bias
        bias = None if is_op(node, 'ConvTranspose') else bias_of(node)
        factors = np.ones(1, np.int64)
        if saturation == 'avoid':
            limit = largest_safe_weight(largest_code)
            weights, rounded = weights.at_most(limit), weights.largest > limit
        if function is not None and function.table is None and bias is not None:
            weights, factors = scaled_for_bias(weights, bias, function.scale, largest_code)
            emit_bias(node, weights, factors, function, fit=not layer.is_twofold)
        kind = emit_integers(node, weights, factors)
        largest = weights.largest * int(factors.max())
    return ExportedLayer(
        name=node.name or '',
        kind=node.op_type,
        weights=kind,
        weight_bits=weights.bits,
        largest_weight=largest,
        codes='float' if function is None else forms[name],
        largest_code=largest_code,
        reason=reason,
        rounded=rounded,
    )


def _reason(node: ir.Node, weights: Weights) -> str:
    """Return why ONNX Runtime computes a layer in float; empty if it computes with integers."""
    if weights.integers is None:
        return 'the levels of its weights are no integers'
    if not weights.fits_int8:
        return f'its weights do not fit into int8: {weights.largest}'
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if is_op(source, 'Gather') and source is not None and constant(source.inputs[0]) is not None:
        return 'the levels of its input are no integers'
    if not is_op(source, 'DequantizeLinear'):
        return 'its input is not quantized'
    if is_op(node, 'ConvTranspose'):
        return 'ONNX Runtime has no transposed convolution of integers'
    if is_op(node, 'Conv'):
        return _reason_behind(node)
    # a product may end in float, unless ONNX Runtime takes it for one with what is behind
    behind = graphs.only_reader(node.outputs[0])
    fused = is_op(node, 'Gemm') and is_op(behind, *_FUSED_WITH_GEMM)
    return _IN_FLOAT if fused else ''


def _reason_behind(node: ir.Node) -> str:
    """Return what keeps a convolution from ending in integers."""
    value = node.outputs[0]
    behind = graphs.only_reader(value)
    if behind is not None and is_op(behind, 'Relu'):
        value = behind.outputs[0]
    found = graphs.readers(value)
    if value.is_graph_output() or not all(
        is_op(n, 'QuantizeLinear', 'GreaterOrEqual') for n in found
    ):
        return _IN_FLOAT
    if any(is_op(n, 'GreaterOrEqual') for n in found):
        return 'the thresholds of its output are not those of a rounding'
    return f'its output is quantized in {len(found)} ways' if len(found) > 1 else ''


def write_other_weights(graph: ir.Graph) -> None:
    """Write weights that something else than a layer reads as the values of their codes."""
    for node in [n for n in graph if is_op(n, HARD_QUANTIZE, domain=graphs.DOMAIN)]:
        arrays = [constant(value) for value in node.inputs]
        if node.outputs[0].uses() and all(array is not None for array in arrays):
            weight, *function = (torch.from_numpy(array.copy()) for array in arrays)  # type: ignore[union-attr]
            values = Staircase(*function).quantize(weight).numpy().astype(np.float32)
            new = add_constant(graph, f'{node.inputs[0].name}.values', values)  # type: ignore[union-attr]
            graphs.replace(node.outputs[0], new)
