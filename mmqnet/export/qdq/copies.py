"""A copy of what computes a value for each quantizer that reads it.

An operator of integers ends in one scale, so a value that two quantizers read would be computed in
float, and converters fail on some. Sums cost next to nothing, and a layer in int8 is cheaper twice
than once in float.
"""

from torch.fx import Graph, Node

from mmqnet.export.qdq import graph as graphs
from mmqnet.export.qdq.graph import CHOICES, CLIPS, HARD_QUANTIZE, LAYERS, aten, is_call

COPY = 'mmqnet_copy'  # in a node's meta: the number of the copy


def is_quantizer(node: object) -> bool:
    """Whether a node is a quantizer of activations."""
    return is_call(node, HARD_QUANTIZE) and graphs.constant(node.args[0]) is None  # type: ignore[attr-defined]


def copy_for_each_quantizer(graph: Graph) -> None:
    """Let each value that is only quantized be read by one quantizer.

    Quantizers of the same function of the same value become one.
    """
    for node in list(graph.nodes):
        if not node.users or not all(map(is_quantizer, node.users)):
            continue
        _, *others = _merged(list(node.users))
        for number, quantizer in enumerate(others if _can_be_copied(node) else (), 1):
            with graph.inserting_before(quantizer):
                quantizer.replace_input_with(node, _copied(node, number))


def _merged(quantizers: list[Node]) -> list[Node]:
    """Return one quantizer for each function."""
    found: dict[tuple, Node] = {}
    for node in quantizers:
        arrays = [graphs.constant(argument) for argument in node.args[1:]]
        key = tuple(tuple(a.flatten().tolist()) for a in arrays if a is not None)
        if key in found:
            node.replace_all_uses_with(found[key])
            node.graph.erase_node(node)
        else:
            found[key] = node
    return list(found.values())


def _can_be_copied(node: Node) -> bool:
    """Whether a layer or a sum of integers computes a value."""
    while True:
        node = graphs.unnormalized(node)
        if is_call(node, *LAYERS):
            return is_call(node.args[1], HARD_QUANTIZE)
        if is_call(node, aten.add.Tensor):
            return all(map(is_quantizer, node.args))
        if not is_call(node, *CLIPS, *CHOICES) or is_call(node, aten.cat.default):
            return False
        node = node.args[0]  # type: ignore[assignment]
        if graphs.only_user(node) is None:
            return False


def _copied(node: Node, number: int) -> Node:
    """Insert copies of a value's nodes down to the layer or sum that computes it."""
    is_end = is_call(node, *LAYERS, aten.add.Tensor)
    source = None if is_end else _copied(node.args[0], number)  # type: ignore[arg-type]
    copy = node.graph.node_copy(node)
    copy.meta[COPY] = number
    if source is not None:
        copy.args = (source, *node.args[1:])
    return copy
