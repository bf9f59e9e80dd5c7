"""Small tools for graphs of ``onnx_ir``, which the passes share."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

DOMAIN = 'mmqnet'  # of nodes that stand in a graph only between two passes
_SCOPES = 'pkg.torch.onnx.name_scopes'


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the number or tensor that a value always has, or None if it is computed."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initializer under a new name that begins with ``name``."""
    free, count = name, 0
    while free in graph.initializers:
        count += 1
        free = f'{name}_{count}'
    tensor = ir.Tensor(array.copy(order='C'), name=free)
    value = ir.Value(
        name=free,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def add_node(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    output: str,
    attributes: Mapping[str, Any] | None = None,
    domain: str = '',
) -> ir.Value:
    """Insert a node with one output and return that.

    Args:
        before: The node in front of which it is put.
        op_type: The operator.
        inputs: Its inputs.
        output: Name of the node and of its output; made unique when the graph is finished.
        attributes: Its attributes.
        domain: Domain of the operator.
    """
    node = ir.node(
        op_type,
        inputs,
        dict(attributes or {}),
        domain=domain,
        name=output,
        outputs=[ir.Value(name=output)],
    )
    graph = before.graph
    assert graph is not None
    graph.insert_before(before, node)
    return node.outputs[0]


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of a value read another one, graph outputs included."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def readers(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that read a value; one that reads it twice is there twice."""
    return [use.node for use in value.uses()]


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a value, or None: several do, or it is an output."""
    nodes = readers(value)
    return nodes[0] if len(nodes) == 1 and not value.is_graph_output() else None


def is_op(node: ir.Node | None, *op_types: str, domain: str = '') -> bool:
    """Whether a node is one of these operators."""
    return node is not None and node.domain == domain and node.op_type in op_types


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Return the value of an attribute of a node."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def module_names(
    nodes: Iterable[ir.Node], prefix: str, known: Mapping[ir.Node, str] | None = None
) -> dict[ir.Node, str]:
    """Return the name of the module that each node comes from.

    A module that runs several times, as the heads of a feature pyramid, gets ``#1``, ``#2``, ...
    behind its name from the second time on.

    Args:
        nodes: The nodes, in the order of the graph, of one kind.
        prefix: What is left out at the beginning of the names.
        known: Names that are known otherwise, by node; empty ones are not.
    """
    counts: dict[str, int] = {}
    names = {}
    for node in nodes:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))
        name = (known or {}).get(node) or (scopes[-2] if len(scopes) > 1 else '')
        name = name.removeprefix(prefix)
        count = counts[name] = counts.get(name, -1) + 1
        names[node] = f'{name}#{count}' if count else name
    return names
