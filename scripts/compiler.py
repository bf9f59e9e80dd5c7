"""A C++ compiler for MMCV that reads torch's headers once instead of once a file.

    CXX=compiler MMQNET_CXX=c++ MMQNET_HEADERS=/tmp/headers compiler -O2 -c a.cpp -o a.o

Reading the headers is three quarters of the compilation of each of MMCV's eighty files, all of
which include them. The first call precompiles them with its own flags, beside which the next ones
compile as usual; those that find the result compile with it. A compiler that cannot use it, or
anything that goes wrong with it, costs time only: then files are compiled as usual.

Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

HEADER = '#include <torch/types.h>\n'
# Arguments that say what is compiled, not how, and how many values follow them.
OF_THE_FILE = {'-c': 0, '-o': 1, '-MMD': 0, '-MD': 0, '-MF': 1, '-MT': 1, '-MQ': 1}
SOURCES = ('.cpp', '.cc', '.cxx', '.c')


def flags_of(arguments: list[str]) -> list[str]:
    """Return how a file is compiled, without which one it is."""
    flags, rest = [], iter(arguments)
    for argument in rest:
        if argument in OF_THE_FILE:
            for _ in range(OF_THE_FILE[argument]):
                next(rest, None)
        elif not argument.endswith(SOURCES):
            flags.append(argument)
    return flags


def precompiled(compiler: list[str], flags: list[str], folder: Path) -> Path | None:
    """Return the header that has been precompiled with these flags; None if there is none (yet).

    The first call makes it; what is made by others in the meantime, or has failed, is None.
    """
    header = folder / hashlib.sha256('\0'.join(flags).encode()).hexdigest()[:16] / 'torch.h'
    result = header.with_name('torch.h.gch')
    if result.exists():
        return header
    try:
        header.parent.mkdir(parents=True)
    except FileExistsError:
        return None
    header.write_text(HEADER)
    part = header.with_name('part.gch')
    command = [*compiler, *flags, '-x', 'c++-header', str(header), '-o', str(part)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        return None
    part.replace(result)
    return header


def compiles_with_header(compiler: list[str], arguments: list[str]) -> bool:
    """Compile with the precompiled header; return whether that was possible."""
    if '-c' not in arguments or not any(item.endswith(SOURCES) for item in arguments):
        return False  # the linker's turn, or a question for the version
    header = precompiled(compiler, flags_of(arguments), Path(os.environ['MMQNET_HEADERS']))
    if header is None:
        return False
    command = [*compiler, '-include', str(header), *arguments]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    """Compile, or replace this process by the compiler."""
    compiler = os.environ['MMQNET_CXX'].split()
    with contextlib.suppress(OSError):
        if compiles_with_header(compiler, sys.argv[1:]):
            return
    os.execvp(compiler[0], [*compiler, *sys.argv[1:]])


if __name__ == '__main__':
    main()
