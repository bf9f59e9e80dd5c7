"""A second node for a layer whose output is quantized in two ways.

ONNX Runtime computes a convolution in integers if one rounding reads it. Computed twice, once for
each rounding, it takes less time than once in float (docs/performance.md), and the codes are the
same. OpenVINO, which needs no twin, makes one node of both again: for that they have one bias.
"""

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.activations import Functions, is_codes
from mmqnet.export.onnx.graph import is_op
from mmqnet.export.onnx.layers import QuantizedNode
from mmqnet.export.onnx.lower import form_of

TWIN = '.twin'  # behind the name of the layer
_WAYS = 2  # with more, without VNNI, float is faster


def add_twins(
    layers: Iterable[QuantizedNode], functions: Functions, thresholds: str
) -> list[QuantizedNode]:
    """Return the layers with a twin behind each convolution that two roundings alone read.

    Args:
        layers: Of a graph whose codes have been moved up and not been written yet.
        functions: The functions of activations.
        thresholds: As :func:`mmqnet.export.onnx.export_onnx` takes them.
    """
    found = []
    for layer in layers:
        value = layer.node.outputs[0]
        readers = list(dict.fromkeys(graphs.readers(value)))
        if (
            is_op(layer.node, 'Conv')
            and layer.weights.fits_int8
            and len(readers) == _WAYS
            and not value.is_graph_output()
            and all(_is_rounding(node, functions, thresholds) for node in readers)
        ):
            layer = replace(layer, is_twofold=True)
            found.append(_twin(layer, readers[1]))
        found.append(layer)
    return found


def _is_rounding(node: ir.Node, functions: Functions, thresholds: str) -> bool:
    """Whether a node rounds what it reads, without a shift that would go into the bias."""
    if not is_codes(node) or form_of(functions.of(node), thresholds) != 'rounding':
        return False
    rounding = functions.of(node).rounding
    return rounding is not None and not rounding.shift


def _twin(layer: QuantizedNode, reader: ir.Node) -> QuantizedNode:
    """Insert a copy of a convolution, and let ``reader`` read that."""
    node, old = layer.node, layer.node.outputs[0]
    assert layer.weights.integers is not None
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    # it says nothing new, but ONNX Runtime makes one node of two that are alike
    if attributes.pop('kernel_shape', None) is None:
        attributes['kernel_shape'] = layer.weights.integers.shape[2:]
    value = graphs.add_node(node, node.op_type, node.inputs, f'{node.name}{TWIN}', attributes)
    value.shape, value.type = old.shape, old.type
    reader.replace_input_with(0, value)
    twin = value.producer()
    assert twin is not None
    return replace(layer, node=twin)
