"""Build the documentation site: `make docs`.

    python scripts/build_docs.py --out build/site

Sphinx and its theme live in an environment of their own, `.venv-docs`, which sees the packages of
the environment that runs this script: Sphinx imports mmqnet, and its requirements never change what
the tests run with. A warning is an error.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements' / 'docs.txt'
LINK = 'import site; site.addsitedir({path!r})\n'


def make_environment(venv: Path) -> Path:
    """Create or update the environment of Sphinx, and return its Python."""
    python, stamp = venv / 'bin' / 'python', venv / '.requirements'
    packages = sysconfig.get_paths()['purelib']
    wanted = f'{sys.version}\n{packages}\n{REQUIREMENTS.read_text()}'
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print('== packages of the documentation site, once (about 30 s)', flush=True)
    subprocess.run([sys.executable, '-m', 'venv', '--clear', str(venv)], check=True)
    for folder in venv.glob('lib/python*/site-packages'):
        (folder / 'packages_of_the_project.pth').write_text(LINK.format(path=packages))
    install = [str(python), '-m', 'pip', 'install', '--quiet', '-r', str(REQUIREMENTS)]
    subprocess.run(install, check=True)
    stamp.write_text(wanted)
    return python


def build(python: Path, out: Path) -> None:
    """Run Sphinx on the checkout; links to what does not exist are warnings, and so errors."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    options = ['-W', '--keep-going', '-q', '-b', 'html', '-d', str(out.with_name('doctrees'))]
    command = [str(python), '-m', 'sphinx', *options, '-c', 'docs', '.', str(out)]
    environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def main() -> int:
    """Build the site; return 1, after Sphinx's own messages, if that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=ROOT / 'build' / 'site', help='folder to write')
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv-docs', help="Sphinx's packages")
    args = parser.parse_args()
    if sys.version_info < (3, 11):
        print('build_docs.py: error: Sphinx needs Python 3.11 or later', file=sys.stderr)
        return 1
    try:
        build(make_environment(args.venv.resolve()), args.out.resolve())
    except subprocess.CalledProcessError as error:
        print(f'build_docs.py: error: `{" ".join(error.cmd)[:100]}` failed', file=sys.stderr)
        return 1
    print(f'written to {args.out / "index.html"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
