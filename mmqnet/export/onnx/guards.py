"""What keeps a runtime from changing a layer that the file leaves in float.

ONNX Runtime quantizes the float weights and the bias of a convolution, transposed convolution or
Gemm that stands between DequantizeLinear and QuantizeLinear, to 8 bits by their largest value
(its pass WeightBiasQuantization): weights whose levels are no integers, weights that are not
quantized, and everything it has no kernel for, would be others than the model's.
"""

import numpy as np
import onnx_ir as ir

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.graph import add_constant, add_node, is_op

_LOWEST = np.float32(np.finfo(np.float32).min)


def guard_float_layers(graph: ir.Graph) -> None:
    """Put a Max, which changes nothing, between the layers in float and their QuantizeLinear."""
    for node in [n for n in graph if is_op(n, 'Conv', 'ConvTranspose', 'Gemm')]:
        output, weight = node.outputs[0], node.inputs[1]
        readers = [n for n in graphs.readers(output) if is_op(n, 'QuantizeLinear')]
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        in_float = weight is not None and weight.is_initializer()
        if not readers or not is_op(source, 'DequantizeLinear'):
            continue
        if in_float or is_op(node, 'ConvTranspose'):
            lowest = add_constant(graph, f'{node.name}.lowest', _LOWEST)
            value = add_node(readers[0], 'Max', [output, lowest], f'{node.name}.in_float')
            value.shape, value.type = output.shape, output.type
            for reader in readers:
                reader.replace_input_with(0, value)
