"""Real processes of the tools that need not import everything again: forks of one that has."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SERVER = """
import json, os, runpy, sys, traceback
import mmqnet, mmqnet.engine.hooks, mmqnet.command_line, mmqnet.engine.optimizers, mmqnet.models
import mmdet.datasets, mmdet.evaluation, mmdet.models, mmdet.visualization

replies = open(int(sys.argv[1]), 'w', buffering=1)  # what is imported may print
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, file=replies)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=replies)
        continue
    os.setsid()
    output = os.open(request['output'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = request['command']
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name='__main__')
    sys.exit()
"""


class ForkServer:
    """Run one script after another, each in its own process and session.

    Args:
        root: The first entry of the module search path.
        folder: For what they print.
        working_directory: Of the scripts. Default: ``root``.
    """

    def __init__(self, root: Path, folder: Path, working_directory: Path | None = None) -> None:
        helpers = Path(__file__).parent
        environment = {
            **os.environ,
            'PYTHONPATH': f'{root}{os.pathsep}{helpers}',
            'OMP_NUM_THREADS': '1',
        }
        receiving, sending = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, '-c', _SERVER, str(sending)],
            cwd=working_directory or root, env=environment, text=True, pass_fds=[sending],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(sending)
        self._replies = os.fdopen(receiving)
        self._output = folder / 'output.txt'

    def start(self, script: Path | str, *arguments: object) -> None:
        """Start a script; the one before must have ended."""
        command = [str(script), *map(str, arguments)]
        self._server.stdin.write(json.dumps(dict(command=command, output=str(self._output))) + '\n')
        self._server.stdin.flush()
        self._pid = int(self._replies.readline())

    def wait(self) -> tuple[int, str]:
        """Wait for its end and return its exit code and what it printed."""
        code = int(self._replies.readline())
        return code, self._output.read_text()

    def run(self, script: Path | str, *arguments: object) -> tuple[int, str]:
        """Start a script and wait for its end."""
        self.start(script, *arguments)
        return self.wait()

    def kill_when(self, moment) -> tuple[int, str]:
        """Kill the script with all its processes as soon as ``moment()`` is true.

        One that has ended by then has the code of its end.
        """
        deadline = time.monotonic() + 300
        while not moment():
            assert time.monotonic() < deadline, self._output.read_text()[-3000:]
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._replies.close()
        self._server.wait(timeout=60)
