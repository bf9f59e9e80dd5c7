# Copyright (c) mmqnet developers. All rights reserved.
"""Load the compiled CPU kernel, which registers itself for the operators of the library."""

try:
    from . import _C  # type: ignore[attr-defined]  # noqa: F401
except ImportError as error:
    _UNAVAILABLE: str | None = str(error)
else:
    _UNAVAILABLE = None


def kernel_unavailable() -> str | None:
    """Return None if the compiled kernel is in use, else the reason why it is not."""
    return _UNAVAILABLE
