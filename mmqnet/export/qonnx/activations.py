"""Quantizers of activations as MultiThreshold nodes, which count thresholds at or below x."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.functions import least_inputs
from mmqnet.export.onnx.graph import add_constant, add_node, constant, is_op
from mmqnet.export.onnx.translate import HARD_QUANTIZE
from mmqnet.quantizers import Staircase

DOMAIN = 'qonnx.custom_op.general'


@dataclass(frozen=True, eq=False)
class Codes:
    """Quantized activations: ``scale * integers``.

    Attributes:
        integers: The value with the integers, in float32.
        scale: The factor.
    """

    integers: ir.Value
    scale: float


def write_activations(
    graph: ir.Graph, types: dict[ir.Value, str], prefix: str
) -> dict[ir.Value, Codes]:
    """Replace the quantizers of activations by MultiThreshold and Mul.

    Args:
        graph: Changed in place.
        types: The data types of integer values are added.
        prefix: What is left out at the beginning of names.

    Returns:
        dict: From quantized values to their integers; those whose levels are no integers are left
        out.

    Raises:
        ValueError: If a function is not constant, or has several scales.
    """
    nodes = [node for node in graph if is_op(node, HARD_QUANTIZE, domain=graphs.DOMAIN)]
    nodes = [node for node in nodes if constant(node.inputs[0]) is None]
    found = {}
    for node, name in graphs.module_names(nodes, prefix).items():
        arrays = [constant(value) for value in node.inputs[1:]]
        if any(array is None for array in arrays):
            raise ValueError(f'the quantizer {name!r} is no constant function')
        function = Staircase(*(torch.from_numpy(array.copy()) for array in arrays))  # type: ignore[union-attr]
        if function.alpha.numel() != 1 or function.beta.numel() != 1:
            raise ValueError(f'the quantizer {name!r} should have one scale, but has several')
        value, codes = _write(node, function, name, types)
        graphs.replace(node.outputs[0], value)
        graph.remove(node, safe=True)
        if codes is not None:
            found[value] = codes
    return found


def data_type(integers: Sequence[int]) -> str:
    """Return qonnx's name of the smallest type that holds all these integers.

    Example:
        >>> [data_type(levels) for levels in ((-1, 1), (-1, 0, 1), (-4, 4), (0, 15), (-127, 127))]
        ['BIPOLAR', 'TERNARY', 'INT4', 'UINT4', 'INT8']
    """
    least, most = min(integers), max(integers)
    if (least, most) == (-1, 1):
        return 'TERNARY' if 0 in integers else 'BIPOLAR'
    if least >= 0:
        return f'UINT{max(most.bit_length(), 1)}'
    return f'INT{1 + max((-least - 1).bit_length(), max(most, 0).bit_length())}'


def _write(
    before: ir.Node, function: Staircase, name: str, types: dict[ir.Value, str]
) -> tuple[ir.Value, Codes | None]:
    """Return the quantized value, and its integers if there are such."""
    graph, old, form = before.graph, before.outputs[0], function.integer_form()
    assert isinstance(graph, ir.Graph)
    integers = tuple(range(len(function.levels))) if form is None else form.integers
    edges = least_inputs(function.thresholds.numpy(), np.float32(function.beta.item()))
    rises = np.diff(integers)
    step = int(rises[0]) if (rises == rises[0]).all() else 1
    # a threshold that is there twice is counted twice
    thresholds = add_constant(graph, f'{name}.thresholds', np.repeat(edges, rises // step)[None])
    attributes = dict(
        out_dtype=data_type(integers), out_scale=float(step), out_bias=float(integers[0])
    )
    codes = add_node(
        before,
        'MultiThreshold',
        [before.inputs[0], thresholds],
        f'{name}.integers',
        attributes,
        DOMAIN,
    )
    types[codes] = data_type(integers)
    if form is None:
        table = (function.alpha * function.levels).flatten().numpy()
        values = add_constant(graph, f'{name}.values', table)
        index = add_node(before, 'Cast', [codes], f'{name}.index', dict(to=ir.DataType.INT64))
        value, found = add_node(before, 'Gather', [values, index], f'{name}.value'), None
    else:
        scale = add_constant(graph, f'{name}.scale', form.scale.flatten().numpy())
        value = add_node(before, 'Mul', [codes, scale], f'{name}.value')
        found = Codes(codes, form.scale.item())
    for new in (codes, value):
        new.shape, new.type = old.shape, old.type
    return value, found
