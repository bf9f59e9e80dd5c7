"""Seconds of a training step, on a quiet machine and beside busy loops, with three settings.

    python tools/benchmarks/threads.py [--busy 2] [--rounds 5]

``before`` is torch's default, a spinning thread for each core; ``after`` is what the tools choose
when they start; ``one`` is ``OMP_NUM_THREADS=1``. Each figure is the median step of the demo's
float SSD, of processes that take turns.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from mmqnet.command_line import choose_threads, positive_integer

SETTINGS = ('before', 'after', 'one')
CONTROLLED = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
WARM_UP = 2  # steps that are not counted


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--busy', type=positive_integer, default=2, help='busy loops (default 2)')
    parser.add_argument('--rounds', type=positive_integer, default=5, help='turns (default 5)')
    parser.add_argument('--steps', type=positive_integer, default=10, help='steps of a process')
    parser.add_argument('--measure', choices=SETTINGS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(setting: str, steps: int) -> tuple[int, float]:
    """Return torch's threads and the median seconds of a step; runs in a process of its own."""
    if setting == 'after':
        choose_threads()
    import torch
    from networks import FLOAT, Network, build_run

    run = build_run(Network('demo/_base_/ssd_r18_digits_qat.py', 8, 128), FLOAT, 'train')
    for sample in run.batch['data_samples']:
        sample.gt_instances.labels %= 10
    seconds = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        run.train()
        seconds.append(time.perf_counter() - start)
    return torch.get_num_threads(), statistics.median(seconds[WARM_UP:])


def start(setting: str, steps: int) -> tuple[int, float]:
    """Measure one setting in a new process."""
    variables = {key: value for key, value in os.environ.items() if key not in CONTROLLED}
    if setting == 'one':
        variables['OMP_NUM_THREADS'] = '1'
    command = [sys.executable, __file__, '--measure', setting, '--steps', str(steps)]
    result = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    threads, seconds = result.stdout.split()[-2:]
    return int(threads), float(seconds)


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep cores busy within the block."""
    loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(number)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def compare(title: str, rounds: int, steps: int) -> None:
    """Print the median of each setting, and its ratio to ``before``."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in SETTINGS}
    for _ in range(rounds):
        for name in SETTINGS:
            found[name].append(start(name, steps))
    medians = {name: statistics.median(s for _, s in pairs) for name, pairs in found.items()}
    for name, pairs in found.items():
        threads = '/'.join(map(str, sorted({number for number, _ in pairs})))
        ratio = medians[name] / medians['before']
        print(f'{title:18} {name:8} {threads:>7} {medians[name]:8.3f} {ratio:8.2f}', flush=True)


def main() -> None:
    args = parse_args()
    if args.measure:
        print(*measure(args.measure, args.steps))
        return
    print(f'{"":18} {"":8} {"threads":>7} {"s a step":>8} {"/ before":>8}')
    compare('without loops', args.rounds, args.steps)
    with busy_loops(args.busy):
        compare(f'{args.busy} busy loops', args.rounds, args.steps)


if __name__ == '__main__':
    main()
