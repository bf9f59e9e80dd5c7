"""Create a virtual environment in which mmqnet is developed, tested and run.

    python scripts/setup_env.py --stack onedl --venv .venv

Each step leaves a stamp when it is complete, so a second run reuses what is there and a run that
was interrupted continues where it stopped. The full output of all steps is in `.venv.log` beside
the environment; the screen shows what is being done, how long it should take and how long it took.

Only the standard library is used: nothing is installed yet.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MMCV = {'onedl': 'onedl-mmcv', 'openmmlab': 'mmcv'}
BUILD_TOOLS = ('setuptools>=77,<81', 'wheel', 'ninja', 'psutil', 'packaging')
# -g0 and -O2: without debugging information the compilation needs half the memory. Setting the
# flags drops Python's own -O, so it is named.
COMPILE_FLAGS = '-O2 -g0'
GIB_PER_COMPILER = 2
COMPILER = ROOT / 'scripts' / 'compiler.py'

# yapf, with which MMEngine lays out configs, writes a file for all environments of the user at its
# first import, and another process that imports it meanwhile finds that file empty.
CHECK = """
import mmqnet.compat
import yapf.yapflib.yapf_api
import cv2, mmcv, mmcv.ops, mmdet.models, mmengine, mmpretrain.models, numpy, torch, torchvision
from mmqnet.version import __version__
for name, version in (('mmqnet', __version__), ('torch', torch.__version__),
                      ('numpy', numpy.__version__), ('cv2', cv2.__version__),
                      ('mmengine', mmengine.__version__), ('mmcv', mmcv.__version__),
                      ('mmdet', mmdet.__version__), ('mmpretrain', mmpretrain.__version__)):
    print('      %-10s %s' % (name, version))
"""


class SetupError(Exception):
    """What is wrong and what would be right, in one line."""


def check_machine() -> None:
    """Raise SetupError if Python's headers, venv or a C++ compiler are missing."""
    version = '{}.{}'.format(*sys.version_info[:2])
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise SetupError(
            f'Python 3.10 to 3.12 is needed, but {sys.executable} is {version}; '
            'name another one: make setup PYTHON=python3.11'
        )
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').exists():
        raise SetupError(
            f"Python.h of Python {version} is missing; install Python's development files "
            '(Debian and Ubuntu: apt install python3-dev)'
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise SetupError(
            f'Python {version} cannot make virtual environments; install its venv module '
            '(Debian and Ubuntu: apt install python3-venv)'
        ) from error
    check_compiler()


def check_compiler() -> None:
    """Compile one line of C++."""
    compiler = os.environ.get('CXX', 'c++')
    hint = (
        'install one (Debian and Ubuntu: apt install g++) or name yours in the variable CXX; '
        "MMCV's operators are compiled from source"
    )
    if shutil.which(compiler.split()[0]) is None:
        raise SetupError(f'a C++ compiler is needed, but {compiler!r} is not found; {hint}')
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'probe.cpp'
        source.write_text('#include <vector>\nint main() { return std::vector<int>().size(); }\n')
        command = [*compiler.split(), str(source), '-o', str(Path(folder) / 'probe')]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines() or ['no message']
        raise SetupError(f'the C++ compiler {compiler!r} does not work: {lines[0]}; {hint}')


def compile_jobs() -> int:
    """Return the number of parallel compilations: one a core, fewer where memory is short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    try:
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    except (ValueError, OSError, AttributeError):
        memory = 8.0
    return max(1, min(cores or 1, int(memory / GIB_PER_COMPILER)))


def fast_compiler(folder: Path) -> dict[str, str]:
    """Return the variables that make the compiler read torch's headers once: `compiler.py`."""
    compiler = os.environ.get('CXX', 'c++')
    if 'ccache' in compiler:  # which does better without
        return {}
    program = folder / 'compiler'
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{COMPILER}" "$@"\n')
    program.chmod(0o755)
    return dict(CXX=str(program), MMQNET_CXX=compiler, MMQNET_HEADERS=str(folder / 'headers'))


def keep(wheel: Path, folder: Path) -> None:
    """Copy a wheel into a folder, whole or not at all; a full or closed disk is no failure."""
    part = folder / f'{wheel.name}.{os.getpid()}.part'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheel, part)
        part.replace(folder / wheel.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        print(f'      the wheel is not kept for other environments: {error}', flush=True)


def digest(*paths: Path) -> str:
    """Return a short hash of the contents of files; a missing file counts as such."""
    state = hashlib.sha256()
    for path in paths:
        state.update(path.name.encode())
        state.update(path.read_bytes() if path.is_file() else str(path.exists()).encode())
    return state.hexdigest()[:16]


class Steps:
    """Run commands step by step, with a log and stamps."""

    def __init__(self, venv: Path, total: int) -> None:
        self.venv = venv
        self.total = total
        self.count = 0
        # Beside the environment, which may be cleared.
        self.log = venv.with_name(venv.name + '.log')
        self.stamps = venv / '.stamps'

    def is_done(self, name: str, key: str) -> bool:
        """Return whether the step has a stamp with this ``key``."""
        stamp = self.stamps / name
        return stamp.exists() and stamp.read_text() == key

    def run(self, name: str, title: str, expected: str, key: str, action) -> None:
        """Do one step unless its stamp holds ``key``."""
        self.count += 1
        head = f'[{self.count}/{self.total}] {title}'
        if self.is_done(name, key):
            print(f'{head}: already there', flush=True)
            return
        print(f'{head} (takes {expected})', flush=True)
        start = time.monotonic()
        action()
        self.stamps.mkdir(parents=True, exist_ok=True)
        # Written under another name first: a stamp is there entirely or not at all.
        part = self.stamps / f'{name}.part'
        part.write_text(key)
        part.replace(self.stamps / name)
        print(f'      done in {time.monotonic() - start:.0f} s', flush=True)

    def call(self, *command: str, **variables: str) -> None:
        """Run a command with its output in the log; raise SetupError if it fails."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open('ab') as log:
            log.write(('\n$ ' + ' '.join(command) + '\n').encode())
            log.flush()
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **variables},
                start_new_session=True,
            )
            try:
                self._wait(process, begin)
            except BaseException:
                # Ctrl-C reaches this program only; what it started has compilers of its own.
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
        if process.returncode != 0:
            tail = self.log.read_text(errors='replace')[-3000:].splitlines()[-12:]
            print('\n'.join('      | ' + line[:200] for line in tail), flush=True)
            raise SetupError(
                f'`{" ".join(command)[:120]}` failed ({process.returncode}), see {self.log}'
            )

    def _wait(self, process: subprocess.Popen, begin: int) -> None:
        """Wait, and print from time to time how far the command is."""
        start = time.monotonic()
        pause = 15.0 if sys.stdout.isatty() else 60.0
        following = pause
        while True:
            try:
                process.wait(timeout=0.5)
                return
            except subprocess.TimeoutExpired:
                pass
            elapsed = time.monotonic() - start
            if elapsed >= following:
                following += pause
                print(f'      {elapsed:.0f} s {self._compiled(begin)}', flush=True)

    def _compiled(self, begin: int) -> str:
        with self.log.open('rb') as log:
            log.seek(begin)
            text = log.read().decode(errors='replace')
        compiled = re.findall(r'^\s*\[(\d+)/(\d+)\]', text, re.MULTILINE)
        if compiled:
            return 'compiled {} of {} files'.format(*compiled[-1])
        lines = [line for line in text.splitlines() if line.startswith(('Collecting', 'Install'))]
        return lines[-1].split(' (')[0][:80] if lines else ''


class Environment:
    """The steps that create one environment."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.venv = Path(args.venv).resolve()
        self.stack = args.stack
        self.torch = args.torch
        self.torchvision = args.torchvision
        self.steps = Steps(self.venv, total=7)
        self.python = str(self.venv / 'bin' / 'python')
        folder = ROOT / 'requirements'
        self.stack_file = folder / f'{args.stack}.txt'
        names = ('runtime', 'demo', 'export', 'dev', *args.extras)
        self.files = [folder / f'{name}.txt' for name in names]

    def pip(self, *arguments: str, **variables: str) -> None:
        """Run ``pip install`` with the versions of the stack as constraints."""
        constraint = ('-c', str(self.stack_file))
        self.steps.call(
            self.python, '-m', 'pip', 'install', '-v', *constraint, *arguments, **variables
        )

    def can(self, code: str) -> bool:
        """Return whether a line of Python works in the environment."""
        result = subprocess.run([self.python, '-c', code], capture_output=True, cwd=self.venv)
        return result.returncode == 0

    def make_venv(self) -> None:
        """Create the environment, or keep one of the same Python, and update pip."""
        version = sys.version_info[:2]
        same = (
            self.can(f'import sys, pip; assert sys.version_info[:2] == {version}')
            if (Path(self.python).exists())
            else False
        )
        if not same:
            base = getattr(sys, '_base_executable', sys.executable)
            self.steps.call(base, '-m', 'venv', '--clear', str(self.venv))
        self.steps.call(self.python, '-m', 'pip', 'install', '--upgrade', 'pip>=24,<26.2')

    def install_mmcv(self) -> None:
        """Install MMCV; where no wheel of it has been kept, compile its operators."""
        requirement = re.search(
            rf'^{MMCV[self.stack]}==\S+', self.stack_file.read_text(), re.MULTILINE
        ).group()
        name, _, version = requirement.replace('-', '_').partition('==')
        pattern = f'{name}-{version}-cp{"{}{}".format(*sys.version_info[:2])}-*.whl'
        kept = self.kept_wheels()
        for wheel in kept.glob(pattern):
            if self.installs_mmcv(wheel):
                return
            wheel.unlink(missing_ok=True)
        # In the environment: its disk has room for compiled headers, which /tmp may not have.
        with tempfile.TemporaryDirectory(dir=self.venv) as folder:
            for options in ((), ('--no-cache-dir',)):  # pip's cache may be of another torch
                wheel = self.make_mmcv(Path(folder), requirement, options)
                if self.installs_mmcv(wheel):
                    keep(wheel, kept)
                    return
                wheel.unlink()
        raise SetupError(f'mmcv.ops of {requirement} cannot be imported, see {self.steps.log}')

    def kept_wheels(self) -> Path:
        """Return the folder of MMCV's wheels for this torch, of all environments of the user."""
        code = 'import torch; print(torch.__version__)'
        command = [self.python, '-c', code]
        result = subprocess.run(command, capture_output=True, text=True, cwd=self.venv, check=True)
        cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        return cache / 'mmqnet' / 'wheels' / f'torch-{result.stdout.strip()}'

    def make_mmcv(self, folder: Path, requirement: str, options: tuple[str, ...]) -> Path:
        """Compile MMCV's wheel into a folder, unless pip has it, and return its path."""
        self.steps.call(
            *(self.python, '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation'),
            *('-w', str(folder), *options, requirement),
            CFLAGS=COMPILE_FLAGS,
            CXXFLAGS=COMPILE_FLAGS,
            MMCV_WITH_OPS='1',
            MAX_JOBS=str(compile_jobs()),
            **fast_compiler(folder),
        )
        return next(folder.glob('*.whl'))

    def installs_mmcv(self, wheel: Path) -> bool:
        """Install a wheel, and return whether its operators fit torch."""
        self.pip('--force-reinstall', '--no-deps', str(wheel))
        self.pip(str(wheel))  # what it requires
        return self.can('import mmcv.ops')

    def install_packages(self) -> None:
        """Install the stack, torchvision and what tests, demo and export need."""
        arguments = [part for path in (self.stack_file, *self.files) for part in ('-r', str(path))]
        self.pip('--no-build-isolation', *arguments, f'torch=={self.torch}')
        # Its own requirement of torch may install another build of it.
        self.pip('--no-deps', f'torchvision=={self.torchvision}')
        # imaug requires both distributions of OpenCV, and they write into the same folder: the last
        # one wins. The headless one also works where there is no libGL.
        headless = re.search(r'^opencv-python-headless==\S+', self.stack_file.read_text(), re.M)
        self.pip('--no-deps', '--force-reinstall', headless.group())

    def install_mmqnet(self) -> None:
        """Install this checkout."""
        self.pip('--no-build-isolation', '--no-deps', '-e', str(ROOT))
        log = self.steps.log.read_text(errors='replace')
        if not self.can('import torch, mmqnet.ops._C'):
            lines = re.findall(r'mmqnet: the C\+\+ kernel.*', log)
            print(
                '      ' + (lines[-1] if lines else 'the plain PyTorch kernel is used'), flush=True
            )
        # of versions before 0.2, whose place the package's own start-up file takes
        for startup in self.venv.glob('lib/python*/site-packages/mmqnet_torchvision.pth'):
            startup.unlink()

    def check(self) -> None:
        """Import everything and print the versions."""
        result = subprocess.run(
            [self.python, '-c', CHECK], capture_output=True, text=True, cwd=self.venv
        )
        if result.returncode != 0:
            raise SetupError(f'the packages do not work together: {result.stderr.strip()[-500:]}')
        print(result.stdout.rstrip(), flush=True)

    def make(self) -> None:
        """Run all steps."""
        run = self.steps.run
        version = '{}.{}'.format(*sys.version_info[:2])
        torch_key = f'{version} torch {self.torch}'
        stack_key = f'{torch_key} {self.torchvision} {digest(self.stack_file)}'
        all_key = f'{stack_key} {digest(*self.files)}'
        sources = sorted((ROOT / 'mmqnet' / 'ops' / 'csrc').glob('*'))
        links = [ROOT / name for name in ('configs', 'tools', 'model-index.yml')]
        build_files = [ROOT / 'setup.py', ROOT / 'pyproject.toml', ROOT / 'mmqnet' / 'version.py']
        own_key = f'{all_key} {ROOT} {digest(*build_files, *sources, *links)}'
        where = self.venv.relative_to(ROOT) if self.venv.is_relative_to(ROOT) else self.venv

        run(
            'venv',
            f'virtual environment {where}, Python {version}',
            '15 s',
            version,
            self.make_venv,
        )
        run(
            'torch',
            f'torch {self.torch}',
            '1 min, more on a slow line',
            torch_key,
            lambda: self.pip(f'torch=={self.torch}'),
        )
        run('tools', 'build tools', '10 s', torch_key, lambda: self.pip(*BUILD_TOOLS))
        run(
            'mmcv',
            f'{MMCV[self.stack]} with its operators compiled, {compile_jobs()} at a time',
            '3 min on 2 cores; 30 s if a wheel of it has been kept',
            stack_key,
            self.install_mmcv,
        )
        run(
            'packages',
            f'the rest of the stack {self.stack}, and what tests and demo need',
            '2 min',
            all_key,
            self.install_packages,
        )
        run('mmqnet', 'mmqnet itself, editable', '1 min', own_key, self.install_mmqnet)
        run('check', 'import of everything', '20 s', own_key, self.check)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--stack', default='onedl', help='onedl or openmmlab')
    parser.add_argument('--venv', default=str(ROOT / '.venv'), help='folder of the environment')
    parser.add_argument('--torch', default='2.13.0', help='version of torch')
    parser.add_argument('--torchvision', default='0.28.0', help='its version for that torch')
    parser.add_argument(
        '--extras', nargs='*', default=(), help='extras of mmqnet beside demo, export and dev'
    )
    return parser.parse_args()


def main() -> int:
    """Create the environment; return 1, with one line on standard error, if that fails."""
    args = parse_args()
    start = time.monotonic()
    try:
        if args.stack not in MMCV:
            raise SetupError(f'STACK should be one of {sorted(MMCV)}, but got {args.stack!r}')
        check_machine()
        Environment(args).make()
    except SetupError as error:
        print(f'set-up stopped: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up interrupted; the same command continues from here', file=sys.stderr)
        return 130
    print(f'environment ready after {time.monotonic() - start:.0f} s', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
