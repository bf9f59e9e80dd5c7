"""From a graph with quantize and dequantize nodes to a ``.pte`` file."""

import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmqnet.export.executorch.program import ExecuTorchProgram
from mmqnet.export.packages import require
from mmqnet.export.qdq.target import Converted, Run, Target, conversion_error, count
from mmqnet.export.quiet import quiet

_OUTSIDE = 'outside XNNPACK'


class ExecuTorch(Target):
    """ExecuTorch; what XNNPACK takes is computed there."""

    name = 'ExecuTorch'
    codes = True

    def convert(
        self, module: GraphModule, example: Sequence[Tensor], metadata: Mapping[str, str]
    ) -> Converted:
        """Convert a graph."""
        require('executorch.exir', extra='executorch')
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        with quiet():
            program = torch.export.export(module, tuple(example))
            try:
                edge = to_edge_transform_and_lower(
                    program, partitioner=[XnnpackPartitioner()], constant_methods=dict(metadata)
                )
                content = bytes(edge.to_executorch().buffer)
            except Exception as error:  # its passes raise plain ones
                raise conversion_error(self.name, error) from error
        return Converted(content, _operators(edge.exported_program().graph_module))

    def load(self, content: bytes) -> Run:
        """Return what runs a file."""
        program = ExecuTorchProgram(content)

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            return [torch.from_numpy(y) for y in program.run([x.numpy() for x in inputs])]

        return run


def _operators(module: GraphModule) -> dict[str, dict[str, int]]:
    """Count operators by where they run and the type of their first input."""
    found = []
    for node in module.graph.nodes:
        if node.op == 'get_attr':
            lowered = getattr(module, str(node.target))
            graph = lowered.original_module.graph_module.graph
            found += [(_name(n), _type(n)) for n in graph.nodes if _counts(n)]
        elif _counts(node) and 'call_delegate' not in str(node.target):
            found.append((_name(node), _OUTSIDE))
    return count(found)


def _counts(node: Node) -> bool:
    is_call = node.op == 'call_function' and node.target is not operator.getitem
    return is_call and 'quantize_per' not in str(node.target)


def _name(node: Node) -> str:
    return getattr(node.target, '__name__', str(node.target)).removeprefix('aten.').split('.')[0]


def _type(node: Node) -> str:
    first = node.args[0] if node.args else None
    source = first[0] if isinstance(first, list | tuple) and first else first
    is_integer = isinstance(source, Node) and 'dequantize' in str(source.target)
    return 'int8' if is_integer else 'float32'
