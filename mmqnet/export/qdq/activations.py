"""Quantizers of activations as pairs of a quantize and a dequantize node.

An int8 tensor has one scale, a quantizer has two: 1/beta for x and alpha for the values. Their
ratio goes into the layers that compute x, else into the layers that read the values; for other
readers the values are multiplied by it, which keeps the codes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch.fx import Graph, Node

from mmqnet.export.qdq import graph as graphs
from mmqnet.export.qdq.copies import COPY, is_quantizer
from mmqnet.export.qdq.functions import HIGHEST, LOWEST, Int8Function
from mmqnet.export.qdq.graph import (
    CHOICES,
    CLIPS,
    add_call,
    add_constant,
    aten,
    constant,
    is_call,
)
from mmqnet.export.qdq.layers import Layer
from mmqnet.quantizers import Staircase

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_SAME = 1e-7  # of a ratio to 1: less than float32 tells apart
_ALMOST = 1e-6  # beside 1


class Quantized(NamedTuple):
    """A quantizer of the graph.

    Attributes:
        function: Its codes.
        node: Name of the node that gives its values, in the scale of x.
    """

    function: Int8Function
    node: str


def write_activations(
    graph: Graph, layers: Mapping[Node, Layer], prefix: str, codes: bool
) -> dict[str, Quantized]:
    """Write all quantizers of activations, and put their ratios where they belong.

    Args:
        graph: Changed in place.
        layers: The layers with quantized weights; ratios are multiplied into them.
        prefix: What is left out at the beginning of names.
        codes: Whether constants are int8 codes; otherwise floats that are quantized exactly.

    Returns:
        dict[str, Quantized]: What became of each quantizer, by its name.

    Raises:
        ValueError: If a function cannot be written as int8.
    """
    nodes = [node for node in graph.nodes if is_quantizer(node)]
    found = {}
    for node, name in graphs.module_names(nodes, prefix).items():
        arrays = [constant(argument) for argument in node.args[1:]]
        function = Int8Function.of(Staircase(*arrays), name)  # type: ignore[arg-type]
        sources = _sources(node.args[0], layers)
        if sources:
            for layer in sources:
                layer.multiply_output(torch.full_like(layer.scale, function.ratio))
            function = function.with_scale(function.value_scale)
        value = _quantized(node, node.args[0], function, codes)  # type: ignore[arg-type]
        found[name] = Quantized(function, value.name)
        node.replace_all_uses_with(value)
        graph.erase_node(node)
        if abs(function.ratio - 1) > _SAME:
            _multiply_readers(value, function, layers, codes)
    return found


def _sources(x: object, layers: Mapping[Node, Layer]) -> list[Layer]:
    """Return the layers that compute a value alone and for it alone; none if others do too."""
    if not isinstance(x, Node) or graphs.only_user(x) is None:
        return []
    if x in layers:
        return [layers[x]]
    if not is_call(x, aten.relu.default, *CHOICES):
        return []
    found = [_sources(source, layers) for source in dict.fromkeys(graphs.inputs_of(x))]
    return [layer for part in found for layer in part] if all(found) else []


def _quantized(before: Node, x: Node, function: Int8Function, codes: bool) -> Node:
    """Insert the codes of a value and return what they stand for.

    The value is quantized in front of pools and of what else commutes with it, too, so that all of
    it works on int8.
    """
    clipped = is_call(x, aten.relu.default) and is_call(x.args[0], *CHOICES)
    if (clipped or is_call(x, *CHOICES)) and graphs.only_user(x) is not None:
        for source in dict.fromkeys(graphs.inputs_of(x)):
            x.replace_input_with(source, _quantized(x, source, function, codes))
        return _pair(before, x, function)
    if is_call(x, DEQUANTIZE):  # LiteRT's converter takes no codes of codes, and merges products
        others = sum(is_call(user, aten.mul.Tensor) for user in x.users)
        x = _product(before, x, 1 + others * _ALMOST, codes)
    if function.starts_at_zero and function.low > LOWEST and not is_call(x, *CLIPS[:2]):
        x = _like(x, add_call(before, aten.relu.default, x))
    elif function.low > LOWEST and not function.starts_at_zero:
        least = function.scale * (function.low - function.zero_point)
        pair = _pair(before, x, function)
        x = _like(x, add_call(before, aten.clamp.default, pair, least))
    return _pair(before, x, function)


def _pair(before: Node, x: Node, function: Int8Function) -> Node:
    settings = (function.scale, function.zero_point, LOWEST, HIGHEST, torch.int8)
    codes = add_call(before, QUANTIZE, x, *settings)
    value = add_call(before, DEQUANTIZE, codes, *settings)
    return _like(x, value)


def _like(x: Node, node: Node) -> Node:
    """Note that a new node has the shape of x."""
    node.meta['val'] = x.meta['val']
    return node


def _multiply_readers(
    value: Node, function: Int8Function, layers: Mapping[Node, Layer], codes: bool
) -> None:
    """Let the readers of a value have it in its right scale."""
    others = []
    for reader in list(value.users):
        layer = layers.get(reader)
        if layer is None or reader.args[0] is not value:
            others.append(reader)
        else:
            layer.scale = layer.scale * function.ratio
    if others:
        exact = _multiplied(value.next, value, function.ratio, codes)
        for reader in others:
            reader.replace_input_with(value, exact)


def _multiplied(before: Node, value: Node, factor: float, codes: bool) -> Node:
    """Insert a product that has the codes of ``value``, in a scale that is larger by a factor.

    Args:
        before: Where.
        value: A dequantized value.
        factor: The factor.
        codes: Whether the constant is an int8 code; otherwise a float that is quantized exactly.
    """
    scale, zero_point = value.args[1:3]
    product = _product(before, value, factor, codes)
    scale = scale * factor  # type: ignore[operator]
    return _pair(before, product, Int8Function(scale, scale, zero_point, LOWEST))  # type: ignore[arg-type]


def _product(before: Node, value: Node, factor: float, codes: bool) -> Node:
    """Insert a product that is not quantized yet, with arguments as of ``_multiplied``."""
    shape, settings = (1,) * value.meta['val'].dim(), (0, LOWEST, HIGHEST, torch.int8)
    step = factor / HIGHEST
    if codes:
        constant_node = add_constant(before, 'ratio', torch.full(shape, HIGHEST, dtype=torch.int8))
    else:
        constant_node = add_constant(before, 'ratio', torch.full(shape, factor))
        constant_node = add_call(before, QUANTIZE, constant_node, step, *settings)
    operand = add_call(before, DEQUANTIZE, constant_node, step, *settings)
    return _like(value, add_call(before, aten.mul.Tensor, value, operand))


def tell_sums_apart(graph: Graph, codes: bool) -> None:
    """Let the copies of a sum differ, since LiteRT's converter would merge them again.

    One operand is multiplied by almost 1, which keeps its codes.
    """
    for node in [n for n in graph.nodes if is_call(n, aten.add.Tensor) and COPY in n.meta]:
        first, second = node.args
        if is_call(first, DEQUANTIZE) and is_call(second, DEQUANTIZE):
            factor = 1 + node.meta[COPY] * _ALMOST
            node.args = (first, _multiplied(node, second, factor, codes))
