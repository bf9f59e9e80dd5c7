"""Quantized layers in torch.compile and torch.export."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from toy_models import calibrated

from mmqnet.layers import QuantConv2d
from mmqnet.quantizers import Mode, quantizers_of

METHODS = dict(
    paper=(dict(levels='binary', backward_temperature=1), dict(levels='uint2')),
    channels=(
        dict(levels='pm4', granularity='channel'),
        dict(levels='uint4', thresholds='uniform', surrogate_temperature=6),
    ),
    learned_thresholds=(dict(levels='ternary', learn_thresholds=True), dict(levels='uint8')),
)


@pytest.fixture
def build():
    def convolution(method):
        torch.manual_seed(0)
        weight, activation = METHODS[method]
        conv = QuantConv2d(3, 8, 3, weight_quantizer=weight, input_quantizer=activation)
        return calibrated(conv, torch.rand(2, 3, 16, 16)).train()

    return convolution


def train(layer, called, steps=4):
    """Some steps, T from step to step another one; returns the losses."""
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    losses = []
    for step in range(steps):
        for quantizer in quantizers_of(layer).values():
            quantizer.set_temperature(1.0 + 3 * step)
        optimizer.zero_grad()
        losses.append(called(x).square().mean())
        losses[-1].backward()
        optimizer.step()
    return torch.stack(losses).detach()


@pytest.mark.parametrize('method', METHODS)
def test_compiled_training_has_no_break_and_no_recompilation(build, method):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled, eager = build(method), build(method)
    losses = train(compiled, torch.compile(compiled, backend=counter, fullgraph=True))
    assert counter.frame_count == 1
    torch.testing.assert_close(losses, train(eager, eager))
    for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('mode', [Mode.FLOAT, Mode.FIXED])
def test_other_modes_compile_too(build, mode):
    torch._dynamo.reset()
    layers = build('paper'), build('paper')
    for layer in layers:
        layer.input_quantizer.set_mode(mode)
    compiled = torch.compile(layers[0], backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(train(layers[0], compiled), train(layers[1], layers[1]))
    for parameter in layers[0].input_quantizer.parameters():
        assert not parameter.grad.any()


@pytest.mark.parametrize('method', METHODS)
def test_each_quantizer_is_one_node_of_an_exported_graph(build, method):
    layer, x = build(method).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = layer(x)
        exported = torch.export.export(layer, (x,))
        assert torch.equal(exported.module()(x), expected)
    nodes = [n for n in exported.graph.nodes if n.target is torch.ops.mmqnet.hard_quantize.default]
    assert len(nodes) == len(quantizers_of(layer))
