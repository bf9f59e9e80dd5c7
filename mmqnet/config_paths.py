"""Lets ``_base_`` and MMEngine's hub find our configs as ``mmqnet::...``, from any folder.

MMEngine looks such a path up in a table of the packages that it knows, and reads the config from
``.mim/configs`` of that package. Importing mmqnet enters it into the table; an installed mmqnet is
imported when Python starts (``setup.py``), so that tools that know nothing of it find our configs.
This module imports the standard library only.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mmqnet.checks import did_you_mean
from mmqnet.import_hooks import on_import

_PACKAGE = Path(__file__).resolve().parent
_SCOPE = '_scope_'


def register_configs() -> None:
    """Enter mmqnet into MMEngine's table of packages with configs, now or when it is imported."""
    on_import('mmengine.config.utils', _register)
    on_import('mmengine.config.config', _repair_package_path)


def _register(module: Any) -> None:
    module.MODULE2PACKAGE.setdefault('mmqnet', 'mmqnet')
    original = module._get_external_cfg_base_path
    if getattr(original, '_of_mmqnet', False):
        return

    @functools.wraps(original)
    def find(package_path: str, cfg_name: str) -> str:
        """Return the path of a config; name near ones if it does not exist."""
        if Path(package_path).resolve() == _PACKAGE:
            check_exists(cfg_name)
        return original(package_path, cfg_name)

    find._of_mmqnet = True  # type: ignore[attr-defined]
    module._get_external_cfg_base_path = find


def _repair_package_path(module: Any) -> None:
    """Let MMEngine look for our configs where the imported package is.

    MMEngine 0.10.7 takes an editable install to be in `site-packages`, where there is a link alone.
    """
    original = module.get_installed_path
    if getattr(original, '_of_mmqnet', False):
        return

    @functools.wraps(original)
    def find(package: str) -> str:
        return str(_PACKAGE) if package == _PACKAGE.name else original(package)

    find._of_mmqnet = True  # type: ignore[attr-defined]
    module.get_installed_path = find


def check_exists(name: str) -> None:
    """Check that mmqnet has a config.

    Args:
        name: What follows ``mmqnet::``, for example ``'_base_/quantization/w3-a8u.py'``.

    Raises:
        FileNotFoundError: If it has not; the message names near misses.

    Example:
        >>> check_exists('_base_/quantization/w3-a8u.py')
    """
    folder = _PACKAGE / '.mim' / 'configs'
    if (folder / name).is_file():
        return
    if not folder.is_dir():
        raise FileNotFoundError(
            f"'mmqnet::{name}' is looked for in {str(folder)!r}, which does not exist: install "
            'mmqnet (pip install, or make setup in a checkout)'
        )
    known = [path.relative_to(folder).as_posix() for path in folder.rglob('*.py')]
    near = did_you_mean(name, known, count=3)
    raise FileNotFoundError(f"mmqnet has no config 'mmqnet::{name}'.{near}")


def without_scopes(config: Any) -> Any:
    """Return a config without the ``_scope_`` of its dicts.

    MMEngine notes in each dict with a ``type`` the package that its base config came from.

    Args:
        config: A dict, list or value of a config; it is not changed.

    Example:
        >>> without_scopes(dict(weight=dict(type='LSQ', levels='int4', _scope_='mmqnet')))
        {'weight': {'type': 'LSQ', 'levels': 'int4'}}
    """
    if isinstance(config, dict):
        return {key: without_scopes(value) for key, value in config.items() if key != _SCOPE}
    if isinstance(config, list):
        return [without_scopes(item) for item in config]
    return config
