"""Write the tables of docs/config.md, hooks.md, recipes.md and their like from the code.

    python scripts/reference_pages.py            # after a change of a docstring or of a recipe
    python scripts/reference_pages.py --check    # only say which pages are out of date

A page holds its text, and between `<!-- table: NAME -->` and `<!-- end -->` what is written here.
The meanings are those of the docstrings, the types and defaults those of the signatures. The tables
are HTML, whose cells may be as long as they need in lines of 100 characters.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import importlib
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmqnet import atomic
from mmqnet.quantizers import QuantizerConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    path
    for path in sorted((ROOT / 'docs').glob('*.md'))
    if '<!-- table: ' in path.read_text(encoding='utf-8')
]
RECIPES = ROOT / 'configs' / '_base_' / 'quantization'
_MARK = re.compile(r'(<!-- table: (\S+) -->\n).*?(<!-- end -->)', re.DOTALL)
_ENTRY = re.compile(r'(\w+)(?: \((.+?)\))?: (.*)', re.DOTALL)
# What a config file may have where the checked config holds something else.
_ACCEPTED = {
    'levels': 'str or list of float',
    'type': 'str',
    'weight': 'dict or None',
    'activation': 'dict or None',
    'sums': 'dict or None',
    'overrides': 'dict',
}
Row = tuple[str, ...]  # the cells, with the markup of docstrings
_NAMES = {'NoneType': 'None', 'Mapping': 'dict', 'tuple': 'list', 'Sequence': 'list'}


def sections(doc: str, title: str) -> dict[str, tuple[str, str]]:
    """Return the entries of ``Args`` or ``Attributes``: name, then type in brackets and text."""
    lines = inspect.cleandoc(doc).splitlines()
    if f'{title}:' not in lines:
        return {}
    body = []
    for line in lines[lines.index(f'{title}:') + 1 :]:
        if line and not line.startswith(' '):
            break
        body.append(line)
    entries = re.split(r'\n(?=\w)', textwrap.dedent('\n'.join(body)).strip())
    found = [_ENTRY.fullmatch(' '.join(entry.split())) for entry in entries]
    return {match[1]: (match[2] or '', match[3]) for match in found if match}


def describe_type(annotation: Any) -> str:
    """Return a type as a config file has it: ``tuple[float, ...] | None`` is a list or None."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return ' or '.join(describe_type(part) for part in typing.get_args(annotation))
    origin = typing.get_origin(annotation)
    if origin is not None:
        name = _NAMES.get(origin.__name__, origin.__name__)
        inner = [part for part in typing.get_args(annotation) if part is not Ellipsis]
        return f'list of {describe_type(inner[0])}' if name == 'list' else name
    name = getattr(annotation, '__name__', str(annotation))
    return _NAMES.get(name, name)


def rows_of_dataclass(cls: type) -> Iterator[Row]:
    """Yield the keys of a config: key, type, default, meaning."""
    meanings, hints = sections(cls.__doc__ or '', 'Attributes'), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name not in meanings:
            continue
        default = 'required'
        if field.default is not dataclasses.MISSING:
            default = f'``{_literal(field.default)}``'
        elif field.default_factory is not dataclasses.MISSING:
            default = f'``{field.default_factory()!r}``'
        kind = _ACCEPTED.get(field.name) or describe_type(hints[field.name])
        yield f'``{field.name}``', kind, default, meanings[field.name][1]


def rows_of_signature(cls: type) -> Iterator[Row]:
    """Yield the arguments of a hook: argument, type, default, meaning."""
    parameters = inspect.signature(cls).parameters
    for name, (kind, meaning) in sections(cls.__doc__ or '', 'Args').items():
        default = parameters[name].default
        shown = 'required' if default is inspect.Parameter.empty else f'``{_literal(default)}``'
        yield f'``{name}``', kind.replace(', optional', ' or None'), shown, meaning


def rows_of_recipes() -> Iterator[Row]:
    """Yield the recipes: name, levels of weights and activations, what its first comment says."""
    for path in sorted(RECIPES.glob('*.py')):
        quantization = Config.fromfile(path).quantization
        levels = [_levels(quantization.get(role)) for role in ('weight', 'activation')]
        yield f'``{path.stem}``', *levels, _comment(path)


def _levels(quantizer: Mapping[str, Any] | None) -> str:
    if quantizer is None:
        return 'float'
    levels = quantizer['levels']
    if isinstance(levels, str):
        return f'``{levels}``'
    return ', '.join(f'{level:g}' for level in levels) if len(levels) < 5 else (
        f'{len(levels)} levels, {levels[0]:g}..{levels[-1]:g}'
    )  # fmt: skip


def _comment(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            break
        lines.append(line.lstrip('# '))
    return re.sub(r'`([^`]+)`', r'``\1``', ' '.join(lines))


def _literal(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def to_html(text: str) -> str:
    """Return the inline markup of a docstring as HTML: code and roles become ``<code>``."""
    pieces = re.split(r'(:\w+:`[^`]+`|``.+?``)', text)
    return ''.join(
        f'<code>{html.escape(re.sub("^:[a-z]+:`~?|^``|`+$", "", piece), quote=False)}</code>'
        if index % 2
        else html.escape(piece, quote=False)
        for index, piece in enumerate(pieces)
    )


def table(headings: Sequence[str], rows: Iterator[Row]) -> str:
    """Return an HTML table; the meaning, which comes last, is wrapped."""
    lines = ['<table>', '<thead><tr>']
    lines += [f'<th>{heading}</th>' for heading in headings]
    lines += ['</tr></thead>', '<tbody>']
    for row in rows:
        *cells, meaning = map(to_html, row)
        lines.append('<tr>')
        lines += [f'<td>{cell}</td>' for cell in cells]
        lines += textwrap.wrap(f'<td>{meaning}</td>', 100, break_long_words=False)
        lines.append('</tr>')
    return '\n'.join([*lines, '</tbody>', '</table>']) + '\n'


def keys_of(cls: type) -> set[str]:
    """Return what a table should have: the fields of a config, or the arguments of a hook."""
    if not dataclasses.is_dataclass(cls):
        return set(inspect.signature(cls).parameters)
    # what subclasses share with it is in its own table; `role` and `key` follow from the place
    hidden = {'role', 'key'}
    if cls is not QuantizerConfig and issubclass(cls, QuantizerConfig):
        hidden |= {field.name for field in dataclasses.fields(QuantizerConfig)}
    return {field.name for field in dataclasses.fields(cls)} - hidden


def rows_of(cls: type) -> Iterator[Row]:
    """Yield the rows of a config's keys, or of a hook's arguments."""
    own = rows_of_dataclass if dataclasses.is_dataclass(cls) else rows_of_signature
    return (row for row in own(cls) if row[0].strip('`') in keys_of(cls))


def make(name: str) -> str:
    """Return the table that a page asks for: ``recipes``, or the dotted name of a class."""
    if name == 'recipes':
        return table(('recipe', 'weights', 'activations', 'what it is'), rows_of_recipes())
    module, _, class_name = name.rpartition('.')
    cls = getattr(importlib.import_module(module), class_name)
    first = 'key' if dataclasses.is_dataclass(cls) else 'argument'
    return table((first, 'type', 'default', 'meaning'), rows_of(cls))


def renewed(text: str, make: Callable[[str], str] = make) -> str:
    """Return a page with its tables as the code has them now."""
    return _MARK.sub(lambda match: f'{match[1]}{make(match[2])}{match[3]}', text)


def main() -> None:
    """Write the pages that are out of date, or name them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing')
    args = parser.parse_args()
    stale = [path for path in PAGES if renewed(path.read_text('utf-8')) != path.read_text('utf-8')]
    for path in stale:
        if not args.check:
            atomic.write_text(path, renewed(path.read_text('utf-8')))
        print(f'{path.relative_to(ROOT)}: {"out of date" if args.check else "written"}')
    sys.exit(1 if args.check and stale else 0)


if __name__ == '__main__':
    main()
