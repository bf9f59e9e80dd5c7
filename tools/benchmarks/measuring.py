"""Times of functions that are run in turns, so that a busy machine slows all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


@dataclass(frozen=True)
class Settings:
    """What all measurements share.

    Attributes:
        threads: Of torch.
        clock: ``'wall'``, or ``'cpu'`` for processor time: one thread on a busy machine.
        quick: Tiny sizes and single runs, to try the tools themselves.
    """

    threads: int
    clock: str
    quick: bool


@dataclass(frozen=True)
class Ratio:
    """A measured ratio, with the target that it is held against.

    Attributes:
        value: The ratio.
        at_most: Largest value that is good enough, or None.
        at_least: Smallest value that is good enough, or None.
    """

    value: float
    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        sign, limit = ('<=', self.at_most) if self.at_least is None else ('>=', self.at_least)
        if limit is None:
            return f'{self.value:.3g}'
        return f'{self.value:.3g} ({sign} {limit:g}{"" if self.is_met else " missed"})'

    @property
    def is_met(self) -> bool:
        """Whether the target, if any, is reached."""
        too_large = self.at_most is not None and self.value > self.at_most
        return not too_large and (self.at_least is None or self.value >= self.at_least)


@dataclass(frozen=True)
class Row:
    """The result of one case.

    Attributes:
        ratios: By column of the table.
        raw: What was measured, for the json: seconds or MiB by subject, run by run.
        left_out: Peers that are not installed, with the reason.
    """

    ratios: dict[str, Ratio]
    raw: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)


# A part of the benchmark is a dict of cases by name.
Cases = dict[str, Callable[[], Row]]


def interleave(
    functions: Mapping[str, Callable[[], object]],
    repeats: int | Mapping[str, int],
    settings: Settings,
) -> dict[str, list[float]]:
    """Run all functions once to warm up, then in turns.

    Args:
        functions: By name.
        repeats: Measured runs of all functions or of each.
        settings: With the clock.

    Returns:
        dict[str, list[float]]: Seconds of each run.
    """
    clock = CLOCKS[settings.clock]
    counts = dict.fromkeys(functions, repeats) if isinstance(repeats, int) else repeats
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for turn in range(max(counts.values())):
        for name, function in functions.items():
            if turn < counts[name]:
                start = clock()
                function()
                seconds[name].append(clock() - start)
    return seconds


def median_ratio(seconds: Mapping[str, list[float]], over: str, under: str) -> float:
    """Return the median over the turns of one function's time over another's in the same turn."""
    return statistics.median(
        a / b for a, b in zip(seconds[over], seconds[under], strict=False) if b > 0
    )
