"""The weights of an evaluation are computed once, and never stale."""

import copy
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from toy_models import calibrated, weight_config

from mmqnet.layers import QuantConv2d, QuantConvAWS2d, QuantLinear
from mmqnet.layers.weight_cache import WeightCache
from mmqnet.quantizers import Mode, soft_evaluation


@pytest.fixture
def layer():
    conv = QuantConv2d(3, 4, 3, weight_quantizer=dict(levels='pm4'))
    return calibrated(conv, torch.randn(1, 3, 5, 5)).eval()


@pytest.fixture
def calls(layer):
    """Grows by one whenever the weights are quantized."""
    found = []
    layer.weight_quantizer.register_forward_hook(lambda *_: found.append(1))
    return found


def fresh(layer, x):
    """What the layer gives without anything kept from before."""
    return copy.deepcopy(layer)(x)


X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_once_per_evaluation(layer, calls):
    for _ in range(5):
        out = layer(X)
    assert len(calls) == 1
    assert torch.equal(out, fresh(layer, X))


@torch.no_grad()
def test_each_evaluation_begins_anew(layer, calls):
    layer(X)
    layer.eval()(X)
    layer.train().eval()(X)
    assert len(calls) == 3


def test_with_gradients_it_is_not_kept(layer, calls):
    layer(X)
    layer(X)
    assert len(calls) == 2


@torch.inference_mode()
def test_inference_mode(layer, calls):
    layer(X)
    layer(X)
    assert len(calls) == 1


def test_a_tensor_of_inference_mode_serves_without_gradients_too(layer):
    with torch.inference_mode():
        layer(X)
    with torch.no_grad():
        assert torch.equal(layer(X), fresh(layer, X))
    layer.train()(X).sum().backward()
    assert layer.weight.grad is not None


def step(layer):
    layer.train()(X).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    layer.eval()


CHANGES = dict(
    optimizer=step,
    state_dict=lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()
                                            if k in ('weight', 'bias')}),
    data_copy=lambda m: m.weight.data.copy_(torch.randn_like(m.weight)) is m.eval(),
    data_assigned=lambda m: setattr(m.weight, 'data', m.weight.data * -2) is m.eval(),
    new_parameter=lambda m: setattr(m, 'weight', nn.Parameter(torch.randn_like(m.weight))),
    in_place=lambda m: m.weight.neg_(),
    alpha=lambda m: m.weight_quantizer.log_alpha.add_(1),
    beta=lambda m: m.weight_quantizer.log_beta.add_(1),
    thresholds=lambda m: m.weight_quantizer.thresholds.add_(1),
    float_mode=lambda m: m.weight_quantizer.set_mode(Mode.FLOAT),
    double=lambda m: m.double(),
)  # fmt: skip


@pytest.mark.parametrize('change', CHANGES)
def test_never_stale(layer, change):
    with torch.no_grad():
        before = layer(X)
    context = torch.enable_grad() if change == 'optimizer' else torch.no_grad()
    with context:
        CHANGES[change](layer)
    x = X.to(layer.weight.dtype)
    with torch.no_grad():
        after = layer(x)
        assert torch.equal(after, fresh(layer, x))
    assert after.dtype != before.dtype or not torch.equal(after, before)


@torch.no_grad()
def test_soft_evaluation_and_temperature(layer, calls):
    hard = layer(X)
    with soft_evaluation(layer):
        soft = layer(X)
        layer.weight_quantizer.set_temperature(30.0)
        steeper = layer(X)
    assert not torch.equal(hard, soft)
    assert not torch.equal(soft, steeper)
    assert torch.equal(layer(X), hard)
    assert len(calls) == 4


@torch.no_grad()
def test_buffers_that_make_the_weights():
    layer = QuantConvAWS2d(3, 4, 3, weight_quantizer=dict(levels='int8'))
    calibrated(layer, X).eval()
    before = layer(X)
    layer.weight_gamma.mul_(0.5)
    assert not torch.equal(layer(X), before)
    assert torch.equal(layer(X), fresh(layer, X))


@torch.no_grad()
def test_weights_that_are_not_numbers_are_not_kept_either(layer, calls):
    layer.weight[0] = float('nan')
    assert layer(X).isnan().any()
    layer.weight.fill_(0.1)
    assert not layer(X).isnan().any()


@pytest.mark.parametrize('copy_of', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@torch.no_grad()
def test_copies_do_not_carry_it(layer, copy_of):
    size = len(pickle.dumps(layer))
    layer(X)
    assert len(pickle.dumps(layer)) == size
    clone = copy_of(layer)
    assert torch.equal(clone(X), layer(X))
    clone.weight.neg_()
    assert not torch.equal(clone(X), layer(X))


def test_clearing_frees_the_memory():
    cache, tensor = WeightCache(), torch.ones(3)
    held = weakref.ref(cache.get([tensor], None, lambda: tensor * 2))
    assert held().tolist() == [2, 2, 2]
    cache.clear()
    assert held() is None
    assert cache.get([tensor], None, lambda: tensor * 3).tolist() == [3, 3, 3]


@torch.no_grad()
def test_a_linear_layer_keeps_its_weights_too():
    layer = QuantLinear(8, 4, weight_quantizer=weight_config('ternary'))
    calibrated(layer, torch.randn(2, 8)).eval()
    calls = []
    layer.weight_quantizer.register_forward_hook(lambda *_: calls.append(1))
    layer(torch.randn(2, 8))
    layer(torch.randn(2, 8))
    assert len(calls) == 1


def test_a_model_that_is_built_in_inference_mode(layer):
    """Its tensors count no versions."""
    with torch.inference_mode():
        built = QuantConv2d(3, 4, 3, weight_quantizer=dict(levels='pm4')).eval()
        built.load_state_dict(layer.state_dict())
        assert torch.equal(built(X), layer(X))
        built.weight.mul_(-1)
        assert not torch.equal(built(X), layer(X))
        moved = copy.deepcopy(layer).to(torch.float64)
        torch.testing.assert_close(moved(X.double()).float(), layer(X))


@torch.no_grad()
def test_autocast_and_without_it(layer):
    layer, x = layer.bfloat16(), X.bfloat16()
    plain = layer(x)
    layer.eval()  # nothing is kept, so the next call fills the cache
    with torch.autocast('cpu', torch.bfloat16):
        layer(x)
    assert torch.equal(layer(x), plain)


@torch.no_grad()
def test_pruned_weights():
    layer = QuantLinear(8, 6, weight_quantizer=dict(levels='int4'))
    prune.l1_unstructured(layer, 'weight', 0.5)
    calibrated(nn.Sequential(layer), torch.rand(2, 8))
    layer.eval()
    layer(torch.rand(2, 8))
    assert (layer.quantized_weight() == 0).sum() >= 24
    layer.weight_orig.zero_()
    assert torch.equal(layer(torch.rand(1, 8))[0], layer.bias)


@torch.no_grad()
@pytest.mark.parametrize('register', [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrized_weights(register):
    layer = register(QuantLinear(6, 6, weight_quantizer=dict(levels='int4')))
    calibrated(nn.Sequential(layer), torch.rand(2, 6))
    x = torch.rand(2, 6)
    before = layer.eval()(x)
    assert torch.equal(layer(x), before)
    for parameter in layer.parametrizations.weight.parameters():
        parameter.add_(torch.rand_like(parameter))
    assert not torch.equal(layer(x), before)
