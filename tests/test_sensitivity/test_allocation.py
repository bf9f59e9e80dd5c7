"""The best allocation within a budget, against all that there are; what cannot be met."""

import itertools
import time

import numpy as np
import pytest

from mmqnet.sensitivity import Allocator, Budget, Layer, Sensitivities, parse_choices

CHOICES = parse_choices(['w2-a4', 'w4-a4', 'w4-a8', 'w8-a8'])


def make_record(count, choices=CHOICES, seed=0, shared=(), **changes):
    """Measured errors of ``count`` layers; those in ``shared`` read the input of the one before."""
    random = np.random.default_rng(seed)
    layers, errors = [], {}
    for i in range(count):
        owner = f'l{i - 1}' if i in shared else f'l{i}'
        weights, inputs = f'l{i}.weight_quantizer', f'{owner}.input_quantizer'
        size, products = (int(n) for n in random.integers(1_000, 1_000_000, 2))
        layers.append(Layer(f'l{i}', size, products, 4, 4, weights, inputs))
        for name, role in ((weights, 'weight'), (inputs, 'activation')):
            level = np.exp(random.normal(0, 2))
            bits = {choice.bits(role) for choice in choices}
            errors.setdefault(name, {b: float(level * 4.0**-b) for b in sorted(bits)})
    settings = dict(method='direct', measure='loss', num_samples=8)
    return Sensitivities(settings, list(choices), layers, errors, **changes)


def by_hand(record, budgets):
    """The least error of all allocations that keep the budgets."""
    scales = {'bits': sum(layer.num_weights for layer in record.layers), 'gbops': 1e9}
    best = float('inf')
    for chosen in itertools.product(record.choices, repeat=len(record.layers)):
        pairs = list(zip(record.layers, chosen, strict=True))
        inputs = {(layer.input_quantizer, c.activation_bits) for layer, c in pairs}
        if len(inputs) != len({name for name, _ in inputs}):
            continue  # layers that read one input disagree
        costs = dict(
            bits=sum(layer.num_weights * c.weight_bits for layer, c in pairs),
            gbops=sum(layer.num_products * c.weight_bits * c.activation_bits for layer, c in pairs),
        )
        if all(costs[b.kind] <= b.most * scales[b.kind] for b in budgets):
            error = sum(record.errors[layer.weight_quantizer][c.weight_bits] for layer, c in pairs)
            best = min(best, error + sum(record.errors[name][bits] for name, bits in inputs))
    return best


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('budgets', [dict(bits=3.3), dict(gbops=0.05), dict(bits=5, gbops=0.06)])
def test_nothing_is_better(seed, budgets):
    record = make_record(6, seed=seed, shared=(2, 3))
    budgets = [Budget(*item) for item in budgets.items()]
    allocator = Allocator(record)
    found = allocator.allocate(budgets)
    for budget in budgets:
        assert allocator.cost(found, budget) <= budget.most
    assert allocator.error(found) == pytest.approx(by_hand(record, budgets), rel=1e-9)
    assert found['l1'].activation_bits == found['l2'].activation_bits


def test_layers_without_a_choice_keep_their_bits():
    record = make_record(3)
    first = record.layers[0]
    record.layers[0] = Layer(**{**vars(first), 'weight_quantizer': '', 'weight_bits': 7})
    found = Allocator(record).allocate([Budget('bits', 8)])
    assert [found[f'l{i}'].weight_bits for i in range(3)] == [7, 8, 8]


def test_budgets_count_weights_and_products():
    record = make_record(2)
    allocator = Allocator(record)
    (_, allocation, *_) = allocator.uniform().values()  # w4-a4
    weights = sum(layer.num_weights for layer in record.layers)
    products = sum(layer.num_products for layer in record.layers)
    assert allocator.cost(allocation, Budget('bits', 1)) == 4
    assert allocator.cost(allocation, Budget('kib', 1)) == weights / 2 / 1024
    assert allocator.cost(allocation, Budget('gbops', 1)) == pytest.approx(products * 16 / 1e9)


def test_the_frontier_falls_and_is_below_uniform_allocations():
    allocator = Allocator(make_record(12))
    budget = Budget('bits', 3)
    costs, errors = zip(*allocator.frontier([budget], points=6), strict=True)
    assert costs == tuple(sorted(costs))
    assert errors == tuple(sorted(errors, reverse=True))
    assert (costs[0], costs[-1]) == allocator.limits(budget) == (2, 8)
    for allocation in allocator.uniform().values():
        cost = allocator.cost(allocation, budget)
        best = allocator.allocate([Budget('bits', cost)])
        assert allocator.error(best) <= allocator.error(allocation) * (1 + 1e-9)


def test_errors_of_zero():
    record = make_record(2)
    for of_bits in record.errors.values():
        of_bits.update(dict.fromkeys(of_bits, 0.0))
    allocator = Allocator(record)
    assert allocator.cost(allocator.allocate([Budget('bits', 3)]), Budget('bits', 1)) <= 3


def test_500_layers_and_6_choices_in_a_second():
    choices = parse_choices(['w2-a4', 'w3-a4', 'w4-a4', 'w4-a8', 'w6-a8', 'w8-a8'])
    record = make_record(500, choices, shared=range(50, 100, 7))
    start = time.process_time()
    Allocator(record).allocate([Budget('bits', 3.3)])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ('budgets', 'message'),
    [
        (dict(bits=1.5), r'1\.5 bits of a weight on average cannot be met: .* allow 2 to 8$'),
        (dict(bits=3, gbops=1e-9), r'1e-09 GBOPs cannot be met: the choices allow \S+ to \S+$'),
        (dict(bits=8, kib=1), r'1 KiB of weights cannot be met: the choices allow'),
    ],
)
def test_a_budget_that_cannot_be_met(budgets, message):
    allocator = Allocator(make_record(4))
    with pytest.raises(ValueError, match=message):
        allocator.allocate([Budget(*item) for item in budgets.items()])


def test_budgets_that_exclude_each_other():
    record = make_record(1, parse_choices(['w2-a8', 'w4-a3', 'w8-a1']))
    products, weights = record.layers[0].num_products, record.layers[0].num_weights
    allocator = Allocator(record)
    gbops = Budget('gbops', products * 12.5 / 1e9)  # not of w2-a8
    message = r'2 bits .* cannot be met together: within \S+ GBOPs the choices allow 4 to 8 bits of'
    with pytest.raises(ValueError, match=message):
        allocator.allocate([Budget('bits', 2), gbops])
    allocator.allocate([Budget('bits', 4), gbops])
    kib = Budget('kib', weights * 2 / 8 / 1024)
    with pytest.raises(ValueError, match=r'KiB of weights and \S+ GBOPs cannot be met together'):
        allocator.allocate([Budget('bits', 8), kib, gbops])  # the first one is not the cause


def test_a_layer_that_no_choice_fits():
    record = make_record(3)
    record.errors['l1.input_quantizer'].clear()
    with pytest.raises(ValueError, match=r'no choice of w2-a4, .* fits the layer `l1`.* a32 too'):
        Allocator(record)
    record.choices += parse_choices(['w4-a32'])
    assert str(Allocator(record).allocate([Budget('bits', 4)])['l1']) == 'w4-a32'


def test_an_unfinished_measurement():
    record = make_record(3)
    record.errors['l1.input_quantizer'][8] = None
    with pytest.raises(ValueError, match='is not complete: the same command'):
        Allocator(record)


@pytest.mark.parametrize(
    ('kind', 'most', 'message'),
    [('bits', 0, r'`Budget\.bits` .* but got 0'), ('mib', 1, "'bits', 'kib' or 'gbops'")],
)
def test_what_is_no_budget(kind, most, message):
    with pytest.raises(ValueError, match=message):
        Budget(kind, most)
