"""The soft quantizer, forward and backward, against its peers and against a copy of its bytes."""

import functools
from collections.abc import Callable

import torch
from measuring import Cases, Ratio, Row, Settings, interleave, median_ratio
from peers import SPAN, Function, ReferenceLoop, installed_peers
from torch import Tensor

from mmqnet.ops import kmeans_1d, soft_quantize
from mmqnet.quantizers import Sample, build_quantizer, quantizer_config

SIZES = {'small': (1, 64, 28, 28), 'middle': (4, 64, 56, 56), 'large': (8, 64, 75, 75)}
LEVELS = (1, 2, 3, 6, 15, 31, 255)
TEMPERATURES = (1.0, 10.0, 100.0)
REPEATS = 9
# Role and type of the other methods.
METHODS = {'LSQ': 'weight', 'PACT': 'activation', 'DoReFa': 'activation'}
REFERENCE_REPEATS = 2  # it takes seconds at n = 255
REFERENCE_TARGETS = {6: 8.0, 255: 150.0}
# Forward reads x and writes y, backward reads x and a gradient and writes one: 20 bytes an element,
# of which a copy moves 8.
FLOOR_COPIES = 2.5


def cases(settings: Settings) -> Cases:
    """Return a case for each size and number of thresholds."""
    sizes = dict(list(SIZES.items())[:1]) if settings.quick else SIZES
    levels = LEVELS[2:3] if settings.quick else LEVELS
    return {
        f'{size}, n = {n}': functools.partial(measure, shape, n, settings)
        for size, shape in sizes.items()
        for n in levels
    }


def measure(shape: tuple[int, ...], n: int, settings: Settings) -> Row:
    """Time all functions of one case."""
    peers, left_out = installed_peers(n)
    functions = {**peers, 'relu': torch.relu, 'reference loop': reference_loop(n)}
    functions.update({method: of_method(method, n) for method in METHODS})
    kinds = {
        kind: {f'{kind} T={t:g}': ours(n, kind, t) for t in TEMPERATURES}
        for kind in ('uniform', 'kmeans')
    }
    for of_kind in kinds.values():
        functions.update(of_kind)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    subjects: dict[str, Callable[[], object]] = {
        name: functools.partial(forward_backward, function, x, grad)
        for name, function in functions.items()
    }
    subjects['copy'] = functools.partial(torch.empty_like(grad).copy_, grad)
    repeats = dict.fromkeys(subjects, 1 if settings.quick else REPEATS)
    repeats['reference loop'] = min(repeats['reference loop'], REFERENCE_REPEATS)
    seconds = interleave(subjects, repeats, settings)
    names = {kind: list(of_kind) for kind, of_kind in kinds.items()}
    return Row(compare(seconds, names, n), dict(seconds=seconds), left_out)


def compare(
    seconds: dict[str, list[float]], kinds: dict[str, list[str]], n: int
) -> dict[str, Ratio]:
    """Return the columns of the table; of several temperatures the least favourable one."""

    def worst(kind: str, peer: str) -> float:
        return max(median_ratio(seconds, name, peer) for name in kinds[kind])

    ratios = {
        f'{kind} / torch learned': Ratio(
            worst(kind, 'torch learned'), at_most=1.5 if (kind, n) == ('kmeans', 255) else 1.0
        )
        for kind in kinds
    }
    for method in METHODS:
        ratio = median_ratio(seconds, method, 'torch learned')
        ratios[f'{method} / torch learned'] = Ratio(ratio, at_most=1.0 if method == 'LSQ' else None)
    for peer in ('brevitas', 'torchao'):
        if peer in seconds:
            ratios[f'uniform / {peer}'] = Ratio(worst('uniform', peer))
    for kind in kinds:
        gain = min(median_ratio(seconds, 'reference loop', name) for name in kinds[kind])
        ratios[f'loop / {kind}'] = Ratio(gain, at_least=REFERENCE_TARGETS.get(n))
    ratios['uniform / relu'] = Ratio(worst('uniform', 'relu'))
    ratios['uniform / floor'] = Ratio(worst('uniform', 'copy') / FLOOR_COPIES)
    return ratios


def forward_backward(function: Function, x: Tensor, grad: Tensor) -> None:
    x.grad = None
    function(x).backward(grad)


def scales(n: int) -> tuple[Tensor, Tensor]:
    """Return alpha and beta as the paper initializes them for values up to 4."""
    beta = torch.tensor(1.25 * max(n // 2, 1) / (SPAN / 2))
    return (1 / beta).requires_grad_(), beta.requires_grad_()


def level_set(n: int) -> tuple[Tensor, Tensor]:
    """Return integer levels around 0 and the thresholds halfway between them."""
    levels = torch.arange(n + 1.0) - n // 2
    return levels, (levels[1:] + levels[:-1]) / 2


def ours(n: int, kind: str, temperature: float) -> Function:
    alpha, beta = scales(n)
    levels, thresholds = level_set(n)
    if kind == 'kmeans':
        sample = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
        centres = kmeans_1d(sample * beta.detach(), n + 1)
        thresholds = (centres[1:] + centres[:-1]) / 2
    at = torch.tensor(temperature)
    return lambda x: soft_quantize(x, levels, thresholds, alpha, beta, at)


def of_method(method: str, n: int) -> Function:
    """Return the quantizer of another method, as it is in training."""
    role = METHODS[method]
    x = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0))
    if role == 'activation':
        levels, x = torch.arange(n + 1.0), x.relu()
    else:
        levels = level_set(n)[0] if n > 1 else torch.tensor([-1.0, 1.0])
    config = dict(type=method, levels=levels.tolist())
    quantizer = build_quantizer(quantizer_config(config, role, role))
    quantizer.initialize(Sample(x, x.abs().amax(1), signed=role == 'weight'))
    return quantizer.train()


def reference_loop(n: int) -> Function:
    alpha, beta = scales(n)
    levels, thresholds = level_set(n)
    return lambda x: ReferenceLoop.apply(x, levels, thresholds, alpha, beta, 10.0)
