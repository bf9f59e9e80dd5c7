"""Imports run downward only; read from the syntax tree of every module."""

import ast
import sys
from pathlib import Path

import pytest

import mmqnet

PACKAGE = Path(mmqnet.__file__).resolve().parent
# A part may import parts of a smaller number, and itself.
LEVELS = dict(
    version=0,
    atomic=0,
    checks=0,
    failures=0,
    safe_checkpoints=0,
    import_hooks=0,
    tables=0,
    compat=1,
    config_paths=1,
    registry=0,
    ops=2,
    quantizers=3,
    layers=4,
    calibration=5,
    models=6,
    distillation=7,
    sensitivity=7,
    export=7,
    visualization=8,
    engine=8,
    command_line=9,
    __init__=2,
)
READERS = {'export', 'visualization'}  # nothing else imports them
REPAIRS = {'compat', 'safe_checkpoints'}
# What may be imported beside the standard library and mmqnet itself; the rest is free.
THIRD_PARTIES = dict(
    version=set(),
    atomic=set(),
    checks=set(),
    failures=set(),
    safe_checkpoints=set(),
    import_hooks=set(),
    compat=set(),
    config_paths=set(),
    registry={'mmengine'},
    ops={'torch', 'triton'},
)


def part_of(path: Path) -> str:
    """The part of the package that a module belongs to: its folder or file at the top."""
    return path.with_suffix('').parts[0]


def imported_names(path: Path, source: str, lazy: bool = True) -> set[str]:
    """Absolute dotted names that a module imports; without ``lazy``, outside functions only."""
    package = ['mmqnet', *path.parent.parts]
    names = set()
    for node in walk(ast.parse(source), lazy):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = '.'.join([*base, *([node.module] if node.module else [])])
            names.update(f'{prefix}.{alias.name}' for alias in node.names)
    return names


def walk(node: ast.AST, lazy: bool):
    """All nodes below, without the bodies of functions unless ``lazy``."""
    for child in ast.iter_child_nodes(node):
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from walk(child, lazy)


def upward_imports(path: Path, source: str) -> list[str]:
    """Imports of a module that the layers forbid."""
    part = part_of(path)
    if part not in LEVELS:
        return [f'{path}: {part!r} has no place in the layers {sorted(LEVELS)}']
    found = []
    for name in sorted(imported_names(path, source)):
        pieces = name.split('.')
        if pieces[0] != 'mmqnet' or len(pieces) == 1 or pieces[1] not in LEVELS:
            continue
        target = pieces[1]
        down = LEVELS[target] < LEVELS[part] and target not in READERS
        if target != part and not down:
            found.append(f'{path}: {part} imports {name}')
    return found


def foreign_imports(path: Path, source: str) -> list[str]:
    """Imports of third parties by a part that is limited in them."""
    part = part_of(path)
    if part not in THIRD_PARTIES:
        return []
    # Repairs look into the stack when they are applied, not when they are imported.
    names = imported_names(path, source, lazy=part not in REPAIRS)
    allowed = THIRD_PARTIES[part] | set(sys.stdlib_module_names) | {'mmqnet'}
    return [
        f'{path}: imports {name}' for name in sorted(names) if name.split('.')[0] not in allowed
    ]


MODULES = [
    path.relative_to(PACKAGE)
    for path in sorted(PACKAGE.rglob('*.py'))
    if '.mim' not in path.relative_to(PACKAGE).parts
]


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_imports_run_downward(path):
    source = (PACKAGE / path).read_text(encoding='utf-8')
    assert upward_imports(path, source) == []


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_low_parts_need_little(path):
    source = (PACKAGE / path).read_text(encoding='utf-8')
    assert foreign_imports(path, source) == []


@pytest.mark.parametrize(
    ('path', 'source'),
    [
        ('ops/kmeans.py', 'from mmqnet.layers import QuantConv2d'),
        ('ops/kmeans.py', 'from ..layers import QuantConv2d'),
        ('ops/kmeans.py', 'def f():\n    from ..registry.x import y\n    import mmqnet.engine'),
        ('quantizers/quantizer.py', 'from .. import models'),
        ('layers/conv.py', 'from mmqnet import calibration'),
        ('engine/hooks/gap_hook.py', 'from ...visualization.curves import plot'),
        ('visualization/curves.py', 'from mmqnet.export import codes'),
        ('models/convert.py', 'import mmqnet.export.onnx'),
        ('__init__.py', 'from .ops import soft_quantize'),
        ('engine/hooks/gap_hook.py', 'from mmqnet.command_line import load_config'),
        ('helpers/tools.py', ''),
    ],
)
def test_upward_import_is_found(path, source):
    assert upward_imports(Path(path), source)


@pytest.mark.parametrize(
    ('path', 'source'),
    [
        ('layers/conv.py', 'from ..quantizers.quantizer import Quantizer'),
        ('layers/conv.py', 'from .base import QuantLayer\nimport torch\nfrom mmqnet import ops'),
        ('engine/hooks/gap_hook.py', 'from ..schedules import linear\nfrom mmqnet import models'),
        ('visualization/curves.py', 'from mmqnet.models import report'),
        ('models/build.py', 'from mmqnet import compat, __version__'),
        ('__init__.py', 'from .compat import apply_all\nfrom .version import __version__'),
    ],
)
def test_downward_import_is_allowed(path, source):
    assert upward_imports(Path(path), source) == []


@pytest.mark.parametrize(
    ('path', 'source', 'allowed'),
    [
        ('registry.py', 'import mmdet', False),
        ('registry.py', 'from mmengine.registry import MODELS', True),
        ('ops/kmeans.py', 'import numpy', False),
        ('ops/kmeans.py', 'import torch.nn.functional\nimport math', True),
        ('compat.py', 'import torch', False),
        ('compat.py', 'def f():\n    import torch', True),
        ('models/convert.py', 'import mmdet', True),
    ],
)
def test_foreign_import(path, source, allowed):
    assert (foreign_imports(Path(path), source) == []) is allowed
