"""The bias of layers: normalizations and shifts go into it, and it becomes an integer.

A runtime rounds the bias to multiples of the product of the scales of input and weights. With few
bits that is a good part of an output's step. Two things keep the codes behind the layer what they
are: integer weights are as large as they may be, and their scales small; and of the integers round
the bias, one is taken with which fewest sums end on the other side of a threshold.
"""

import math
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from mmqnet.export.bias import LARGEST_BIAS, LOST_BIAS, normalized
from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.functions import CodeFunction
from mmqnet.export.onnx.graph import add_constant, add_node, constant, is_op
from mmqnet.export.onnx.report import largest_safe_weight
from mmqnet.export.onnx.weights import Weights, channel_axis

_TRIED = np.arange(-1, 3)  # integers round the bias, from below the one under it
_MOST_SUMS = 2**10  # with more, a sum is small beside a step, and the nearest integer does
_SPREAD = 32  # steps of an output, its standard deviation by a rule of thumb
_EXACT = 2**22  # integers that float32 holds with room for rounding


def fold_batch_norm(node: ir.Node, weights: Weights) -> Weights:
    """Take the batch normalization behind a layer, if there is one, into its weights and bias.

    It needs constants, and to be the only reader of the layer. The node gets the new bias; its
    weights are left to the caller.
    """
    found = None if is_op(node, 'MatMul') else norm_behind(node)
    if found is None or (is_op(node, 'ConvTranspose') and graphs.attribute(node, 'group', 1) > 1):
        return weights  # with groups, the dimension of output channels holds those of one
    norm, factors, new = found
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    set_bias(node, add_constant(graph, bias_name(weights.name), new.astype(np.float32)))
    graphs.replace(norm.outputs[0], node.outputs[0])
    graph.remove(norm, safe=True)
    return weights.multiplied(factors)


def norm_behind(node: ir.Node) -> tuple[ir.Node, np.ndarray, np.ndarray] | None:
    """Return the batch normalization that alone reads a layer, and what it makes of it.

    None if there is none, if it is not constant, or if it is of another dimension than the layer's
    channels.

    Returns:
        tuple: The node, the factors of the layer's sums, and the new bias.
    """
    norm, bias, shape = graphs.only_reader(node.outputs[0]), bias_of(node), node.outputs[0].shape
    if norm is None or not is_op(norm, 'BatchNormalization') or bias is None:
        return None
    if is_op(node, 'MatMul') and (shape is None or len(shape) != 2):
        return None  # its channels come last; those of a normalization are second
    parameters = [constant(value) for value in norm.inputs[1:5]]
    if any(array is None for array in parameters):
        return None
    gamma, beta, mean, variance = (array.astype(np.float64) for array in parameters)  # type: ignore[union-attr]
    epsilon = graphs.attribute(norm, 'epsilon', 1e-5)
    return norm, *normalized(bias, gamma, beta, mean, variance, epsilon)


def add_to_bias(node: ir.Node, number: float) -> bool:
    """Add a number to the outputs of a layer by its bias; return whether it has a constant one."""
    bias = bias_of(node)
    weight = node.inputs[1]
    if bias is None or is_op(node, 'MatMul') or weight is None or weight.shape is None:
        return False
    channels = weight.shape[channel_axis(node)]
    if not isinstance(channels, int):
        return False
    if is_op(node, 'ConvTranspose'):
        channels *= graphs.attribute(node, 'group', 1)
    new = (np.broadcast_to(bias, (channels,)) + number).astype(np.float32)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    set_bias(node, add_constant(graph, bias_name(node.name or ''), new))
    return True


def bias_of(node: ir.Node) -> np.ndarray | None:
    """Return the constant bias of a layer, 0 if it has none, None if it is computed."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(1)
    bias = constant(node.inputs[2])
    return None if bias is None or bias.ndim > 1 else bias.astype(np.float64)


def set_bias(node: ir.Node, value: ir.Value) -> None:
    """Give a layer a bias."""
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, value)


def bias_name(name: str) -> str:
    """Return the name of the bias beside weights."""
    return f'{name.removesuffix(".weight")}.bias'


def scaled_for_bias(
    weights: Weights, bias: np.ndarray, input_scale: float, largest_code: int
) -> tuple[Weights, np.ndarray]:
    """Return integer weights whose scales suit the bias, and by how much they are made larger.

    A runtime rounds the bias to multiples of the product of both scales. With few bits that is a
    good part of an output's step: with ±7 and 4 bits 1% of the codes would differ. Integers that
    are 18 times as large, and scales as much smaller, bring that down, and sums of two products
    still stay below 16 bits. Where a normalization nearly switches a channel off, the bias
    would not fit into int32: its weights, which count for nothing, become 0.

    Args:
        weights: Integer weights.
        bias: (1,) or (O,).
        input_scale: Scale of the input's codes.
        largest_code: The largest of them.

    Returns:
        tuple: The weights, and (1,) or (O,) integers of at least 1.
    """
    scale, bias = np.broadcast_arrays(weights.scale, np.abs(bias))
    lost = bias > LARGEST_BIAS * scale * input_scale
    if lost.any():
        integers = weights.integers * weights.along_axis(~lost)
        scale = np.where(lost, bias / (LOST_BIAS * input_scale), scale)
        weights = replace(weights, integers=integers.astype(np.int16), scale=scale)
    most = max(1, largest_safe_weight(largest_code) // max(weights.largest, 1))
    room = LARGEST_BIAS * scale * input_scale / np.maximum(bias, np.finfo(np.float32).tiny)
    factors = np.clip(room, 1, most).astype(np.int64)
    return weights, factors if len(weights.scale) > 1 else factors.min(keepdims=True)


def emit_bias(
    node: ir.Node, weights: Weights, factors: np.ndarray, function: CodeFunction, fit: bool
) -> None:
    """Give a layer the bias with which its codes change least when a runtime rounds it.

    That of a Gemm is in int32, which ONNX Runtime makes by itself for convolutions only.

    Args:
        node: The layer.
        weights: Its weights.
        factors: By how much they are made larger.
        function: That of its input.
        fit: Whether the codes behind the layer choose the bias; otherwise it is the nearest.
    """
    bias, output = bias_of(node), _output_scale(node)
    is_gemm = is_op(node, 'Gemm')
    if bias is None or not bias.any() or is_op(node, 'MatMul') or not (is_gemm or output):
        return
    scales = (weights.scale / factors).astype(np.float32)
    bias, units, factors = np.broadcast_arrays(bias, scales * np.float32(function.scale), factors)
    bias = (
        np.rint(bias / units) * units
        if output is None or not fit
        else _fitted(bias, units, factors * math.gcd(*function.codes), output)
    )
    graph, name = node.graph, bias_name(weights.name)
    assert isinstance(graph, ir.Graph)
    if not is_gemm:
        set_bias(node, add_constant(graph, name, bias.astype(np.float32)))
        return
    integers = add_constant(graph, name, np.rint(bias / units).astype(np.int32))
    scale = add_constant(graph, f'{name}.scale', units.copy())
    set_bias(node, add_node(node, 'DequantizeLinear', [integers, scale], name, dict(axis=0)))


def _fitted(
    bias: np.ndarray, units: np.ndarray, factors: np.ndarray, output: tuple[float, int]
) -> np.ndarray:
    """Return multiples of ``units`` near the bias with which fewest codes change.

    Args:
        bias: (O,), float64.
        units: (O,), the products of the scales.
        factors: (O,), sums are multiples of factor times unit.
        output: Scale and zero point of the output.
    """
    fitted = bias.copy()
    for i, (exact, unit, factor) in enumerate(zip(bias, units.tolist(), factors, strict=True)):
        sums = _sums(exact, unit * factor, *output)
        if not len(sums) or abs(exact) > _EXACT * unit:
            continue
        tried = (np.floor(exact / unit) + _TRIED) * unit
        wanted = np.rint((sums + exact) / output[0])
        changed = np.rint((sums + tried[:, None]) / output[0]) != wanted
        # values about 0 are the most frequent, and few are beyond a quarter of the range
        cost = changed @ np.exp(-0.5 * ((sums + exact) / (_SPREAD * output[0])) ** 2)
        best = tried[cost == cost.min()]
        fitted[i] = best[np.abs(best - exact).argmin()]
    return fitted


def _sums(bias: float, step: float, scale: float, zero_point: int) -> np.ndarray:
    """Return the sums that end in the range of uint8, none if there are too many."""
    low, high = ((end - zero_point) * scale - bias for end in (0, 255))
    first, last = math.floor(low / step), math.ceil(high / step)
    return step * np.arange(first, last + 1 if last - first < _MOST_SUMS else first)


def _output_scale(node: ir.Node) -> tuple[float, int] | None:
    """Return scale and zero point of the rounding that alone reads a layer, or None."""
    behind = graphs.only_reader(node.outputs[0])
    if behind is not None and is_op(behind, 'Relu'):
        behind = graphs.only_reader(behind.outputs[0])
    if behind is None or not is_op(behind, 'QuantizeLinear'):
        return None
    scale, zero_point = constant(behind.inputs[1]), constant(behind.inputs[2])
    return None if scale is None or zero_point is None else (float(scale), int(zero_point))
