"""Cases after cases, with a record from which an interrupted campaign goes on."""

import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from fuzzing import annotations, checkpoints, configs, exported
from fuzzing.judge import KINDS, Outcome, outcome_of
from mmqnet.atomic import write_text

# How many cases a whole campaign has of each group.
GROUPS = dict(configs=2000, checkpoints=500, annotations=300, exported=200)
_PREPARE = dict(
    configs=configs.prepare,
    checkpoints=checkpoints.prepare,
    annotations=annotations.prepare,
    exported=exported.prepare,
)
SECONDS = 60.0  # after which a case hangs
_STRIDE = 25  # cases between two writings of the record


@dataclass
class Group:
    """What became of the cases of one group.

    Attributes:
        done: How many cases were tried.
        counts: Of them by :data:`KINDS`.
        faults: Number and outcome of those that have to be mended.
        messages: The first ones, to be read by a person.
    """

    done: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.counts[outcome.kind] += 1
        if outcome.is_fault:
            self.faults.append((self.done, outcome.kind, outcome.text))
        elif outcome.text and len(self.messages) < 100:
            self.messages.append(outcome.text)
        self.done += 1


def run(numbers: dict[str, int], seed: int, record: Path | None) -> dict[str, Group]:
    """Try the cases that the record does not hold yet.

    Args:
        numbers: Of cases, by group.
        seed: With the number of a case it gives the case.
        record: JSON file to write and to go on from; None for none.
    """
    groups = {name: Group() for name in numbers}
    if record is not None and record.exists():
        saved = json.loads(record.read_text())
        if saved['seed'] != seed:
            raise ValueError(f'{str(record)!r} is of seed {saved["seed"]}, but --seed is {seed}')
        groups |= {name: Group(**g) for name, g in saved['groups'].items() if name in numbers}
    for name, number in numbers.items():
        for _ in _cases(name, groups[name], number, seed):
            if record is not None:
                content = dict(seed=seed, groups={n: asdict(g) for n, g in groups.items()})
                write_text(record, json.dumps(content, indent=1) + '\n')
    return groups


def _cases(name: str, group: Group, number: int, seed: int) -> Iterator[None]:
    """Try the cases of a group, and yield where the record should be written."""
    if group.done >= number:
        return
    with tempfile.TemporaryDirectory() as folder:
        case = _PREPARE[name](Path(folder))
        for i in tqdm(range(group.done, number), desc=name, unit='case', leave=False):
            rng = random.Random(f'{seed} {name} {i}')
            with tempfile.TemporaryDirectory() as place:
                group.add(outcome_of(case(rng), Path(place), SECONDS))
            if group.done % _STRIDE == 0:
                yield
    yield


def table(groups: dict[str, Group]) -> str:
    """Return the figures as Markdown."""
    lines = [f'| inputs | cases | {" | ".join(KINDS)} |', '|---' * (len(KINDS) + 2) + '|']
    for name, group in groups.items():
        counts = Counter(group.counts)
        lines.append(f'| {name} | {group.done} | {" | ".join(str(counts[k]) for k in KINDS)} |')
    return '\n'.join(lines)
