"""Ternary Weight Networks: the formulas of the paper written out."""

import pytest
import torch
from method_cases import fitted


@pytest.mark.parametrize('case', ['TWN', 'TWN, channels'])
def test_it_is_the_papers(case):
    x = torch.randn(4, 50, dtype=torch.float64)
    quantizer = fitted(case, x).double()
    grad = torch.randn_like(x)
    expected = []
    for row in [x[i] for i in range(4)] if 'channels' in case else [x.flatten()]:
        values = row.tolist()
        delta = 0.7 * sum(map(abs, values)) / len(values)
        above = [abs(value) for value in values if abs(value) > delta]
        alpha = sum(above) / len(above)
        expected += [alpha * ((value > delta) - (value < -delta)) for value in values]
    x.requires_grad_()
    y = quantizer(x)
    y.backward(grad)
    torch.testing.assert_close(y.flatten(), y.new_tensor(expected))
    torch.testing.assert_close(x.grad, grad)


def test_zeros_stay_zeros():
    x = torch.zeros(4, 20)
    assert not fitted('TWN', x)(x).any()
