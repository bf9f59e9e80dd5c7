"""Names the right Python to a user who starts a tool with another one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ('.venv', '.venv-openmmlab')  # those of `make setup` and of STACK=openmmlab


def stop(error: ModuleNotFoundError) -> NoReturn:
    """Exit with one line that says which Python has what is missing."""
    found = [python for name in ENVIRONMENTS if (python := ROOT / name / 'bin/python').exists()]
    if found:
        advice = f'`make setup` made an environment that has it: start the tool with {found[0]}'
    elif (ROOT / 'Makefile').exists():
        advice = f'`make setup` in {ROOT} makes an environment that has it'
    else:
        advice = 'install mmqnet and one of its stacks there: pip install mmqnet[onedl]'
    sys.exit(f'{Path(sys.argv[0]).name}: error: {sys.executable}: {error}; {advice}')
