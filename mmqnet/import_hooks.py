"""Calls a function when a module is imported, now or later.

Imported at each start of Python where mmqnet is installed: it imports little, and nothing but the
standard library.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Action = Callable[[ModuleType], None]


class _Finder:
    """Call an action just before or just after one module's code, when it is first imported."""

    def __init__(self, module: str, action: Action, before: bool) -> None:
        self.module = module
        self.action = action
        self.before = before
        self._busy = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as usual, and let its loader call the action."""
        if fullname != self.module or self._busy:
            return None
        self._busy = True
        try:
            spec = find_spec(fullname)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            self._wrap(spec.loader)
        return spec

    def _wrap(self, loader: Loader) -> None:
        execute = loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            if self.before:
                self.action(module)
            execute(module)
            if not self.before:
                self.action(module)

        # On the instance: every import makes a loader of its own, so nothing else is touched.
        loader.exec_module = execute_and_act  # type: ignore[method-assign]


def on_import(module: str, action: Action, before: bool = False) -> None:
    """Call ``action`` with ``module``, now or when it is imported.

    Args:
        module: Its dotted name.
        action: Called once, however often it is given.
        before: Whether to call it before the module's own code has run. A module that has been
            imported is too late for that, and is left alone. Default False.
    """
    if module in sys.modules:
        if not before:
            action(sys.modules[module])
        return
    known = (f for f in sys.meta_path if isinstance(f, _Finder))
    if not any(f.module == module and f.action is action for f in known):
        sys.meta_path.insert(0, _Finder(module, action, before))
