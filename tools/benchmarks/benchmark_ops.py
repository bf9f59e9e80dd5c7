# Copyright (c) mmqnet developers. All rights reserved.
"""Time the quantization function, forward and backward, against its peers.

    python tools/benchmarks/benchmark_ops.py

prints a table of times and writes it as json and as a picture. Runs of all functions are
interleaved, so that a busy machine slows all of them; ratios are medians over the runs of one
function's time over another's in the same run.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmqnet.ops import kmeans_1d, soft_quantize
from mmqnet.ops.kernel import kernel_unavailable

Function = Callable[[Tensor], Tensor]
SIZES = {'small': (1, 64, 28, 28), 'middle': (4, 64, 56, 56), 'large': (8, 64, 75, 75)}
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
LEVELS = (1, 2, 3, 6, 15, 31, 255)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmarks/ops'), help='path without suffix'
    )
    parser.add_argument(
        '--levels', type=int, nargs='+', default=LEVELS, help='numbers of thresholds'
    )
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES))
    parser.add_argument('--temperatures', type=float, nargs='+', default=[1.0, 10.0, 100.0])
    parser.add_argument('--repeats', type=int, default=9, help='interleaved runs')
    parser.add_argument(
        '--clock',
        choices=CLOCKS,
        default='wall',
        help='cpu: processor time, for one thread on a busy machine',
    )
    parser.add_argument(
        '--reference-up-to', type=int, default=255, help='largest n for the reference loop'
    )
    return parser.parse_args()


class ReferenceLoop(torch.autograd.Function):
    """The structure of the paper's code: a loop of sigmoids, and again in the backward pass."""

    @staticmethod
    def forward(ctx, x, levels, thresholds, alpha, beta, temperature):  # noqa: D102
        ctx.save_for_backward(x, levels, thresholds, alpha, beta)
        ctx.temperature = temperature
        y = torch.full_like(x, levels[0].item())
        scaled = x * beta
        for gap, threshold in zip(levels.diff(), thresholds, strict=False):
            y += gap * torch.sigmoid(temperature * (scaled - threshold))
        return y * alpha

    @staticmethod
    def backward(ctx, grad):  # noqa: D102
        x, levels, thresholds, alpha, beta = ctx.saved_tensors
        value, slope = torch.full_like(x, levels[0].item()), torch.zeros_like(x)
        scaled = x * beta
        for gap, threshold in zip(levels.diff(), thresholds, strict=False):
            sigmoid = torch.sigmoid(ctx.temperature * (scaled - threshold))
            value += gap * sigmoid
            slope += gap * sigmoid * (1 - sigmoid)
        slope *= grad * alpha * ctx.temperature
        return slope * beta, None, None, (grad * value).sum(), (slope * x).sum(), None


def scales(n: int) -> tuple[Tensor, Tensor]:
    """Scales alpha and beta as the paper initialises them for values up to 4."""
    beta = torch.tensor(1.25 * max(n // 2, 1) / 4)
    return (1 / beta).requires_grad_(), beta.requires_grad_()


def ours(n: int, kind: str, temperature: float, sample: Tensor) -> Function:
    alpha, beta = scales(n)
    levels = torch.arange(n + 1.0) - n // 2
    thresholds = (levels[1:] + levels[:-1]) / 2
    if kind == 'kmeans':
        centres = kmeans_1d(sample * beta.detach(), n + 1)
        thresholds = (centres[1:] + centres[:-1]) / 2
    return lambda x: soft_quantize(x, levels, thresholds, alpha, beta, temperature)


def reference_loop(n: int) -> Function:
    alpha, beta = scales(n)
    levels = torch.arange(n + 1.0) - n // 2
    thresholds = (levels[1:] + levels[:-1]) / 2
    return lambda x: ReferenceLoop.apply(x, levels, thresholds, alpha, beta, 10.0)


def learned_fake_quantizer(n: int) -> Function:
    scale = torch.tensor([8.0 / n], requires_grad=True)
    zero_point = torch.zeros(1)
    low = -((n + 1) // 2)
    return lambda x: torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, zero_point, low, low + n, 1.0
    )


def brevitas_quantizer(n: int) -> Function:
    from brevitas.nn import QuantIdentity
    from brevitas.quant import Int8ActPerTensorFloat

    bits = max(2, (n + 1).bit_length() - 1)
    return QuantIdentity(
        act_quant=Int8ActPerTensorFloat, bit_width=bits, return_quant_tensor=False
    ).train()


def torchao_quantizer(n: int) -> Function:
    from torchao.quantization.quant_primitives import _fake_quantize_affine

    low = -((n + 1) // 2)
    scale, zero_point = torch.tensor([8.0 / n], requires_grad=True), torch.zeros(1)
    return lambda x: _fake_quantize_affine(x, x.shape, scale, zero_point, torch.int32, low, low + n)


def peers(n: int, reference_up_to: int) -> dict[str, Function]:
    """The peers that are installed; the others are named."""
    functions = {'relu': torch.relu, 'torch learned': learned_fake_quantizer(n)}
    for name, make in (('brevitas', brevitas_quantizer), ('torchao', torchao_quantizer)):
        try:
            functions[name] = make(n)
        except ImportError as error:
            LEFT_OUT.setdefault(name, str(error))
    if n <= reference_up_to:
        functions['reference loop'] = reference_loop(n)
    return functions


LEFT_OUT: dict[str, str] = {}


def run(
    function: Function, x: Tensor, grad: Tensor, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one forward and backward pass."""
    x.grad = None
    start = clock()
    function(x).backward(grad)
    return clock() - start


def measure(
    functions: dict[str, Function], shape: tuple[int, ...], repeats: int, clock: str
) -> dict[str, list[float]]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for function in functions.values():
        run(function, x, grad)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        for name, function in functions.items():
            # The loop takes seconds at n = 255: three runs of it are enough.
            if name != 'reference loop' or repeat < 3:
                times[name].append(run(function, x, grad, CLOCKS[clock]))
    return times


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """The median of times[over] / times[under] over the runs that both took part in."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=False))


def table_row(times: dict[str, list[float]], title: str) -> str:
    cells = [f'{name} {statistics.median(values) * 1e3:.2f} ms' for name, values in times.items()]
    return f'{title:16s} ' + ' | '.join(cells)


def benchmark(args: argparse.Namespace) -> list[dict]:
    sample = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    rows = []
    for size in args.sizes:
        for n in args.levels:
            functions = peers(n, args.reference_up_to)
            names = []
            for kind in ('uniform', 'kmeans'):
                for temperature in args.temperatures:
                    names.append(f'{kind} T={temperature:g}')
                    functions[names[-1]] = ours(n, kind, temperature, sample)
            times = measure(functions, SIZES[size], args.repeats, args.clock)
            row = dict(size=size, shape=SIZES[size], n=n, seconds=times)
            row['over_torch_learned'] = {
                name: ratio(times, name, 'torch learned') for name in names
            }
            row['over_relu'] = {name: ratio(times, name, 'relu') for name in names}
            if 'reference loop' in times:
                row['reference_over'] = {
                    name: ratio(times, 'reference loop', name) for name in names
                }
            rows.append(row)
            print_row(row)
    return rows


def print_row(row: dict) -> None:
    print(table_row(row['seconds'], f'{row["size"]}, n = {row["n"]}'))
    for key in ('over_torch_learned', 'over_relu', 'reference_over'):
        if key in row:
            print(
                f'    {key:20s}'
                + ' | '.join(f'{name} {value:.2f}' for name, value in row[key].items()),
                flush=True,
            )


def draw(rows: list[dict], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print('matplotlib is not installed: no picture')
        return
    matplotlib.use('Agg')
    from matplotlib import pyplot

    sizes = list(dict.fromkeys(row['size'] for row in rows))
    figure, axes = pyplot.subplots(
        1, len(sizes), figsize=(5 * len(sizes), 4), squeeze=False, sharey=True
    )
    for axis, size in zip(axes[0], sizes, strict=False):
        chosen = [row for row in rows if row['size'] == size]
        for name in chosen[0]['seconds']:
            with_name = [row for row in chosen if name in row['seconds']]
            times = [statistics.median(row['seconds'][name]) * 1e3 for row in with_name]
            axis.plot([row['n'] for row in with_name], times, marker='.', label=name)
        axis.set(
            title=f'{size} {chosen[0]["shape"]}', xlabel='thresholds', xscale='log', yscale='log'
        )
    axes[0][0].set_ylabel('forward + backward, ms')
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    args = parse_args()
    kernel = kernel_unavailable()
    print(f'kernel: {"plain torch, " + kernel if kernel else torch.ops.mmqnet.instruction_set()}')
    rows = benchmark(args)
    for name, reason in LEFT_OUT.items():
        print(f'left out: {name} ({reason})')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = dict(
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        clock=args.clock,
        machine=platform.machine(),
        left_out=LEFT_OUT,
        rows=rows,
    )
    args.out.with_suffix('.json').write_text(json.dumps(report, indent=1))
    draw(rows, args.out.with_suffix('.png'))
    print(f'written: {args.out.with_suffix(".json")} and .png')


if __name__ == '__main__':
    main()
