"""DoReFa: the formulas of the paper written out."""

import math

import pytest
import torch
from method_cases import fitted


def away_from_ties(x, levels):
    """Values whose rounding is clear, with the largest one kept."""
    steps = levels - 1
    shares = steps * (x.tanh() / (2 * x.tanh().abs().max()) + 0.5)
    x = x.clone()
    x[(shares.frac() - 0.5).abs() < 1e-4] = 0.011
    return x


@pytest.mark.parametrize(
    ('levels', 'count'),
    [([-3, -1, 1, 3], 4), (list(range(-15, 16, 2)), 16), ('ternary', 3), ('int4', 15)],
)
def test_weights_are_the_papers(levels, count):
    x = away_from_ties(torch.randn(4, 50, dtype=torch.float64), count)
    quantizer = fitted('DoReFa', x, levels=levels).double()
    grad = torch.randn_like(x)
    flat, steps = x.flatten().tolist(), count - 1
    largest = max(abs(math.tanh(value)) for value in flat)
    at = next(i for i, value in enumerate(flat) if abs(math.tanh(value)) == largest)
    expected, by_x = [], []
    for value, weight in zip(flat, grad.flatten().tolist(), strict=True):
        share = math.tanh(value) / (2 * largest) + 0.5
        expected.append(2 * math.floor(steps * share + 0.5) / steps - 1)
        by_x.append(weight * (1 - math.tanh(value) ** 2) / largest)
    # through the maximum: -tanh(w) / max^2 of every weight
    through = sum(
        -weight * math.tanh(value) / largest**2
        for value, weight in zip(flat, grad.flatten().tolist(), strict=True)
    )
    by_x[at] += through * math.copysign(1 - largest**2, flat[at])
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y.flatten(), y.new_tensor(expected))
    torch.testing.assert_close(x.grad.flatten(), y.new_tensor(by_x))


def test_binary_weights_are_the_papers():
    x = torch.randn(4, 50, dtype=torch.float64)
    quantizer = fitted('DoReFa, binary', x).double()
    grad = torch.randn_like(x)
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y, x.detach().sign() * x.detach().abs().mean())
    torch.testing.assert_close(x.grad, grad)


def test_activations_are_the_papers():
    x = torch.linspace(-0.5, 1.5, 201, dtype=torch.float64).view(3, 67)
    quantizer = fitted('DoReFa, inputs', x.relu()).double()
    expected = [math.floor(3 * min(max(v, 0), 1) + 0.5) / 3 for v in x.flatten().tolist()]
    x.requires_grad_()
    y = quantizer(x)
    y.sum().backward()
    torch.testing.assert_close(y.flatten(), y.new_tensor(expected))
    assert torch.equal(x.grad.bool(), (x >= 0) & (x <= 1))


@pytest.mark.parametrize('levels', ['ternary', [-3, -1, 1, 3]])
def test_rescaled_weights_are_nearer(levels):
    x = 0.02 * torch.randn(4, 500)
    plain, rescaled = (fitted('DoReFa', x, levels=levels, rescale=r).eval() for r in (False, True))
    error = (rescaled(x) - x).square().mean()
    assert error < 0.9 * x.square().mean()
    ratio = rescaled(x) / plain(x)
    assert float(ratio[ratio.isfinite()].std()) < 1e-6
    for factor in (0.98, 1.02):
        assert (factor * rescaled(x) - x).square().mean() > error


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('levels', ['ternary', [-3, -1, 1, 3]])
@pytest.mark.parametrize('size', [0.0, 1e-25])
def test_weights_of_a_dead_layer_move_by_what_a_step_of_sgd_asks(size, levels, rescale):
    x = size * torch.randn(4, 50)
    quantizer = fitted('DoReFa', x, levels=levels, rescale=rescale)
    x.requires_grad_()
    quantizer(x).sum().backward()
    assert (x.grad >= 1).all()
    assert (x.grad <= 3).all()
