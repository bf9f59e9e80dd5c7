"""Layers of integers: Conv or MatMul, one Mul by the scales, one Add of what is constant."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.bias import bias_of, norm_behind
from mmqnet.export.onnx.graph import add_constant, add_node, is_op
from mmqnet.export.onnx.weights import LAYERS, Weights, emit_float, read_weights
from mmqnet.export.qonnx.activations import Codes, data_type


@dataclass(frozen=True)
class QonnxLayer:
    """One run of a layer with quantized weights.

    Attributes:
        name: Name of its module; ``#1`` and so on behind it if it runs several times.
        weights: Type of its weights, for example ``'INT4'``; ``'FLOAT32'`` if they are no integers.
        inputs: Type of its input.
        reason: Why it does not multiply integers by integers; empty if it does.
    """

    name: str
    weights: str
    inputs: str
    reason: str


def write_layers(
    graph: ir.Graph, codes: Mapping[ir.Value, Codes], types: dict[ir.Value, str], prefix: str
) -> list[QonnxLayer]:
    """Give the layers with quantized weights integers, and return what became of them.

    Args:
        graph: Changed in place.
        codes: Integers of quantized activations.
        types: The data types of values are read and added.
        prefix: What is left out at the beginning of names.
    """
    nodes = [node for node in graph if is_op(node, *LAYERS)]
    layers = []
    for node, name in graphs.module_names(nodes, prefix).items():
        weights = read_weights(node)
        if weights is None:
            continue
        if weights.integers is None:
            emit_float(node, weights)
            reason = 'the levels of its weights are no integers'
            layers.append(QonnxLayer(name, 'FLOAT32', 'FLOAT32', reason))
            continue
        source = codes.get(node.inputs[0])  # type: ignore[arg-type]
        kind = _write(node, weights, source, name, types)
        inputs = 'FLOAT32' if source is None else types[source.integers]
        layers.append(QonnxLayer(name, kind, inputs, '' if source else 'its input is in float'))
    return layers


def _write(
    node: ir.Node, weights: Weights, source: Codes | None, name: str, types: dict[ir.Value, str]
) -> str:
    """Write the layer anew behind itself, and return the type of its weights."""
    graph, integers = node.graph, weights.integers
    assert isinstance(graph, ir.Graph)
    assert integers is not None
    kind = _type_of(weights)
    is_conv = is_op(node, 'Conv', 'ConvTranspose')
    if not is_conv and weights.axis == 0:
        integers = integers.T
    key = f'{name.partition("#")[0]}.weight'
    initializer = graph.initializers.get(key)
    if initializer is None:  # else the layer has run before
        initializer = add_constant(graph, key, integers.astype(np.float32))
        types[initializer] = kind
    reads = node.inputs[0] if source is None else source.integers
    attributes = node.attributes if is_conv else None
    op_type = node.op_type if is_conv else 'MatMul'
    value = add_node(node, op_type, [reads, initializer], f'{name}.sums', attributes)
    scale = weights.scale
    if is_op(node, 'ConvTranspose') and len(scale) > 1:  # those of one group
        scale = np.tile(scale, graphs.attribute(node, 'group', 1))
    last, factors, shift = _affine(node, scale * (1.0 if source is None else source.scale))
    axes = (-1, *(1,) * (integers.ndim - 2)) if is_conv else (-1,)
    for op, number, key in (('Mul', factors, 'scale'), ('Add', shift, 'bias')):
        if key == 'bias' and not number.any():
            continue
        shaped = number.reshape(axes if number.size > 1 else ())
        operand = add_constant(graph, f'{name}.{key}', shaped.astype(np.float32))
        value = add_node(node, op, [value, operand], f'{name}.{key}d')
    value.shape, value.type = last.outputs[0].shape, last.outputs[0].type
    graphs.replace(last.outputs[0], value)
    graph.remove(list(dict.fromkeys([last, node])), safe=True)
    return kind


def _type_of(weights: Weights) -> str:
    """Return qonnx's name of the type of a set of weights, also where not all levels occur."""
    assert weights.integers is not None
    if weights.bits == 1 and (np.abs(weights.integers) == 1).all():
        return 'BIPOLAR'
    if weights.bits == 2 and weights.largest <= 1:
        return 'TERNARY'
    integers, half = weights.integers, 2 ** (weights.bits - 1)
    return data_type((min(-half, int(integers.min())), max(half - 1, int(integers.max()))))


def _affine(node: ir.Node, scale: np.ndarray) -> tuple[ir.Node, np.ndarray, np.ndarray]:
    """Return the last node that is a constant function of the layer's sums, and that function.

    It is ``factors * sums + shift``: scales, bias, and the normalization if it alone reads them.
    """
    found = norm_behind(node)
    if found is not None:
        norm, factors, shift = found
        return norm, scale * factors, shift
    bias = bias_of(node)
    assert bias is not None  # of layers: their parameters are constants
    return node, scale, bias
