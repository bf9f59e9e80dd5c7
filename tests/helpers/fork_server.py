"""Real processes of the tools that need not import everything again: forks of one that has."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_SERVER = """
import json, os, runpy, sys, traceback
import mmqnet, mmqnet.engine.hooks, mmqnet.engine.optimizers, mmqnet.models
import mmqnet.command_line.checkpoints, mmqnet.command_line.configs
import mmqnet.command_line.runners, mmqnet.command_line.training_hints
import mmdet.datasets, mmdet.engine, mmdet.evaluation, mmdet.models, mmdet.visualization
from mmengine.hub import get_config
from mmengine.utils.dl_utils import collect_env
from quick_start import make_quick

make_quick()
get_config('mmdet::ssd/ssd300_coco.py')  # the base of most; reads the metafiles
collect_env()  # for the logs; imports what it needs
replies = open(int(sys.argv[1]), 'w', buffering=1)  # what is imported may print
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, file=replies)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=replies)
        continue
    os.setsid()
    os.environ.update(request['environment'])
    os.chdir(request['working_directory'])
    ranks = []
    for rank in range(1, request['processes']):
        pid = os.fork()
        if not pid:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            ranks = []
            break
        ranks.append(pid)
    output = os.open(request['output'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = request['command']
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name='__main__')
    failed = [pid for pid in ranks if os.waitpid(pid, 0)[1]]
    sys.exit(bool(failed))
"""


class ForkServer:
    """Run one script after another, each in its own process and session.

    Args:
        root: The first entry of the module search path.
        folder: For what they print.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        helpers = Path(__file__).parent
        environment = {
            **os.environ,
            'PYTHONPATH': f'{root}{os.pathsep}{helpers}',
            'OMP_NUM_THREADS': '1',
        }
        receiving, sending = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, '-c', _SERVER, str(sending)],
            cwd=root, env=environment, text=True, pass_fds=[sending],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(sending)
        self._replies = os.fdopen(receiving)
        self._root = root
        self._output = folder / 'output.txt'

    def start(
        self,
        script: Path | str,
        *arguments: object,
        processes: int = 1,
        working_directory: Path | None = None,
    ) -> None:
        """Start a script; the one before must have ended.

        Args:
            script: Its path.
            arguments: Of its command line.
            processes: They find each other as those that ``torchrun`` starts.
            working_directory: Of the script. Default: ``root``.
        """
        self._output.write_text('')
        request = dict(
            command=[str(script), *map(str, arguments)],
            output=str(self._output),
            processes=processes,
            environment=_environment(processes),
            working_directory=str(working_directory or self._root),
        )
        self._server.stdin.write(json.dumps(request) + '\n')
        self._server.stdin.flush()
        self._pid = int(self._replies.readline())

    def wait(self) -> tuple[int, str]:
        """Wait for its end and return its exit code and what it printed."""
        code = int(self._replies.readline())
        return code, self.output()

    def output(self) -> str:
        """Return what it has printed so far."""
        return self._output.read_text()

    def is_running(self) -> bool:
        """Return whether the server has not told its end yet."""
        return not select.select([self._replies], [], [], 0)[0]

    def run(self, script: Path | str, *arguments: object, **options: Any) -> tuple[int, str]:
        """Start a script, with the options of :meth:`start`, and wait for its end."""
        self.start(script, *arguments, **options)
        return self.wait()

    def kill_when(self, moment) -> tuple[int, str]:
        """Kill the script with all its processes as soon as ``moment()`` is true.

        One that has ended by then has the code of its end.
        """
        deadline = time.monotonic() + 300
        while not moment():
            assert time.monotonic() < deadline, self.output()[-3000:]
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._replies.close()
        self._server.wait(timeout=60)


def _environment(processes: int) -> dict[str, str]:
    if processes == 1:
        return {}
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    rank = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE=str(processes))
    return dict(**rank, MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
