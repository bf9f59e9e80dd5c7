"""From a model to a graph of int8 quantize and dequantize nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from mmqnet.export.agreement import PREFIX
from mmqnet.export.freeze import frozen
from mmqnet.export.qdq import graph as graphs
from mmqnet.export.qdq.activations import (
    DEQUANTIZE,
    QUANTIZE,
    Quantized,
    tell_sums_apart,
    write_activations,
)
from mmqnet.export.qdq.copies import COPY, copy_for_each_quantizer, is_quantizer
from mmqnet.export.qdq.graph import CLIPS, LAYERS, add_call, add_constant, aten, is_call
from mmqnet.export.qdq.layers import LARGEST, Layer, read_layers

_OPS = torch.ops.quantized_decomposed
_IN_FLOAT = 'its output is used in float'


@dataclass(frozen=True)
class QdqLayer:
    """A layer or a sum.

    Attributes:
        name: Name of its module.
        kind: ``'conv2d'``, ``'conv_transpose2d'``, ``'linear'`` or ``'add'``.
        weights: ``'int8'``, ``'float'``, or ``''`` for a sum.
        reason: Why it cannot be computed in integers; empty if it can.
    """

    name: str
    kind: str
    weights: str
    reason: str


@dataclass(frozen=True, eq=False)
class QdqNetwork:
    """A network that converters read.

    Attributes:
        module: The graph; it returns a tuple of outputs.
        quantizers: The quantizers of activations, by their names.
        layers: What is computed in integers, in the order of the graph.
        steps: The distance of two codes of each output, 0 where it is not quantized.
    """

    module: GraphModule
    quantizers: Mapping[str, Quantized]
    layers: tuple[QdqLayer, ...]
    steps: tuple[float, ...]


@torch.no_grad()
def quantized_network(
    module: nn.Module, example: Sequence[Tensor], *, codes: bool = False
) -> QdqNetwork:
    """Return the graph of a module whose integers are between quantize and dequantize nodes.

    Args:
        module: In evaluation mode; calibrated, if it is quantized. A wrapper holds the model as
            ``model``, which names leave out.
        example: Inputs, whose sizes are those of the graph.
        codes: Whether weights are int8 constants; otherwise floats that are quantized exactly.

    Raises:
        RuntimeError: If a quantizer has not been calibrated.
        ValueError: If the module is in training mode, cannot be traced, or has a quantizer that
            int8 cannot express.

    Example:
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantConv2d
        >>> integers = dict(weight_quantizer=dict(levels='pm4'),
        ...                 input_quantizer=dict(levels='uint8', thresholds='uniform'))
        >>> model = nn.Sequential(QuantConv2d(3, 8, 3, **integers), nn.ReLU(),
        ...                       QuantConv2d(8, 8, 3, **integers)).eval()
        >>> x = torch.rand(1, 3, 8, 8)
        >>> _ = calibrate(model, [x], model)
        >>> network = quantized_network(model.eval(), [x])
        >>> [layer.reason for layer in network.layers]
        ['', 'its output is used in float']
        >>> bool((network.module(x)[0] - model(x)).abs().max() < 0.1)
        True
    """
    graph_module = graphs.traced(frozen(module), example)
    graph = graph_module.graph
    copy_for_each_quantizer(graph)
    layers = read_layers(graph, PREFIX)
    quantizers = write_activations(graph, layers, PREFIX, codes)
    tell_sums_apart(graph, codes)
    written = [_write_layer(layer, codes) for layer in layers.values()]
    in_float = _float_layers(graph, layers)
    _write_other_weights(graph)
    sums = _sums(graph)
    if codes:
        _keep_sums_in_float(graph)
    graphs.tidy(graph)
    return QdqNetwork(
        graph_module,
        quantizers,
        (*written, *in_float, *sums),
        tuple(_step(output) for output in _outputs(graph)),
    )


def _write_layer(layer: Layer, codes: bool) -> QdqLayer:
    """Write weights and bias of a layer, and say what became of it."""
    node, reason = layer.node, _reason(layer)
    if reason:
        weight = add_constant(node, f'{layer.name}.weight', layer.as_float().float())
    else:
        weight = _integer_weight(layer, codes)
    bias = layer.bias.float()
    for _ in range(node.meta.get(COPY, 0)):  # else LiteRT's converter merges copies again
        bias = torch.nextafter(bias, torch.tensor(torch.inf))
    shift = add_constant(node, f'{layer.name}.bias', bias)
    node.args = (node.args[0], weight, shift, *node.args[3:])
    return QdqLayer(layer.name, _kind(node), 'float' if reason else 'int8', reason)


def _integer_weight(layer: Layer, codes: bool) -> Node:
    """Insert the weights as int8 with a scale for each output channel."""
    node, name = layer.node, layer.name
    scale = layer.scale_for(node.args[0].args[1])  # type: ignore[arg-type,union-attr]
    scales = add_constant(node, f'{name}.scale', scale.float())
    zeros = add_constant(node, f'{name}.zero_point', torch.zeros(len(scale), dtype=torch.int64))
    settings = (scales, zeros, 0, -LARGEST, LARGEST, torch.int8)
    integers = (layer.as_float() / layer.along_channels(scale)).round()
    if codes:
        weight = add_constant(node, f'{name}.weight', integers.to(torch.int8))
    else:
        exact = (integers * layer.along_channels(scale.float())).float()
        values = add_constant(node, f'{name}.weight', exact)
        weight = add_call(node, _OPS.quantize_per_channel.default, values, *settings)
    return add_call(node, _OPS.dequantize_per_channel.default, weight, *settings)


def _reason(layer: Layer) -> str:
    """Return why a layer is computed in float; empty if it is computed in integers."""
    if layer.integers is None:
        return 'the levels of its weights are no integers'
    if layer.largest > LARGEST:
        return f'its weights do not fit into int8: {layer.largest}'
    if not is_call(layer.node.args[0], DEQUANTIZE):
        return 'its input is not quantized'
    return _reason_behind(layer.node)


def _reason_behind(node: Node) -> str:
    """Return what keeps a layer or a sum from ending in integers."""
    reader = graphs.only_user(node)
    if reader is not None and is_call(reader, *CLIPS):
        reader = graphs.only_user(reader)
    if reader is not None and is_call(reader, QUANTIZE):
        return ''
    users = list(node.users)
    several = len(users) > 1 and all(is_call(user, QUANTIZE) for user in users)
    return f'its output is quantized in {len(users)} ways' if several else _IN_FLOAT


def _float_layers(graph: Graph, layers: Mapping[Node, Layer]) -> list[QdqLayer]:
    """Return the layers that are left as they are, before their weights are written."""
    nodes = [n for n in graph.nodes if is_call(n, *LAYERS, graphs.TRANSPOSED) and n not in layers]
    found = []
    for node, name in graphs.module_names(nodes, PREFIX).items():
        quantized = is_call(node.args[1], graphs.HARD_QUANTIZE)
        reason = 'it is a transposed convolution' if quantized else 'not quantized'
        found.append(QdqLayer(name, _kind(node), 'float', reason))
    return found


def _sums(graph: Graph) -> list[QdqLayer]:
    """Return the sums of two computed tensors."""
    nodes = [
        node
        for node in graph.nodes
        if is_call(node, aten.add.Tensor) and all(isinstance(a, Node) for a in node.args)
    ]
    found = []
    for node, name in graphs.module_names(nodes, PREFIX).items():
        integers = all(is_call(a, DEQUANTIZE) for a in node.args)
        reason = _reason_behind(node) if integers else 'its operands are not quantized'
        found.append(QdqLayer(name, 'add', '', reason))
    return found


def _keep_sums_in_float(graph: Graph) -> None:
    """Give sums that end in float floats: XNNPACK would take their int8 operands, and fail."""
    for node in [n for n in graph.nodes if is_call(n, aten.add.Tensor) and _reason_behind(n)]:
        for value in [a for a in node.args if is_call(a, DEQUANTIZE)]:
            integers, scale, zero_point = value.args[:3]
            x = add_call(node, aten.to.dtype, integers, torch.float32)
            x = add_call(node, aten.sub.Tensor, x, float(zero_point))
            node.replace_input_with(value, add_call(node, aten.mul.Tensor, x, scale))


def _write_other_weights(graph: Graph) -> None:
    """Write weights that something else than a layer reads as the values of their codes."""
    for node in [n for n in graph.nodes if is_call(n, graphs.HARD_QUANTIZE)]:
        if node.users and not is_quantizer(node):
            arrays = [graphs.constant(argument) for argument in node.args]
            values = graphs.HARD_QUANTIZE(*arrays)
            node.replace_all_uses_with(add_constant(node, f'{node.name}.values', values))


def _outputs(graph: Graph) -> list[Node]:
    output = next(node for node in reversed(graph.nodes) if node.op == 'output')
    values = output.args[0]
    return list(values)


def _step(output: Node) -> float:
    return float(output.args[1]) if is_call(output, DEQUANTIZE) else 0.0  # type: ignore[arg-type]


def _kind(node: Node) -> str:
    if node.target is graphs.TRANSPOSED:
        return 'conv_transpose2d'
    return 'linear' if node.target is aten.linear.default else 'conv2d'
