"""Moving ``Codes`` up through what they commute with exactly.

So that they come to stand behind layers, where runtimes take layer and quantization as one, and
pools and concatenations run on uint8.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.activations import FUNCTION, Functions, add_codes, is_codes
from mmqnet.export.onnx.graph import add_node, attribute, constant, is_op

# What moves numbers, or chooses some: of the codes as of the values, which are in the same order.
_CHOOSES = {
    'DepthToSpace', 'Flatten', 'Gather', 'Identity', 'MaxPool', 'Reshape', 'Slice', 'SpaceToDepth',
    'Squeeze', 'Transpose', 'Unsqueeze',
}  # fmt: skip

_Rule = Callable[[ir.Node, ir.Node, Functions], ir.Value]


def move_up(graph: ir.Graph, functions: Functions) -> None:
    """Move codes up as far as they go; the same codes of the same values are computed once."""
    waiting = [node for node in graph if is_codes(node)]
    while waiting:
        node = waiting.pop(0)
        if node.graph is None:
            continue  # merged into another one
        _merge_others_into(node)
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        rule = _rule(producer)
        if producer is None or rule is None or not _is_read_as_codes_only(producer):
            continue
        new = rule(node, producer, functions)
        graphs.replace(node.outputs[0], new)
        graph.remove(node, safe=True)
        if not producer.outputs[0].uses():
            graph.remove(producer, safe=True)
        maker = new.producer()
        waiting += [n for n in _codes_before(maker) if n not in waiting]
    graph.sort()


def _merge_others_into(node: ir.Node) -> None:
    value, graph = node.inputs[0], node.graph
    assert value is not None
    assert isinstance(graph, ir.Graph)
    for other in dict.fromkeys(graphs.readers(value)):
        same = attribute(other, FUNCTION, None) == attribute(node, FUNCTION, 0)
        if other is not node and is_codes(other) and same:
            graphs.replace(other.outputs[0], node.outputs[0])
            graph.remove(other, safe=True)


def _is_read_as_codes_only(node: ir.Node) -> bool:
    """Whether nothing reads a node's output as float; else moving up would only add work."""
    value = node.outputs[0]
    others = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    return not others and not value.is_graph_output() and all(map(is_codes, graphs.readers(value)))


def _codes_before(node: ir.Node | None) -> list[ir.Node]:
    if node is None:
        return []
    if is_codes(node):
        return [node]
    makers = [value.producer() for value in node.inputs if value is not None]
    return [maker for maker in makers if maker is not None and is_codes(maker)]


def _rule(node: ir.Node | None) -> _Rule | None:
    """Return the rule for moving codes above a node, or None if they do not commute."""
    if node is None or node.domain:
        return None
    if node.op_type in _CHOOSES:
        return _above_choice
    if node.op_type == 'Concat':
        return _above_concat
    if node.op_type == 'Resize' and attribute(node, 'mode', 'nearest') == 'nearest':
        crops = attribute(node, 'coordinate_transformation_mode', '') == 'tf_crop_and_resize'
        return None if crops else _above_choice
    bounds = _bounds(node)
    return None if bounds is None else _above_clip


def _bounds(node: ir.Node) -> tuple[float | None, float | None] | None:
    """Return what a node clips its input to, or None if it does something else."""
    if is_op(node, 'Relu'):
        return 0.0, None
    if not is_op(node, 'Clip'):
        return None
    found: list[float | None] = [None, None]
    for i, value in enumerate(node.inputs[1:3]):
        if value is not None:
            bound = constant(value)
            if bound is None:
                return None
            found[i] = float(np.float32(bound))
    return found[0], found[1]


def _above_clip(node: ir.Node, clip: ir.Node, functions: Functions) -> ir.Value:
    bounds = _bounds(clip)
    assert bounds is not None
    function = functions.of(node).narrowed(*bounds)
    return add_codes(clip, clip.inputs[0], functions.number(function), _name(node))


def _above_choice(node: ir.Node, choice: ir.Node, functions: Functions) -> ir.Value:
    codes = add_codes(choice, choice.inputs[0], attribute(node, FUNCTION, 0), _name(node))
    return _again(node, choice, [codes, *choice.inputs[1:]])


def _above_concat(node: ir.Node, concat: ir.Node, functions: Functions) -> ir.Value:
    number = attribute(node, FUNCTION, 0)
    return _again(node, concat, [add_codes(concat, x, number, _name(node)) for x in concat.inputs])


def _again(node: ir.Node, old: ir.Node, inputs: list[ir.Value | None]) -> ir.Value:
    """Insert a node like ``old`` that works on codes."""
    name = f'{_name(node)}.{old.op_type}'
    value = add_node(
        old, old.op_type, inputs, name, {k: a.value for k, a in old.attributes.items()}
    )
    value.shape, value.dtype = old.outputs[0].shape, ir.DataType.UINT8
    return value


def _name(node: ir.Node) -> str:
    return node.name or ''
