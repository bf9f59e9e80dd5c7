"""Binary-Weight-Networks: the formulas of the paper written out."""

import pytest
import torch
from method_cases import fitted


@pytest.mark.parametrize('case', ['BWN', 'BWN, channels'])
def test_it_is_the_papers(case):
    x = torch.randn(4, 50, dtype=torch.float64)
    x[0, :3] = torch.tensor([0.0, 1.5, -1.5])
    quantizer = fitted(case, x).double()
    grad = torch.randn_like(x)
    rows = [x[i] for i in range(4)] if 'channels' in case else [x.flatten()]
    grads = [grad[i] for i in range(4)] if 'channels' in case else [grad.flatten()]
    expected, by_x = [], []
    for row, weights in zip(rows, grads, strict=True):
        n = len(row)
        alpha = sum(abs(value) for value in row.tolist()) / n
        expected += [alpha if value >= 0 else -alpha for value in row.tolist()]
        by_x += [
            weight * (1 / n + alpha * (abs(value) <= 1))
            for value, weight in zip(row.tolist(), weights.tolist(), strict=True)
        ]
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y.flatten(), y.new_tensor(expected))
    torch.testing.assert_close(x.grad.flatten(), y.new_tensor(by_x))


def test_the_scale_is_of_the_least_squared_error():
    x = torch.randn(4, 500)
    y = fitted('BWN', x).eval()(x)
    errors = [(factor * y - x).square().mean() for factor in (0.95, 1.0, 1.05)]
    assert errors[1] == min(errors)
