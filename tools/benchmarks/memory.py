"""Peak memory of training steps, each model in a process of its own.

As a program it is that process: ``python memory.py NETWORK RECIPE [--quick]`` prints MiB as json.
"""

import argparse
import functools
import json
import subprocess
import sys
from pathlib import Path

from measuring import Cases, Ratio, Row, Settings
from networks import FLOAT, NETWORKS, QUICK, build_run, shrink

TARGETS: dict[str, dict[str, float | None]] = {
    'SSD300-VGG16': {'w3-a32': 1.15, 'w3-a8': 1.5},
    'ResNet-18': {'w3-a32': None, 'w2-a2': None},
}
STEPS = 2  # the optimizer's buffers are there from the second on


def cases(settings: Settings) -> Cases:
    """Return a case for each network; none without ``/proc``."""
    if not Path('/proc/self/clear_refs').exists():
        return {}
    recipes = QUICK if settings.quick else TARGETS
    return {
        name: functools.partial(measure, name, targets, settings)
        for name, targets in recipes.items()
    }


def measure(name: str, targets: dict[str, float | None], settings: Settings) -> Row:
    """Run one process after the other."""
    mebibytes = {recipe: run_process(name, recipe, settings) for recipe in (FLOAT, *targets)}
    ratios = {}
    for recipe, target in targets.items():
        value = mebibytes[recipe]['steps'] / mebibytes[FLOAT]['steps']
        ratios[f'{recipe} / float'] = Ratio(value, at_most=target)
    return Row(ratios, dict(mebibytes=mebibytes))


def run_process(name: str, recipe: str, settings: Settings) -> dict[str, float]:
    """Return the peak of a new process in MiB: ``imports`` before the model, ``steps`` after."""
    command = [
        sys.executable,
        '-W',
        'ignore',
        __file__,
        name,
        recipe,
        f'--threads={settings.threads}',
    ]
    if settings.quick:
        command.append('--quick')
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def resident(key: str) -> float:
    """Return a line of ``/proc/self/status``, ``'VmRSS'`` or its peak ``'VmHWM'``, in MiB."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f'{key}:'))


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('network', choices=NETWORKS)
    parser.add_argument('recipe')
    parser.add_argument('--threads', type=int, required=True)
    parser.add_argument('--quick', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    imports = resident('VmRSS')
    network = NETWORKS[args.network]
    run = build_run(shrink(network) if args.quick else network, args.recipe, 'train')
    Path('/proc/self/clear_refs').write_text('5')  # forgets the peak of building the model
    for _ in range(STEPS):
        run.train()
    print(json.dumps(dict(imports=imports, steps=resident('VmHWM') - imports)))


if __name__ == '__main__':
    main()
