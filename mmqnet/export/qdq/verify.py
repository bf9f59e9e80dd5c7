"""Agreement of a runtime with the model: quantizer by quantizer, and at the outputs."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from mmqnet.export.agreement import CodeAgreement, inputs_of_quantizers
from mmqnet.export.freeze import frozen
from mmqnet.export.qdq import graph as graphs
from mmqnet.export.qdq.activations import DEQUANTIZE, QUANTIZE
from mmqnet.export.qdq.graph import add_call
from mmqnet.export.qdq.network import QdqNetwork
from mmqnet.export.qdq.target import Run

_HALF = 0.5  # of a step: what is nearer has the same code


@dataclass
class OutputCodes:
    """How one output agrees, all differences of the layers before it added up.

    Attributes:
        name: Name of the output.
        step: Between two codes; 0 for an output that is not quantized, whose values are compared.
        count: How many values were compared.
        same: How many have the same code.
        difference: Sum of the magnitudes of the differences.
        magnitude: Sum of the magnitudes of the model's values.
    """

    name: str
    step: float
    count: int = 0
    same: int = 0
    difference: float = 0.0
    magnitude: float = 0.0

    @property
    def equal(self) -> float:
        """The share of equal codes."""
        return self.same / max(self.count, 1)

    @property
    def mean_difference(self) -> float:
        """The mean difference over the mean magnitude."""
        return self.difference / max(self.magnitude, 1e-30)

    def add(self, wanted: Tensor, got: Tensor) -> None:
        """Compare two tensors of one shape."""
        distance = (wanted - got).abs()
        self.count += wanted.numel()
        self.same += int((distance <= _HALF * self.step).sum())
        self.difference += float(distance.sum())
        self.magnitude += float(wanted.abs().sum())


@torch.no_grad()
def compare_outputs(
    run: Run, module: nn.Module, steps: dict[str, float], inputs: Iterable[Sequence[Tensor]]
) -> list[OutputCodes]:
    """Compare the outputs of a runtime with those of the hard model.

    Args:
        run: Returns a runtime's outputs for inputs.
        module: In evaluation mode, with the same outputs.
        steps: From the names of the outputs, in order, to the distance of two codes, or 0.
        inputs: Batches of the module's inputs.
    """
    found = [OutputCodes(name, step) for name, step in steps.items()]
    for batch in inputs:
        wanted = module(*batch)
        wanted = [wanted] if isinstance(wanted, Tensor) else wanted
        for output, values, got in zip(found, wanted, run(batch), strict=True):
            output.add(values, got)
    return found


def forced(network: QdqNetwork) -> GraphModule:
    """Return a network each of whose quantizers hands on what it is given instead of its values.

    So what a runtime computes between two quantizers is compared alone. Further arguments are the
    values of the quantizers, in their order; outputs are the quantizers' own.
    """
    graph_module = copy.deepcopy(network.module)
    graph = graph_module.graph
    by_name = {node.name: node for node in graph.nodes}
    values = [by_name[quantizer.node] for quantizer in network.quantizers.values()]
    last = [node for node in graph.nodes if node.op == 'placeholder'][-1]
    for i, value in reversed(list(enumerate(values))):
        with graph.inserting_after(last):
            given = graph.placeholder(f'given_{i}')
        given.meta['val'] = value.meta['val']
        before, settings = value.next, value.args[1:]
        for reader in list(value.users):  # a pair for each: LiteRT fails on shared ones
            codes = add_call(before, QUANTIZE, given, *settings)
            reader.replace_input_with(value, add_call(before, DEQUANTIZE, codes, *settings))
    output = next(node for node in reversed(graph.nodes) if node.op == 'output')
    output.args = (tuple(values),)
    graphs.tidy(graph)
    return graph_module


@torch.no_grad()
def compare_codes(
    run: Run, network: QdqNetwork, module: nn.Module, inputs: Iterable[Sequence[Tensor]]
) -> list[CodeAgreement]:
    """Compare the codes of all quantizers of activations with the model's.

    Args:
        run: Runs :func:`forced` of the network.
        network: Of the module.
        module: In evaluation mode.
        inputs: Batches of its inputs.

    Returns:
        list[CodeAgreement]: In the order of the graph.
    """
    model = frozen(module)
    found = {name: CodeAgreement(name) for name in network.quantizers}
    for batch in inputs:
        seen = inputs_of_quantizers(model, batch)
        results = run([*batch, *given_values(network, seen)])
        for (name, quantizer), values in zip(network.quantizers.items(), results, strict=True):
            x, staircase = seen[name]
            function = quantizer.function
            codes = (values / function.scale).round() + function.zero_point - function.low
            found[name].add(codes.int(), x, staircase)
    return list(found.values())


def given_values(network: QdqNetwork, seen: dict) -> list[Tensor]:
    """Return the values of the quantizers of a network for what they read."""
    values = []
    for name, (function, _) in network.quantizers.items():
        x, staircase = seen[name]
        values.append(function.scale * (staircase.codes(x) + (function.low - function.zero_point)))
    return values
