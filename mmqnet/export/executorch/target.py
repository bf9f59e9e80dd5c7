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
_FUSED = ('relu', 'hardtanh')  # into what is in front of them


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
            for one_by_one in (False, True):  # the latter where its partitions have cycles
                try:
                    edge = to_edge_transform_and_lower(
                        program,
                        partitioner=[XnnpackPartitioner(per_op_mode=one_by_one)],
                        constant_methods=dict(metadata),
                    )
                    content = bytes(edge.to_executorch().buffer)
                    break
                except Exception as error:  # its passes raise plain ones
                    if one_by_one:
                        raise conversion_error(self.name, error) from error
        _check_loads(content)
        return Converted(content, _operators(edge.exported_program().graph_module))

    def load(self, content: bytes) -> Run:
        """Return what runs a file."""
        program = ExecuTorchProgram(content)

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            return [torch.from_numpy(y) for y in program.run([x.numpy() for x in inputs])]

        return run


def _check_loads(content: bytes) -> None:
    """Check that the runtime takes what the converter has made of the network."""
    try:
        ExecuTorchProgram(content)
    except RuntimeError as error:
        raise ValueError(f'XNNPACK refuses the converted network: {error}') from error


def _operators(module: GraphModule) -> dict[str, dict[str, int]]:
    """Count operators by where they run and the type of their first input."""
    found = []
    for node in module.graph.nodes:
        if node.op == 'get_attr':
            lowered = getattr(module, str(node.target))
            graph = lowered.original_module.graph_module.graph
            found += [(_name(n), _type(n)) for n in graph.nodes if _counts(n)]
        elif _counts(node):
            found.append((_name(node), _OUTSIDE))
    return count(found)


def _counts(node: Node) -> bool:
    is_call = node.op == 'call_function' and node.target is not operator.getitem
    skipped = ('quantize_per', 'call_delegate', 'function alloc')
    return is_call and not any(name in str(node.target) for name in skipped)


def _name(node: Node) -> str:
    return getattr(node.target, '__name__', str(node.target)).removeprefix('aten.').split('.')[0]


def _type(node: Node) -> str:
    first = node.args[0] if node.args else None
    source = first[0] if isinstance(first, list | tuple) and first else first
    if not isinstance(source, Node):
        return 'float32'
    if _name(node) in _FUSED and source.op == 'call_function':
        return _type(source)
    return 'int8' if 'dequantize' in str(source.target) else 'float32'
