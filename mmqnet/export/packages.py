"""Packages that only exporting needs."""

import importlib

# Extras with an environment of their own, and what makes it in a checkout.
_SETUPS = dict(litert='make setup-litert', executorch='make setup-litert')


def require(*names: str, extra: str = 'export') -> None:
    """Check that packages can be imported, before any work is done.

    Args:
        *names: Names of the modules.
        extra: The extra of mmqnet that installs them.

    Raises:
        ImportError: If one cannot.

    Example:
        >>> require('onnx')
        >>> require('onix')
        Traceback (most recent call last):
            ...
        ImportError: `onix` cannot be imported (...): pip install mmqnet[export]
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            hint = f', or `{_SETUPS[extra]}` in a checkout' if extra in _SETUPS else ''
            raise ImportError(
                f'`{name}` cannot be imported ({error}): pip install mmqnet[{extra}]{hint}'
            ) from error
