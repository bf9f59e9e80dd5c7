"""Quantized weights: integers in the file, with the normalization behind the layer folded in."""

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.graph import add_constant, add_node, constant, is_op
from mmqnet.export.onnx.translate import HARD_QUANTIZE
from mmqnet.quantizers import Staircase

LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of a layer, ``values = scale * integers``.

    Attributes:
        name: Name of the float parameter.
        axis: The dimension of output channels.
        integers: int16, of the shape of the weights; None if the levels are no such integers.
        scale: (1,) or (O,), positive, float64.
        values: The weights in float32, where there are no integers.
        bits: What one code takes.
    """

    name: str
    axis: int
    integers: np.ndarray | None
    scale: np.ndarray
    values: np.ndarray | None
    bits: int

    def along_axis(self, vector: np.ndarray) -> np.ndarray:
        """Return a vector of output channels in a shape that broadcasts to the weights."""
        array = self.values if self.integers is None else self.integers
        assert array is not None
        return vector.reshape([-1 if d == self.axis else 1 for d in range(array.ndim)])

    def multiplied(self, factors: np.ndarray) -> 'Weights':
        """Return the weights of a layer whose output channels are multiplied by ``factors``.

        Integers stay integers: those of a negative factor change their sign, those of 0 become 0.
        """
        if self.integers is None:
            assert self.values is not None
            values = self.values * self.along_axis(factors)
            return replace(self, values=values.astype(np.float32))
        scale = np.abs(factors) * self.scale
        used = scale.astype(np.float32) > 0
        signs = self.along_axis(np.sign(factors) * used).astype(np.int16)
        return replace(self, integers=self.integers * signs, scale=np.where(used, scale, 1.0))

    @property
    def largest(self) -> int:
        """The largest magnitude of an integer."""
        return 0 if self.integers is None else int(np.abs(self.integers).max(initial=0))

    @property
    def fits_int8(self) -> bool:
        """Whether there are integers, and all fit into int8."""
        return self.integers is not None and self.largest <= 127

    def at_most(self, largest: int) -> 'Weights':
        """Return the weights with integers up to ``largest``; channels beyond it are rounded.

        Example:
            >>> weights = Weights('w', 0, np.int16([[100], [-8]]), np.ones(1), None, 8)
            >>> small = weights.at_most(64)
            >>> small.integers.tolist(), small.scale.tolist()
            ([[64], [-8]], [1.5625, 1.0])
        """
        if self.integers is None or self.largest <= largest:
            return self
        others = tuple(d for d in range(self.integers.ndim) if d != self.axis)
        shrink = np.minimum(largest / np.abs(self.integers).max(others, initial=1), 1.0)
        integers = np.rint(self.integers * self.along_axis(shrink)).astype(np.int16)
        return replace(self, integers=integers, scale=self.scale / shrink)

    def as_float(self) -> np.ndarray:
        """Return the weights in float32."""
        if self.integers is None:
            assert self.values is not None
            return self.values
        return (self.integers * self.along_axis(self.scale.astype(np.float32))).astype(np.float32)


def channel_axis(node: ir.Node) -> int:
    """Return the dimension of a layer's weights that counts the output channels."""
    transposed = is_op(node, 'Gemm') and not graphs.attribute(node, 'transB', 0)
    return 1 if transposed or is_op(node, 'ConvTranspose') else 0


def read_weights(node: ir.Node) -> Weights | None:
    """Return the quantized weights that a layer's node multiplies by, or None if it has none."""
    if not is_op(node, *LAYERS):
        return None
    value, transposed = node.inputs[1], False
    producer = value.producer() if value is not None else None
    if is_op(producer, 'Transpose'):
        source = producer.inputs[0] if producer is not None else None
        producer, transposed = None if source is None else source.producer(), True
    if producer is None or not is_op(producer, HARD_QUANTIZE, domain=graphs.DOMAIN):
        return None
    arrays = [constant(value) for value in producer.inputs]
    if any(array is None for array in arrays):
        return None
    name = producer.inputs[0].name or ''  # type: ignore[union-attr]
    weights = _quantized(name, [torch.from_numpy(array.copy()) for array in arrays])  # type: ignore[union-attr]
    if transposed:
        weights = _transposed(weights)
    elif channel_axis(node):
        weights = replace(weights, axis=1)
    return weights


def _quantized(name: str, arrays: list[torch.Tensor]) -> Weights:
    weight, function = arrays[0], Staircase(*arrays[1:])
    form = function.integer_form()
    bits = max(1, (len(function.levels) - 1).bit_length())
    if form is None:
        values = function.quantize(weight).numpy()
        return Weights(name, 0, None, np.ones(1), values, bits)
    integers = np.array(form.integers, np.int16)[function.codes(weight).numpy()]
    scale = form.scale.double().flatten().numpy()
    return Weights(name, 0, integers, scale, None, bits)


def _transposed(weights: Weights) -> Weights:
    integers, values = weights.integers, weights.values
    return replace(
        weights,
        axis=1,
        integers=None if integers is None else integers.T,
        values=None if values is None else values.T,
    )


def emit_float(node: ir.Node, weights: Weights) -> str:
    """Give a layer its weights as floats, the values of the codes; return the type."""
    assert isinstance(node.graph, ir.Graph)
    node.replace_input_with(1, add_constant(node.graph, weights.name, weights.as_float()))
    return 'float'


def emit_integers(node: ir.Node, weights: Weights, factors: np.ndarray) -> str:
    """Give a layer its weights as integers and a DequantizeLinear; return their type in the file.

    What fits into 4 bits is stored so, and becomes int8 by a cast: runtimes fold it when they load
    the file, and do not compute with int4 themselves.

    Args:
        node: The layer.
        weights: Its weights.
        factors: (1,) or (O,), by how much the integers are made larger, and the scales smaller, see
            :func:`mmqnet.export.onnx.bias.scaled_for_bias`.
    """
    graph, name, integers = node.graph, weights.name, weights.integers
    assert isinstance(graph, ir.Graph)
    assert integers is not None
    larger = weights.along_axis(factors)
    is_small = integers.min(initial=0) >= -8 and integers.max(initial=0) <= 7
    if is_small:
        small = add_constant(graph, name, integers.astype(ml_dtypes.int4))
        wide = add_node(node, 'Cast', [small], f'{name}.wide', dict(to=ir.DataType.INT32))
        by = add_constant(graph, f'{name}.factors', larger.astype(np.int32))
        product = add_node(node, 'Mul', [wide, by], f'{name}.larger')
        codes = add_node(node, 'Cast', [product], f'{name}.int8', dict(to=ir.DataType.INT8))
    else:
        codes = add_constant(graph, name, (integers * larger).astype(np.int8))
    scale = (weights.scale / factors).astype(np.float32)
    scale, axis = (scale, dict(axis=weights.axis)) if len(scale) > 1 else (scale[0], {})
    scales = add_constant(graph, f'{name}.scale', scale)
    # without a zero point ONNX Runtime leaves Gemm in float
    zeros = add_constant(graph, f'{name}.zero_point', np.zeros(scale.shape, np.int8))
    value = add_node(node, 'DequantizeLinear', [codes, scales, zeros], f'{name}.float', axis)
    node.replace_input_with(1, value)
    return 'int4' if is_small else 'int8'
