"""What becomes of one input: each is read in a process of its own."""

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mmqnet.failures import is_foreseen, one_line

KINDS = ('success', 'message', 'traceback', 'hang', 'crash', 'half-written file')


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        kind: One of ``KINDS``; the first two are right.
        text: The message, or the end of the traceback.
    """

    kind: str
    text: str = ''

    @property
    def is_fault(self) -> bool:
        """Whether something has to be mended."""
        return self.kind not in KINDS[:2]


def outcome_of(case: Callable[[Path], None], folder: Path, seconds: float) -> Outcome:
    """Run a case in a fork of this process.

    Args:
        case: Reads an input; gets an empty folder for it and for what is written.
        folder: That folder.
        seconds: After which it counts as hanging.
    """
    receiving, sending = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(receiving)
        _be_case(case, folder, sending)
    os.close(sending)
    ready = select.select([receiving], [], [], seconds)[0]
    if not ready:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(receiving) as reply:
        text = reply.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ready:
        return Outcome('hang', f'after {seconds} s')
    outcome = Outcome(**json.loads(text)) if text else Outcome('crash', f'exit code {status}')
    left = [path.name for path in folder.rglob('*.part')]
    return Outcome('half-written file', left[0]) if left and not outcome.is_fault else outcome


def _be_case(case: Callable[[Path], None], folder: Path, sending: int) -> None:
    """Run a case, send its outcome, and end this process without the parent's clean-up."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.stdin.close()
    try:
        case(folder)
        outcome = Outcome('success')
    except BaseException as error:
        outcome = _of_error(error)
    os.write(sending, json.dumps(asdict(outcome)).encode()[:60000])
    os._exit(0)


def _of_error(error: BaseException) -> Outcome:
    if is_foreseen(error):
        return Outcome('message', one_line(error)[:500])
    lines = traceback.format_exception(error)
    return Outcome('traceback', ''.join(lines)[-3000:])
