"""The operators as torch sees them: schemas, fake tensors, gradients, compile and export."""

import copy

import pytest
import torch
from quantization_formula import LEVEL_SETS, make_function
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

from mmqnet.ops import hard_quantize, soft_quantize

OPERATORS = torch.ops.mmqnet
BASE = torch.linspace(-6, 6, 2 * 3 * 4 * 5).view(2, 3, 4, 5)
LAYOUTS = dict(
    contiguous=BASE,
    channels_last=BASE.contiguous(memory_format=torch.channels_last),
    strided=BASE[..., ::2],
    transposed=BASE.transpose(2, 3),
    expanded=BASE[:, :1].expand(2, 3, 4, 5),
    empty=BASE[:0],
)
SCALES = {
    'of all': (),
    'by the first dimension': (2, 1, 1, 1),
    'by channel': (3, 1, 1),
    'along two dimensions': (2, 1, 4, 1),
}


def check_operators(x, levels, thresholds, alpha, beta):
    """Run torch's checks of the operators on these tensors."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (alpha, beta)]
    learned = (x.detach().requires_grad_(), levels, thresholds.requires_grad_(), *leaves)
    temperature = torch.tensor(5.0)
    opcheck(OPERATORS.soft_quantize.default, (*learned, temperature))
    opcheck(OPERATORS.soft_quantize.default, (*learned, temperature, None, 3.0))
    opcheck(OPERATORS.hard_quantize.default, learned)
    opcheck(OPERATORS.hard_codes.default, (learned[0], learned[2], learned[4]))
    fixed = [tensor.detach() for tensor in learned]
    for need_thresholds in (True, False):
        arguments = (torch.ones_like(x), *fixed, temperature, 2.0, None, need_thresholds)
        opcheck(OPERATORS.soft_quantize_backward.default, arguments)
    grad, y = torch.ones_like(x), torch.zeros_like(x)
    opcheck(OPERATORS.straight_through_backward.default, (grad, x.detach(), y, levels, alpha))


@pytest.mark.parametrize('name', LEVEL_SETS)
def test_operators_for_all_level_sets(name):
    check_operators(BASE, *make_function(name), torch.tensor(0.3), torch.tensor(0.9))


@pytest.mark.parametrize('scales', SCALES)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_operators_for_any_layout_and_scales(layout, scales):
    x, shape = LAYOUTS[layout], SCALES[scales]
    if layout == 'empty' and len(shape) == 4:
        shape = (1, *shape[1:])
    elif scales == 'along two dimensions':
        shape = (2, 1, x.shape[2], 1)
    alpha, beta = torch.rand(2, *shape) + 0.5
    check_operators(x, *make_function('pm4', 'random'), alpha, beta)


def test_operators_in_float64():
    function = [tensor.double() for tensor in make_function('pm4', 'random')]
    check_operators(BASE.double(), *function, *(torch.rand(2, 3, 1, 1).double() + 0.5))


def test_operators_check_their_arguments():
    levels, thresholds = make_function('pm4')
    one = torch.ones(())
    for x in (BASE, BASE.to('meta')):
        function = [tensor.to(x.device) for tensor in (levels, thresholds)]
        scales = [one.to(x.device), torch.ones(7, device=x.device)]
        for operator in (OPERATORS.hard_quantize, OPERATORS.soft_quantize):
            temperature = [one] if operator is OPERATORS.soft_quantize else []
            with pytest.raises(ValueError, match=r'`beta` .* \(2, 3, 4, 5\), .* shape \(7,\)'):
                operator(x, *function, *scales, *temperature)
            with pytest.raises(TypeError, match='`levels` should be of the dtype of x'):
                operator(x, function[0].double(), function[1], one, one, *temperature)
        with pytest.raises(ValueError, match=r'but got shape \(2,\)'):
            OPERATORS.soft_quantize(x, *function, one, one, torch.ones(2, device=x.device))


class QuantizedConv(nn.Module):
    """As a quantized layer calls the operators."""

    def __init__(self, surrogate_temperature):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        for name, tensor in zip(('levels', 'thresholds'), make_function('pm4'), strict=True):
            self.register_buffer(name, tensor)
        self.register_buffer('temperature', torch.tensor(1.0))
        self.log_alpha = nn.Parameter(torch.zeros(4, 1, 1, 1))
        self.log_beta = nn.Parameter(torch.full((4, 1, 1, 1), 2.0))
        self.surrogate_temperature = surrogate_temperature

    def forward(self, x):
        function = (self.levels, self.thresholds, self.log_alpha.exp(), self.log_beta.exp())
        weight, temperature = self.conv.weight, self.temperature
        if self.training:
            surrogate = dict(surrogate_temperature=self.surrogate_temperature)
            weight = soft_quantize(weight, *function, temperature, **surrogate)
        else:
            weight = hard_quantize(weight, *function)
        return nn.functional.conv2d(x, weight, self.conv.bias)


@pytest.mark.parametrize('surrogate_temperature', [None, 5.0])
def test_compiled_training_neither_breaks_nor_compiles_again(surrogate_temperature):
    torch._dynamo.reset()
    model = QuantizedConv(surrogate_temperature)
    eager = copy.deepcopy(model)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (model, eager)]
    x = torch.randn(2, 3, 8, 8)
    for step in range(4):
        losses = []
        for module, forward, optimizer in zip(
            (model, eager), (compiled, eager), optimizers, strict=True
        ):
            module.temperature.fill_(2.5 * (step + 1))
            losses.append(forward(x).square().mean())
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert torch.equal(*losses)
    assert counter.frame_count == 1


def test_exported_hard_function_is_one_node():
    model = QuantizedConv(None).eval()
    x = torch.randn(2, 3, 8, 8)
    exported = torch.export.export(model, (x,))
    calls = [node.target for node in exported.graph.nodes if node.op == 'call_function']
    aten = torch.ops.aten
    assert calls == [
        aten.exp.default,
        aten.exp.default,
        OPERATORS.hard_quantize.default,
        aten.conv2d.default,
    ]
    assert torch.equal(exported.module()(x), model(x))


def test_the_same_holds_without_the_kernel(root, run_python):
    """There the operators are Python's, as on devices other than the CPU."""
    wanted = (
        'gradcheck or second or history or kept or half or bad_arguments or compiled or check '
        'or straight_through'
    )
    names = ('quantize', 'library', 'straight_through')
    files = [str(root / f'tests/test_ops/test_{name}.py') for name in names]
    run_python(
        WITHOUT_KERNEL.format(arguments=[*files, '-q', '-k', wanted, '-p', 'no:cacheprovider'])
    )


WITHOUT_KERNEL = """
import sys
sys.modules['mmqnet.ops._C'] = None  # importing it raises ImportError
import pytest
from mmqnet.ops.kernel import kernel_unavailable
assert 'mmqnet.ops._C' in kernel_unavailable()
sys.exit(pytest.main({arguments!r}))
"""
