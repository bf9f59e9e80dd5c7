"""Quantized activations as codes and values.

A node ``mmqnet::Codes`` stands for a whole function from float to uint8: ``moves.py`` moves it up
in the graph, ``lower.py`` writes it in ONNX.
"""

import numpy as np
import onnx_ir as ir
import torch

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.functions import CodeFunction
from mmqnet.export.onnx.graph import add_constant, add_node, attribute, constant, is_op
from mmqnet.export.onnx.translate import HARD_QUANTIZE
from mmqnet.quantizers import Staircase

CODES = 'Codes'
FUNCTION = 'function'
_SUFFIX = '.codes'


class Functions(list[CodeFunction]):
    """The functions of a graph; a ``Codes`` node holds the number of its own.

    Attributes:
        by_name: The function of each quantizer of activations, by its name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, CodeFunction] = {}

    def number(self, function: CodeFunction) -> int:
        """Return the number of a function, a new one if need be."""
        if function not in self:
            self.append(function)
        return self.index(function)

    def of(self, node: ir.Node) -> CodeFunction:
        """Return the function of a ``Codes`` node."""
        return self[attribute(node, FUNCTION, 0)]


def is_codes(node: ir.Node | None) -> bool:
    """Whether a node is a ``Codes`` node."""
    return is_op(node, CODES, domain=graphs.DOMAIN)


def quantizer_of(node: ir.Node) -> str:
    """Return the name of the quantizer that a ``Codes`` node is of, however it was moved."""
    return (node.name or '').removesuffix(_SUFFIX)


def split(graph: ir.Graph, functions: Functions, prefix: str) -> None:
    """Replace each quantizer of activations by codes and values.

    The DequantizeLinear, or the Gather of the table, gets the name of the quantizer.

    Raises:
        ValueError: If a function is not constant.
    """
    nodes = [n for n in graph if is_op(n, HARD_QUANTIZE, domain=graphs.DOMAIN)]
    nodes = [node for node in nodes if constant(node.inputs[0]) is None]
    for node, name in graphs.module_names(nodes, prefix).items():
        arrays = [constant(value) for value in node.inputs[1:]]
        if any(array is None for array in arrays):
            raise ValueError(f'the quantizer {name!r} is no constant function')
        tensors = [torch.from_numpy(array.copy()) for array in arrays]  # type: ignore[union-attr]
        function = functions.by_name[name] = CodeFunction.of(Staircase(*tensors))
        codes = add_codes(node, node.inputs[0], functions.number(function), f'{name}{_SUFFIX}')
        graphs.replace(node.outputs[0], _values(node, codes, function, name))
        graph.remove(node, safe=True)


def add_codes(before: ir.Node, x: ir.Value | None, number: int, name: str) -> ir.Value:
    """Insert a ``Codes`` node and return the codes."""
    codes = add_node(before, CODES, [x], name, {FUNCTION: number}, graphs.DOMAIN)
    codes.dtype = ir.DataType.UINT8
    if x is not None:
        codes.shape = x.shape
    return codes


def _values(before: ir.Node, codes: ir.Value, function: CodeFunction, name: str) -> ir.Value:
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    old = before.outputs[0]
    if function.table is None:
        scale = add_constant(graph, f'{name}.scale', np.array(function.scale, np.float32))
        zero = add_constant(graph, f'{name}.zero_point', np.array(function.zero_point, np.uint8))
        value = add_node(before, 'DequantizeLinear', [codes, scale, zero], name)
    else:
        table = add_constant(graph, f'{name}.table', np.array(function.table, np.float32))
        index = add_node(before, 'Cast', [codes], f'{name}.index', dict(to=ir.DataType.INT32))
        value = add_node(before, 'Gather', [table, index], name)
    value.shape, value.type = old.shape, old.type
    return value
