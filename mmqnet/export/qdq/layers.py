"""Layers with quantized weights: integers per output channel, the normalization folded in."""

import operator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, Node

from mmqnet.export.bias import LARGEST_BIAS, LOST_BIAS, normalized
from mmqnet.export.qdq import graph as graphs
from mmqnet.export.qdq.graph import HARD_QUANTIZE, LAYERS, NORM, constant, is_call
from mmqnet.quantizers import Staircase

LARGEST = 127  # of an integer weight


@dataclass(eq=False)
class Layer:
    """A layer, ``scale * (integers * x) + bias``, before its weights are written.

    Attributes:
        node: The call.
        name: Of its module.
        integers: int16, (O, ...); None if the levels are no integers, and ``values`` hold.
        values: Weights in float64, (O, ...), without ``scale``; None if there are integers.
        scale: (O,), float64, positive where there are integers.
        bias: (O,), float64.
    """

    node: Node
    name: str
    integers: Tensor | None
    values: Tensor | None
    scale: Tensor
    bias: Tensor

    def along_channels(self, vector: Tensor) -> Tensor:
        """Return a vector (O,) in a shape that broadcasts to the weights."""
        weight = self.values if self.integers is None else self.integers
        assert weight is not None
        return vector.view(-1, *(1,) * (weight.dim() - 1))

    @property
    def largest(self) -> int:
        """The largest magnitude of an integer."""
        return 0 if self.integers is None else int(self.integers.abs().max())

    def as_float(self) -> Tensor:
        """Return the weights in float64."""
        weight = self.values if self.integers is None else self.integers.double()
        assert weight is not None
        return weight * self.along_channels(self.scale)

    def multiply_output(self, factors: Tensor) -> None:
        """Multiply weights and bias by factors (O,) of any sign."""
        self.bias = self.bias * factors
        if self.integers is None:
            self.scale = self.scale * factors
            return
        scale = self.scale * factors.abs()
        used = scale.float() > 0
        self.integers = self.integers * self.along_channels((factors.sign() * used).short())
        self.scale = torch.where(used, scale, 1.0)

    def scale_for(self, input_scale: float) -> Tensor:
        """Return the scales (O,) of the weights' int8 codes.

        A runtime rounds the bias to multiples of the product of the scales of input and weights.
        With few bits that is a good part of an output's step, so codes are as large as int8 allows.
        Where a normalization nearly switches a channel off, the bias would not fit into int32: its
        weights, which count for nothing, become 0.

        Args:
            input_scale: Of the input's codes.
        """
        assert self.integers is not None
        bias = self.bias.abs() / input_scale
        lost = bias > LARGEST_BIAS * self.scale
        if lost.any():
            self.integers = self.integers * self.along_channels((~lost).short())
            self.scale = torch.where(lost, bias / LOST_BIAS, self.scale)
        most = max(1, LARGEST // max(self.largest, 1))
        room = LARGEST_BIAS * self.scale / bias.clamp(min=1e-30)
        return self.scale / room.clamp(1, most).floor()


def read_layers(graph: Graph, prefix: str) -> dict[Node, Layer]:
    """Return the layers with quantized weights, by their nodes; normalizations are folded in."""
    nodes = [node for node in graph.nodes if is_call(node, *LAYERS)]
    found = {}
    for node, name in graphs.module_names(nodes, prefix).items():
        if is_call(node.args[1], HARD_QUANTIZE):
            found[node] = _read(node, name)
            _fold_norm(found[node])
    return found


def _read(node: Node, name: str) -> Layer:
    arrays = [constant(argument) for argument in node.args[1].args]  # type: ignore[union-attr]
    weight, levels, *rest = (array for array in arrays if array is not None)
    function = Staircase(levels, *rest)
    form, channels = function.integer_form(), weight.shape[0]
    given = constant(node.args[2]) if len(node.args) > 2 else None
    bias = torch.zeros(channels) if given is None else given
    if form is None:
        values, ones = function.quantize(weight).double(), torch.ones(channels).double()
        return Layer(node, name, None, values, ones, bias.double())
    integers = torch.tensor(form.integers, dtype=torch.int16)[function.codes(weight).long()]
    scale = form.scale.double().flatten().expand(channels).clone()
    return Layer(node, name, integers, None, scale, bias.double())


def _fold_norm(layer: Layer) -> None:
    """Take the batch normalization into a layer that it alone reads."""
    norm = graphs.only_user(layer.node)
    if norm is None or not is_call(norm, NORM):
        return
    if layer.node.meta['val'].dim() != layer.along_channels(layer.scale).dim():
        return  # of a linear layer, whose channels come last; those of a normalization are second
    arrays = [constant(argument) for argument in norm.args[1:5]]
    if any(a is None and b is not None for a, b in zip(arrays, norm.args[1:5], strict=True)):
        return  # it is computed
    gamma, beta, mean, variance = (
        torch.full_like(layer.bias, default) if array is None else array.double()
        for array, default in zip(arrays, (1, 0, 0, 1), strict=True)
    )
    epsilon = float(norm.args[6])  # type: ignore[arg-type]
    factors, bias = normalized(layer.bias, gamma, beta, mean, variance, epsilon)
    layer.multiply_output(factors)
    layer.bias = bias
    for user in list(norm.users):
        if is_call(user, operator.getitem):
            user.replace_all_uses_with(layer.node)
            layer.node.graph.erase_node(user)
    layer.node.graph.erase_node(norm)
