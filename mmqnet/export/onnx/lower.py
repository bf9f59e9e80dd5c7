"""Writing ``Codes`` in ONNX: a rounding where the function is one, else comparisons."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.activations import Functions, is_codes, quantizer_of
from mmqnet.export.onnx.bias import add_to_bias
from mmqnet.export.onnx.functions import CodeFunction, Rounding
from mmqnet.export.onnx.graph import add_constant, add_node
from mmqnet.export.onnx.weights import LAYERS

THRESHOLDS = ('exact', 'grid')
TREES = 'ai.onnx.ml'
MANY_STEPS = 32  # a tree of comparisons is faster from here on, and a chain long


def form_of(function: CodeFunction, thresholds: str) -> str:
    """Return how a function is written: ``'rounding'``, ``'chain'``, ``'tree'`` or ``'grid'``."""
    if function.rounding is not None and function.affine is not None:
        return 'rounding'
    if thresholds == 'grid' and len(function.steps) > 1:
        return 'grid'
    return 'chain' if len(function.steps) < MANY_STEPS else 'tree'


def lower(graph: ir.Graph, functions: Functions, thresholds: str) -> dict[str, CodeFunction]:
    """Write all ``Codes`` nodes in ONNX, and return the functions that are written by quantizer.

    Args:
        graph: The graph.
        functions: Its functions.
        thresholds: ``'exact'``, or ``'grid'``: thresholds that are not halfway between evenly
            spaced levels are moved to a grid of 8 bits, which a layer in integers can end with.
    """
    written = dict(functions.by_name)  # one that has been merged into another has no node
    write = dict(rounding=_rounded, chain=_chain_of_edges, tree=_tree, grid=_on_grid)
    for node in [node for node in graph if is_codes(node)]:
        function = functions.of(node)
        codes = write[form_of(function, thresholds)](node, function)
        graphs.replace(node.outputs[0], codes)
        graph.remove(node, safe=True)
        written[quantizer_of(node)] = function
    return written


def _quantize(node: ir.Node, x: ir.Value | None, rounding: Rounding) -> ir.Value:
    graph, name = _graph(node), node.name
    scale = add_constant(graph, f'{name}.scale', np.array(rounding.scale, np.float32))
    zero = add_constant(graph, f'{name}.zero_point', np.array(rounding.zero_point, np.uint8))
    return add_node(node, 'QuantizeLinear', [x, scale, zero], f'{name}.index')


def _rounded(node: ir.Node, function: CodeFunction) -> ir.Value:
    assert function.rounding is not None
    assert function.affine is not None
    x, shift = node.inputs[0], function.rounding.shift
    if shift and not _shifted_in_layer(x, shift):
        by = add_constant(_graph(node), f'{node.name}.shift', np.array(shift, np.float32))
        x = add_node(node, 'Add', [x, by], f'{node.name}.shifted')
    index = _quantize(node, x, function.rounding)
    if function.is_narrow:
        bounds = [_code(node, 'low', function.low), _code(node, 'high', function.high)]
        index = add_node(node, 'Clip', [index, *bounds], f'{node.name}.clipped')
    factor, first = function.affine
    if factor != 1:
        index = add_node(node, 'Mul', [index, _code(node, 'factor', factor)], f'{node.name}.times')
    if first:
        index = add_node(node, 'Add', [index, _code(node, 'first', first)], f'{node.name}.plus')
    return index


def _shifted_in_layer(x: ir.Value | None, shift: float) -> bool:
    """Add a shift to the bias of the layer that computes x, if nothing else reads it."""
    producer = x.producer() if x is not None else None
    if producer is None or not graphs.is_op(producer, *LAYERS):
        return False
    return graphs.only_reader(producer.outputs[0]) is not None and add_to_bias(producer, shift)


def _chain(
    node: ir.Node,
    x: ir.Value | None,
    steps: Sequence[tuple[float, int]],
    function: CodeFunction,
    dtype: type = np.float32,
) -> ir.Value:
    """Add up comparisons in uint8, which is much faster than in float."""
    graph, name = _graph(node), node.name
    spread = math.gcd(*(rise for _, rise in steps))
    total = None
    for i, (edge, rise) in enumerate(steps):
        bound = add_constant(graph, f'{name}.edge', np.array(edge, dtype))
        above = add_node(node, 'GreaterOrEqual', [x, bound], f'{name}.above{i}')
        step = add_node(node, 'Cast', [above], f'{name}.step{i}', dict(to=ir.DataType.UINT8))
        if rise != spread:
            more = _code(node, 'rise', rise // spread)
            step = add_node(node, 'Mul', [step, more], f'{name}.rise{i}')
        total = step if total is None else add_node(node, 'Add', [total, step], f'{name}.sum{i}')
    if total is None:
        raise ValueError(f'`{name}` is a constant: no threshold lies in the range of its input')
    if spread != 1:
        total = add_node(node, 'Mul', [total, _code(node, 'spread', spread)], f'{name}.times')
    first = function.codes[function.low]
    if first:
        total = add_node(node, 'Add', [total, _code(node, 'first', first)], f'{name}.plus')
    return total


def _chain_of_edges(node: ir.Node, function: CodeFunction) -> ir.Value:
    return _chain(node, node.inputs[0], function.steps, function)


def _on_grid(node: ir.Node, function: CodeFunction) -> ir.Value:
    rounding = _grid(function)
    steps = [(_place(edge, rounding), rise) for edge, rise in function.steps]
    on_grid = _quantize(node, node.inputs[0], rounding)
    return _chain(node, on_grid, steps, function, np.uint8)


def changed_on_grid(function: CodeFunction) -> float:
    """Return the share of codes that the grid changes, were values equally frequent."""
    edges, grid = np.array([edge for edge, _ in function.steps]), _grid(function)
    moved = [(_place(edge, grid) - grid.zero_point - 0.5) * grid.scale for edge in edges]
    return float(np.abs(moved - edges).sum() / (edges[-1] - edges[0]))


def _grid(function: CodeFunction) -> Rounding:
    """Return a grid of 8 bits for the thresholds, the outermost ones (almost) on it."""
    low, high = function.steps[0][0], function.steps[-1][0]
    if low > 0:
        return Rounding(high / 254.5, 0, 0.0)
    scale = (high - low) / 252
    return Rounding(scale, int(np.clip(np.ceil(-low / scale) + 1, 0, 255)), 0.0)


def _place(edge: float, grid: Rounding) -> int:
    """Return the grid's code that begins nearest to an edge."""
    return int(np.clip(round(edge / grid.scale + 0.5) + grid.zero_point, 1, 255))


def _tree(node: ir.Node, function: CodeFunction) -> ir.Value:
    """Search the code in a balanced tree of comparisons: exact for any number of thresholds."""
    graph, name = _graph(node), node.name
    flat = add_constant(graph, f'{name}.flat', np.array([-1, 1], np.int64))
    rows = add_node(node, 'Reshape', [node.inputs[0], flat], f'{name}.rows')
    found = add_node(
        node, 'TreeEnsembleRegressor', [rows], f'{name}.tree', _search(function), TREES
    )
    column = add_node(node, 'Cast', [found], f'{name}.column', dict(to=ir.DataType.UINT8))
    shape = add_node(node, 'Shape', [node.inputs[0]], f'{name}.shape')
    return add_node(node, 'Reshape', [column, shape], f'{name}.code')


def _search(function: CodeFunction) -> dict[str, object]:
    """Return the attributes of a TreeEnsembleRegressor that searches the code of x."""
    edges = [edge for edge, _ in function.steps]
    codes = np.cumsum([function.codes[function.low], *(rise for _, rise in function.steps)])
    modes: list[str] = []
    values: list[float] = []
    true: list[int] = []
    false: list[int] = []
    leaves: list[tuple[int, int]] = []

    def add(low: int, high: int) -> int:
        """Add the search between edges ``low`` and ``high``; return its node."""
        here, middle = len(modes), (low + high) // 2
        is_leaf = low == high
        modes.append('LEAF' if is_leaf else 'BRANCH_GTE')
        values.append(0.0 if is_leaf else edges[middle])
        true.append(0)
        false.append(0)
        if is_leaf:
            leaves.append((here, int(codes[low])))
        else:
            true[here], false[here] = add(middle + 1, high), add(low, middle)
        return here

    add(0, len(edges))
    count = len(modes)
    zeros = [0] * count
    return dict(
        n_targets=1,
        nodes_treeids=zeros,
        nodes_nodeids=list(range(count)),
        nodes_featureids=zeros,
        nodes_modes=modes,
        nodes_values=values,
        nodes_truenodeids=true,
        nodes_falsenodeids=false,
        target_treeids=[0] * len(leaves),
        target_nodeids=[node for node, _ in leaves],
        target_ids=[0] * len(leaves),
        target_weights=[float(code) for _, code in leaves],
    )


def _code(node: ir.Node, name: str, value: int) -> ir.Value:
    return add_constant(_graph(node), f'{node.name}.{name}', np.array(value, np.uint8))


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
