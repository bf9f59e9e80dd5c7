"""How many threads compute, and how they wait; to be called before torch is imported."""

import os
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

# OpenMP's threads meet at the end of every loop. While one of them has lost its core to another
# program, the others spin, by default for milliseconds, and take the cores that it waits for. After
# so few rounds (about 10 us) they sleep.
_SPIN_ROUNDS = '5000'  # of libgomp, which torch's wheels for Linux bring
_SPIN_MILLISECONDS = '0'  # of Intel's and LLVM's OpenMP
_SECONDS = 0.1  # of watching the machine


def choose_threads(launcher: str = 'none') -> int | None:
    """Choose OpenMP's threads and waiting, unless the user has.

    Beside other programs, a thread for each core makes a small model's training several times
    slower than one thread does. So there are as many threads as cores that are free when the
    program starts, and at least one; programs that start later cost less than they would, because
    threads do not spin. An explicit ``OMP_NUM_THREADS`` is left as it is.

    Args:
        launcher: How the processes were started. With several of them, MMEngine and torchrun give
            each one thread, and nothing is chosen here. Default: one process.

    Returns:
        int or None: The chosen number of threads; None if there was nothing to choose.

    Example:
        >>> choose_threads(launcher='slurm') is None
        True
    """
    if 'torch' in sys.modules:  # OpenMP has read its settings
        return None
    set_waiting(os.environ)
    if 'OMP_NUM_THREADS' in os.environ or launcher != 'none':
        return None
    threads = free_cores()
    os.environ['OMP_NUM_THREADS'] = str(threads)
    return threads


def set_waiting(environment: MutableMapping[str, str]) -> None:
    """Make threads that wait sleep soon, unless the environment says how they wait."""
    if 'OMP_WAIT_POLICY' not in environment:
        environment.setdefault('GOMP_SPINCOUNT', _SPIN_ROUNDS)
        environment.setdefault('KMP_BLOCKTIME', _SPIN_MILLISECONDS)


def free_cores(seconds: float = _SECONDS) -> int:
    """Return how many of the cores that this process may use are free, at least 1.

    Args:
        seconds: How long to watch. Default 0.1.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    before = _idle_ticks()
    if not cores or not before:  # not on Linux
        return max(1, len(cores) or os.cpu_count() or 1)
    start = time.monotonic()
    time.sleep(seconds)
    after, took = _idle_ticks(), time.monotonic() - start
    ticks = os.sysconf('SC_CLK_TCK') * took
    idle = sum(min(1.0, (after[core] - before[core]) / ticks) for core in cores if core in after)
    return max(1, round(idle))


def _idle_ticks() -> dict[int, int]:
    """Return the clock ticks that each core has been idle; empty where Linux does not count."""
    try:
        lines = Path('/proc/stat').read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, *fields = line.split()
        if name.startswith('cpu') and name[3:].isdecimal():
            found[int(name[3:])] = int(fields[3]) + int(fields[4])  # waiting for a disk is idle
    return found
