"""PACT: the formulas of the paper written out."""

import math

import pytest
import torch
from method_cases import build, fitted


@pytest.mark.parametrize('clip', [0.3, 1.0, 6.0])
@pytest.mark.parametrize('bits', [2, 4])
def test_gradients_are_the_papers(clip, bits):
    quantizer = build('PACT', levels=f'uint{bits}', clip_init=clip).double()
    quantizer.calibrated.fill_(True)
    quantizer.refresh()
    quantizer.clip.data.fill_(clip)
    x = 2 * torch.randn(4, 30, dtype=torch.float64)
    grad = torch.randn_like(x)
    quantized, by_x, by_clip, n = [], [], 0.0, 2**bits - 1
    for value, weight in zip(x.flatten().tolist(), grad.flatten().tolist(), strict=True):
        clipped = 0.5 * (abs(value) - abs(value - clip) + clip)
        quantized.append(math.floor(clipped * n / clip + 0.5) * clip / n)
        by_x.append(weight if 0 <= value < clip else 0.0)
        by_clip += weight if value >= clip else 0.0
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y.flatten(), y.new_tensor(quantized))
    torch.testing.assert_close(x.grad.flatten(), y.new_tensor(by_x))
    assert float(quantizer.clip.grad) == pytest.approx(by_clip)


def test_initial_levels():
    x = torch.randn(4, 500).relu()
    assert float(fitted('PACT', x, clip_init='max').clip) == float(x.max())
    assert float(fitted('PACT', x, clip_init=10).clip) == 10
    least = fitted('PACT', x)
    best = (least.eval()(x) - x).square().mean()
    for factor in (0.8, 1.25):
        other = fitted('PACT', x, clip_init=factor * float(least.clip))
        assert (other.eval()(x) - x).square().mean() > best


def test_a_level_that_an_optimizer_takes_below_zero_comes_back():
    x = torch.rand(4, 50)
    quantizer = fitted('PACT', x)
    quantizer.clip.data.fill_(-0.5)
    assert quantizer(x).isfinite().all()
    optimizer = torch.optim.SGD([quantizer.clip], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (quantizer(x) - x).square().mean().backward()
        optimizer.step()
    assert float(quantizer.clip) > 0.5
