"""Quantized activations: every form computes the same codes, wherever it is moved."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx_files import Quantized, exported, operators, quantizer, run
from torch import nn

FLOAT = onnx.TensorProto.FLOAT
UNIFORM = [i + 0.5 for i in range(15)]
UNEVEN = [0.1, 0.4, 1.0, 1.2, 2.0, 2.0, 3.5]


def probe(beta=1.7, shape=(2, 4, 6, 6)):
    """Values in and beyond the range of the levels, both signs."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 6 / beta


def check(folder, module, *inputs, operator=None, **options):
    """Checks that file and module agree to the last bit, and which operators there are."""
    with exported(folder, module, *inputs, **options) as report, torch.no_grad():
        expected = module(*inputs)
        for optimized in (False, True):
            (got,) = run(report.path, *inputs, optimized=optimized)
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
        found = operators(report.path)
        assert [output.name for output in onnx.load(report.path).graph.output] == ['output']
        assert operator is None or operator in found
        return found


MOVES = {
    'relu': F.relu,
    'relu6': F.relu6,
    'hardtanh': lambda x: F.hardtanh(x, -1.0, 2.0),
    'max_pool': lambda x: F.max_pool2d(x, 3, 2, 1),
    'ceil_mode': lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    'concat': lambda x: torch.cat([x, -x, F.relu(x)], 1),
    'nearest': lambda x: F.interpolate(x, scale_factor=2, mode='nearest'),
    'flatten': lambda x: x.flatten(1),
    'transpose': lambda x: x.permute(0, 2, 3, 1),
    'slices': lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1),
    'pixel_shuffle': lambda x: F.pixel_shuffle(x, 2),
    'vgg': lambda x: F.max_pool2d(F.relu(x), 2).flatten(1),
}


class AllMoves(nn.Module):
    """Each function with a quantizer of unsigned levels behind it, and one of signed ones."""

    def __init__(self):
        super().__init__()
        signed = [i - 7.5 for i in range(15)]
        self.quantizers = nn.ModuleList()
        for function in MOVES.values():
            self.quantizers += [
                Quantized(function, quantizer('uint4', UNIFORM, 0.61, 1.7)),
                Quantized(function, quantizer(list(range(-8, 8)), signed, 0.61, 1.7)),
            ]

    def forward(self, x):
        return tuple(quantized(x * (i + 1)) for i, quantized in enumerate(self.quantizers))


@pytest.fixture(scope='module')
def all_moves(tmp_path_factory):
    """The module, and what was exported of it."""
    module = AllMoves()
    names = [f'{name}_{kind}' for name in MOVES for kind in ('unsigned', 'signed')]
    folder = tmp_path_factory.mktemp('moves')
    with exported(folder, module, probe(1.7 * len(names)), output_names=names) as report:
        yield module, report.path


@pytest.mark.parametrize('optimized', [False, True])
def test_moving_up_changes_nothing(all_moves, optimized):
    module, path = all_moves
    for x in (probe(1.7 * 24), probe(3, (3, 4, 6, 6))):
        with torch.no_grad():
            wanted = module(x)
        for got, expected in zip(run(path, x, optimized=optimized), wanted, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_all_that_commutes_works_on_codes(all_moves):
    model = onnx.shape_inference.infer_shapes(onnx.load(all_moves[1]))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    floats = [node for node in model.graph.node if types.get(node.output[0]) == FLOAT]
    assert {node.op_type for node in floats} == {'Mul', 'Neg'}


def test_not_moved_where_it_is_read_in_float_too(tmp_path):
    class Tapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.input_quantizer = quantizer('uint4', UNIFORM, 0.61, 1.7)

        def forward(self, x):
            y = F.relu(x)
            return self.input_quantizer(F.max_pool2d(y, 2)).mean() + y.mean()

    found = check(tmp_path, Tapped(), probe(), dynamic_batch=False)
    assert found[:2] == ['Relu', 'QuantizeLinear'] or found[:2] == ['Relu', 'ReduceMean']


@pytest.mark.parametrize(
    ('levels', 'thresholds', 'operator'),
    [
        ([-1.0, 1.0], [0.0], 'QuantizeLinear'),
        ([-1.5, -0.5, 0.5, 1.5], [-1.0, 0.0, 1.0], 'QuantizeLinear'),
        ([-128.0 + i for i in range(256)], [-127.5 + i for i in range(255)], 'QuantizeLinear'),
        ('uint3', UNEVEN, 'GreaterOrEqual'),
        ([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], [-3.0, -1.5, -0.5, 0.5, 1.5, 3.0],
         'GreaterOrEqual'),
        ([0.0, 0.317, 1.0, 1.7123], [0.1, 0.5, 1.5], 'Gather'),
        ('uint8', [i**1.01 / 1.1 for i in range(255)], 'TreeEnsembleRegressor'),
    ],
)  # fmt: skip
def test_forms(tmp_path, levels, thresholds, operator):
    beta = 1.7 * 15 / max(15, len(thresholds))
    module = Quantized(nn.Identity(), quantizer(levels, thresholds, 0.61, beta))
    check(tmp_path, module, probe(beta * 0.1), operator=operator)


def test_exact_at_the_thresholds(tmp_path):
    """A chain of comparisons has the rule of the model, >=."""
    made = quantizer('uint3', UNEVEN, 1.0, 1.7)
    edges = torch.tensor(UNEVEN) / 1.7
    x = torch.stack(
        [edges, edges.nextafter(torch.tensor(9.0)), edges.nextafter(torch.tensor(-9.0))]
    )
    check(tmp_path, Quantized(nn.Identity(), made), x)


@pytest.mark.parametrize('offset', [0.0, -1.2])
def test_grid_changes_few_codes_and_says_so(tmp_path, offset):
    thresholds = [t + offset for t in (0.1, 0.4, 1.0, 1.2, 2.0, 2.1, 3.5)]
    levels = 'uint3' if not offset else [i - 3.0 for i in range(8)]
    module = Quantized(nn.Identity(), quantizer(levels, thresholds, 1.0, 1.0))
    x = torch.rand(4, 20000) * 5 - 1.5
    with exported(tmp_path, module, x, thresholds='grid') as report, torch.no_grad():
        (got,) = run(report.path, x)
        changed = (got != module(x)).float().mean()
        assert 'QuantizeLinear' in operators(report.path)
        (estimate,) = report.changed_codes.values()
    assert 0 < changed < 0.01
    assert 0 < estimate < 0.02


def test_same_function_of_the_same_values_is_computed_once(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = Quantized(nn.Identity(), quantizer('uint4', UNIFORM, 0.61, 1.7))
            self.b = Quantized(nn.Identity(), quantizer('uint4', UNIFORM, 0.61, 1.7))

        def forward(self, x):
            x = F.relu(x * 2)
            return self.a(F.max_pool2d(x, 2)) + self.b(x)[..., ::2, ::2]

    found = check(tmp_path, Twice(), probe())
    assert found.count('QuantizeLinear') == 1
