# Copyright (c) mmqnet developers. All rights reserved.
"""Load the compiled CPU kernel, which registers itself for the operators of the library."""

from pathlib import Path

import torch


def check_torch(folder: Path) -> None:
    """Check that the kernel of a wheel is made for this torch, whose functions it calls.

    Args:
        folder: Where the kernel is, with a file ``_C.torch``. One compiled in place has no such
            file, and is compiled anew with each torch.

    Raises:
        ImportError: If it is made for another minor version.
    """
    note = folder / '_C.torch'
    made_for = note.read_text() if note.exists() else torch.__version__
    if made_for.split('.')[:2] != torch.__version__.split('.')[:2]:
        raise ImportError(f'it is compiled for torch {made_for}, and this is {torch.__version__}')


try:
    check_torch(Path(__file__).parent)
    from . import _C  # type: ignore[attr-defined]  # noqa: F401
except ImportError as error:
    _UNAVAILABLE: str | None = str(error)
else:
    _UNAVAILABLE = None


def kernel_unavailable() -> str | None:
    """Return None if the compiled kernel is in use, else the reason why it is not."""
    return _UNAVAILABLE
