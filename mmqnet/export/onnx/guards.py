"""What keeps a runtime from changing a layer that the file leaves in float.

ONNX Runtime quantizes the float weights and the bias of a convolution, transposed convolution or
Gemm that stands between DequantizeLinear and QuantizeLinear, to 8 bits by their largest value
(its pass WeightBiasQuantization, after it has carried these two through pools and reshapes):
weights whose levels are no integers, weights that are not quantized, and everything it has no
kernel for, would be others than the model's.
"""

import numpy as np
import onnx_ir as ir

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.graph import add_constant, is_op

_LOWEST = np.float32(np.finfo(np.float32).min)
# What ONNX Runtime carries DequantizeLinear and QuantizeLinear through, and the activations that it
# takes into the latter.
_CARRIED = (
    'Clip', 'Expand', 'Flatten', 'Gather', 'Identity', 'MaxPool', 'Pad', 'Relu', 'Reshape', 'Slice',
    'Split', 'Squeeze', 'Tile', 'Transpose', 'Unsqueeze',
)  # fmt: skip


def guard_float_layers(graph: ir.Graph) -> None:
    """Put a Max, which changes nothing, between the layers in float and their QuantizeLinear."""
    for node in [n for n in graph if is_op(n, 'Conv', 'ConvTranspose', 'Gemm')]:
        weight = node.inputs[1]
        in_float = weight is not None and weight.is_initializer()
        if not in_float and not is_op(node, 'ConvTranspose'):
            continue
        if _is_dequantized(node.inputs[0]) and _is_quantized(node.outputs[0]):
            _insert_max(graph, node)


def _is_dequantized(value: ir.Value | None) -> bool:
    source = None if value is None else value.producer()
    if is_op(source, *_CARRIED):
        return _is_dequantized(source.inputs[0])  # type: ignore[union-attr]
    return is_op(source, 'DequantizeLinear')


def _is_quantized(value: ir.Value) -> bool:
    for node in graphs.readers(value):
        if is_op(node, 'QuantizeLinear'):
            return True
        if is_op(node, *_CARRIED) and any(map(_is_quantized, node.outputs)):
            return True
    return False


def _insert_max(graph: ir.Graph, node: ir.Node) -> None:
    output, uses = node.outputs[0], list(node.outputs[0].uses())
    lowest = add_constant(graph, f'{node.name}.lowest', _LOWEST)
    value = ir.Value(name=f'{node.name}.in_float', shape=output.shape, type=output.type)
    graph.insert_after(node, ir.node('Max', [output, lowest], name=value.name, outputs=[value]))
    for use in uses:
        use.node.replace_input_with(use.idx, value)
