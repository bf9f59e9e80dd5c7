"""LSQ: the formulas of the paper written out, and torch's learned fake quantizer."""

import math

import pytest
import torch
from method_cases import build, fitted

from mmqnet.quantizers import Sample


def double(quantizer, log_step):
    quantizer.calibrated.fill_(True)
    quantizer.refresh()
    quantizer.double().log_step.data.fill_(log_step)
    return quantizer


def written_out(x, step, lowest, highest, grad):
    """Eq. 1, 2, 3 and 5, value by value: y, dL/dx and dL/ds without its factor."""
    quantized, by_x, by_step = [], [], 0.0
    for value, weight in zip(x.flatten().tolist(), grad.flatten().tolist(), strict=True):
        ratio = value / step
        nearest = math.floor(min(max(ratio, lowest), highest) + 0.5)
        quantized.append(nearest * step)
        inside = lowest < ratio < highest
        by_x.append(weight if inside else 0.0)
        if inside:
            by_step += weight * (nearest - ratio)
        else:
            by_step += weight * (lowest if ratio <= lowest else highest)
    return x.new_tensor(quantized).view_as(x), x.new_tensor(by_x).view_as(x), by_step


@pytest.mark.parametrize(
    ('case', 'shape', 'count', 'lowest', 'highest'),
    [
        ('LSQ', (5, 4, 3), 60, -8, 7),
        ('LSQ, inputs', (5, 4, 3), 12, 0, 15),  # the values of one sample
        ('LSQ, inputs', (60,), 60, 0, 15),
    ],
)
@pytest.mark.parametrize('step', [0.02, 0.3, 2.0])
def test_gradients_are_the_papers(case, shape, count, lowest, highest, step):
    quantizer = double(build(case), math.log(step))
    x = 2 * torch.randn(shape, dtype=torch.float64)
    grad = torch.randn_like(x)
    expected, by_x, by_step = written_out(x, step, lowest, highest, grad)
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, by_x)
    factor = 1 / math.sqrt(count * highest)
    # as the logarithm of a step that moves as the paper's does
    expected = torch.tensor(factor * by_step / step, dtype=torch.float64)
    torch.testing.assert_close(quantizer.log_step.grad, expected)


def test_a_step_of_sgd_moves_the_step_as_in_the_paper():
    quantizer, x = double(build('LSQ'), math.log(0.1)), torch.randn(50, dtype=torch.float64)
    grad, rate = torch.randn_like(x), 1e-5
    _, _, by_step = written_out(x, 0.1, -8, 7, grad)
    quantizer(x).backward(grad)
    moved = (quantizer.log_step.detach() - rate * quantizer.log_step.grad).exp()
    assert float(moved) - 0.1 == pytest.approx(-rate * by_step / math.sqrt(50 * 7), rel=1e-3)


def test_binary_weights_are_the_clipped_sign():
    quantizer = double(build('LSQ, binary'), math.log(0.5))
    x = torch.tensor([-2.0, -0.5, -0.2, 0.0, 0.3, 0.7], dtype=torch.float64, requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    assert y.tolist() == pytest.approx([-0.5, -0.5, -0.5, 0.5, 0.5, 0.5])
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_each_channel_has_a_step_of_its_own():
    x = torch.randn(4, 50, dtype=torch.float64)
    x *= torch.tensor([[0.5], [1.0], [2.0], [4.0]])
    grad = torch.randn_like(x)
    together = fitted('LSQ, channels', x).double()
    together(x).backward(grad)
    for i in range(4):
        alone = fitted('LSQ, least squares', x[i : i + 1], step_init='mean', levels='int4').double()
        alone(x[i]).backward(grad[i])
        steps = alone.log_step.detach(), together.log_step.detach()[i, 0]
        torch.testing.assert_close(*steps, rtol=1e-5, atol=0)
        assert float(alone.log_step.grad) == pytest.approx(
            float(together.log_step.grad[i]), rel=1e-3
        )


def test_second_derivatives_are_refused():
    quantizer = double(build('LSQ'), 0.0)
    x = torch.linspace(-1, 1, 7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(quantizer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once'):
        slope.sum().backward()


def test_ties_go_up():
    quantizer = double(build('LSQ'), 0.0)
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5], dtype=torch.float64)
    assert quantizer(x).tolist() == [-2, -1, 0, 1, 2]


def clear_values(top, step):
    """Values away from ties, and from half a step beyond the clipping range.

    Others round ties to even, and round before they clip: there their gradients go on.
    """
    x = torch.rand(3000) * (top + 4) * step - 2 * step
    ratio = x / step
    beyond = ((ratio > top) & (ratio < top + 0.6)) | ((ratio < 0) & (ratio > -0.6))
    return x[~beyond & ((ratio.frac().abs() - 0.5).abs() > 1e-3)].repeat(2, 1)


def own_results(x, grad, bits, step):
    """Return y, dL/dx and dL/ds with its factor."""
    quantizer = build('LSQ, inputs', levels=f'uint{bits}')
    quantizer.calibrated.fill_(True)
    quantizer.refresh()
    quantizer.log_step.data.fill_(math.log(step))
    x = x.clone().requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    return y.detach(), x.grad, quantizer.log_step.grad * step


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_agrees_with_the_learned_fake_quantizer_of_torch(bits):
    top, step = 2**bits - 1, 0.25
    x = clear_values(top, step)
    grad = torch.randn_like(x)
    y, by_x, by_step = own_results(x, grad, bits, step)
    scale = torch.tensor([step], requires_grad=True)
    factor = 1 / math.sqrt(x.shape[1] * top)
    x.requires_grad_()
    expected = torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, torch.zeros(1), 0, top, factor
    )
    expected.backward(grad)
    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(by_x, x.grad)
    torch.testing.assert_close(by_step, scale.grad.view(()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('bits', [2, 4])
def test_agrees_with_brevitas(bits):
    from brevitas.core.quant import IntQuant

    top, step = 2**bits - 1, 0.25
    x = clear_values(top, step)
    grad = torch.randn_like(x)
    y, by_x, by_step = own_results(x, grad, bits, step)
    unit = IntQuant(narrow_range=False, signed=False, input_view_impl=torch.nn.Identity())
    scale = torch.tensor(step, requires_grad=True)
    x.requires_grad_()
    expected = unit(scale, torch.tensor(0.0), torch.tensor(float(bits)), x)
    expected.backward(grad)
    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(by_x, x.grad)
    factor = 1 / math.sqrt(x.shape[1] * top)
    torch.testing.assert_close(by_step, factor * scale.grad, rtol=1e-3, atol=1e-4)


def test_initial_steps():
    x = torch.randn(4, 500)
    found = fitted('LSQ', x).log_step.exp()
    torch.testing.assert_close(found, 2 * x.abs().mean() / math.sqrt(7))
    found = fitted('LSQ, channels', x).log_step.exp()
    torch.testing.assert_close(found, 2 * x.abs().mean(1, keepdim=True) / math.sqrt(7))


@pytest.mark.parametrize('case', ['LSQ', 'LSQ, binary', 'LSQ, powers of two'])
def test_the_least_squared_error(case):
    x = torch.randn(4, 500)
    quantizer = fitted(case, x, step_init='mse')

    def error():
        return (quantizer.eval()(x) - x).square().mean()

    least, found = error(), quantizer.log_step.detach().clone()
    for shift in (-0.2, -0.05, 0.05, 0.2):
        quantizer.log_step.data = found + shift
        assert error() > 0.999 * least
    quantizer.initialize(Sample(x.reshape(1, -1), x.abs().amax().view(1), True))
    assert error() == least
