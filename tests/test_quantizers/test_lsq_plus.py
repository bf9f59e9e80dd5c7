"""LSQ+: the formulas of the paper written out, and what an offset means for integers."""

import math

import pytest
import torch
from method_cases import build, fitted
from torch.nn import functional as F


@pytest.mark.parametrize(('step', 'offset'), [(0.1, -0.3), (0.02, 1.0), (1.0, 0.0)])
def test_gradients_are_the_papers(step, offset):
    quantizer = build('LSQ+').double()
    quantizer.calibrated.fill_(True)
    quantizer.refresh()
    quantizer.log_step.data.fill_(math.log(step))
    quantizer.offset.data.fill_(offset)
    x = torch.randn(4, 30, dtype=torch.float64)
    grad = torch.randn_like(x)
    quantized, by_x, by_step, by_offset = [], [], 0.0, 0.0
    for value, weight in zip(x.flatten().tolist(), grad.flatten().tolist(), strict=True):
        ratio = (value - offset) / step
        nearest = math.floor(min(max(ratio, 0), 15) + 0.5)
        quantized.append(nearest * step + offset)
        inside = 0 < ratio < 15
        by_x.append(weight if inside else 0.0)
        by_step += weight * (nearest - ratio if inside else nearest)
        by_offset += 0.0 if inside else weight
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y.flatten(), y.new_tensor(quantized))
    torch.testing.assert_close(x.grad.flatten(), y.new_tensor(by_x))
    factor = 1 / math.sqrt(30 * 15)
    assert float(quantizer.log_step.grad) == pytest.approx(factor * by_step / step)
    assert float(quantizer.offset.grad) == pytest.approx(factor * by_offset)


@pytest.mark.parametrize('levels', ['uint2', 'uint4', [-2, -1, 0, 1]])
@pytest.mark.parametrize(
    'function', [F.silu, F.leaky_relu, torch.relu, lambda x: x, lambda x: x + 9]
)
def test_starts_better_than_without_an_offset(levels, function):
    x = function(torch.randn(4, 500))
    plus = fitted('LSQ+', x, levels=levels)
    plain = fitted('LSQ, inputs', x, step_init='mse', levels=levels)
    errors = [float((q.eval()(x) - x).square().mean()) for q in (plus, plain)]
    assert errors[0] <= 1.001 * errors[1]


def test_zero_is_on_the_grid_of_a_relu():
    x = torch.randn(4, 500).relu()
    quantizer = fitted('LSQ+', x)
    assert float(quantizer.offset) == 0
    assert quantizer.staircase(x).integer_form() is not None


@pytest.mark.parametrize('bits', [2, 4, 6, 8])
def test_a_real_offset_has_no_integers(bits):
    x = F.silu(torch.randn(4, 500))
    quantizer = fitted('LSQ+', x, levels=f'uint{bits}')
    quantizer.offset.data.fill_(-0.2317)
    staircase = quantizer.staircase(x)
    assert staircase.integer_form() is None
    assert staircase.is_uniform
    codes = quantizer.codes(x)
    assert int(codes.min()) >= 0
    assert int(codes.max()) <= 2**bits - 1
