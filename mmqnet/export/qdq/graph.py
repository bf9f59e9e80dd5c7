"""Graphs of ``torch.export``, and small tools for them, which the passes share."""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

from mmqnet.export.quiet import quiet

aten = torch.ops.aten
HARD_QUANTIZE = torch.ops.mmqnet.hard_quantize.default
LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)
TRANSPOSED = aten.conv_transpose2d.input  # written in float
NORM = aten._native_batch_norm_legit_no_training.default
CLIPS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default)
# What moves numbers, or chooses some: of the codes as of the values, which are in the same order.
CHOICES = (
    aten.alias.default, aten.cat.default, aten.clone.default, aten.flatten.using_ints,
    aten.max_pool2d.default, aten.permute.default, aten.pixel_shuffle.default,
    aten.reshape.default, aten.slice.Tensor, aten.squeeze.dims, aten.transpose.int,
    aten.unsqueeze.default, aten.upsample_nearest2d.vec, aten.view.default,
)  # fmt: skip


def traced(module: nn.Module, example: Sequence[Tensor]) -> GraphModule:
    """Return the graph of a module, in which each quantizer is one node; it returns a tuple.

    Args:
        module: As :func:`mmqnet.export.freeze.frozen` returns it.
        example: Its inputs, whose sizes are fixed.

    Raises:
        ValueError: If it cannot be traced, or takes no such inputs.
    """
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, tuple(example)).run_decompositions({})
    except Exception as error:  # torch has no common class for what it cannot trace
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f'{type(module).__name__} cannot be traced by torch: {reason}') from error
    made = program.module()
    graph_module = GraphModule(made, made.graph)  # torch's own class cannot be set to evaluation
    for node in list(graph_module.graph.nodes):
        if node.op == 'call_module':  # the guards of sizes: an error here is one of the example
            graph_module.graph.erase_node(node)
    graph_module.graph.set_codegen(CodeGen())  # arguments and outputs as they stand in the graph
    return graph_module.eval()


def is_call(node: Any, *targets: Callable) -> bool:
    """Whether something is a node that calls one of these operators."""
    return isinstance(node, Node) and node.op == 'call_function' and node.target in targets


def constant(node: Any) -> Tensor | None:
    """Return the parameter or buffer that a node stands for, or None if it is computed."""
    if not isinstance(node, Node) or node.op != 'get_attr':
        return None
    value: Any = node.graph.owning_module
    for part in str(node.target).split('.'):
        value = getattr(value, part)
    return value.detach()


def add_constant(before: Node, name: str, value: Tensor) -> Node:
    """Insert a buffer under a new name that begins with ``name``."""
    owner = before.graph.owning_module
    assert owner is not None
    base = name.replace('.', '_').replace('#', '_')
    free, count = base, 0
    while hasattr(owner, free):
        count += 1
        free = f'{base}_{count}'
    owner.register_buffer(free, value)
    return insert(before, before.graph.get_attr, free)


def add_call(before: Node, target: Callable, *args: Any) -> Node:
    """Insert the call of an operator; it is taken for a part of the module of ``before``."""
    return insert(before, before.graph.call_function, target, args)


def insert(before: Node, make: Callable[..., Node], *args: Any) -> Node:
    """Insert a node that a method of the graph makes."""
    with before.graph.inserting_before(before):
        node = make(*args)
    if 'nn_module_stack' in before.meta:
        node.meta['nn_module_stack'] = before.meta['nn_module_stack']
    return node


def only_user(node: Node) -> Node | None:
    """Return the node that alone reads another one, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def inputs_of(node: Node) -> list[Node]:
    """Return the nodes whose values a choice chooses from."""
    first = node.args[0]
    return list(first) if isinstance(first, list | tuple) else [first]  # type: ignore[list-item,arg-type]


def unnormalized(node: Node) -> Node:
    """Return the layer in front of a batch normalization, or the node itself."""
    if is_call(node, operator.getitem) and is_call(node.args[0], NORM):
        return node.args[0].args[0]  # type: ignore[union-attr,return-value]
    return node


def module_names(nodes: Iterable[Node], prefix: str) -> dict[Node, str]:
    """Return the name of the module that each node comes from.

    A module that runs several times gets ``#1``, ``#2``, ... behind its name from the second time
    on.

    Args:
        nodes: The nodes, in the order of the graph, of one kind.
        prefix: What is left out at the beginning of the names.
    """
    counts: dict[str, int] = {}
    names = {}
    for node in nodes:
        stack = list((node.meta.get('nn_module_stack') or {'': ('', None)}).values())
        name = stack[-1][0].removeprefix(prefix)
        count = counts[name] = counts.get(name, -1) + 1
        names[node] = f'{name}#{count}' if count else name
    return names


def tidy(graph: Graph) -> None:
    """Remove what nothing reads, and check the graph."""
    graph.eliminate_dead_code()
    graph.lint()
    owner = graph.owning_module
    assert isinstance(owner, GraphModule)
    owner.delete_all_unused_submodules()
    owner.recompile()
