"""The pages of the documentation: as the code has it, complete, readable as text."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'configs').rglob('*.md')]
)
LINK = re.compile(r'\]\(([^)\s]+)\)')


@pytest.fixture(scope='module')
def reference():
    path = ROOT / 'scripts' / 'reference_pages.py'
    spec = importlib.util.spec_from_file_location('reference_pages', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_what_the_code_says(reference):
    for page in reference.PAGES:
        text = page.read_text(encoding='utf-8')
        assert reference.renewed(text) == text, 'run `python scripts/reference_pages.py`'
        assert text.count('<table>') == text.count('<!-- table: ') > 0


def test_every_key_has_a_row(reference):
    """Of a class of which not every field has a line in the docstring, rows would be missing."""
    names = re.findall(r'<!-- table: (\S+) -->', ''.join(p.read_text() for p in reference.PAGES))
    assert len(names) > 10
    for name in names:
        if name == 'recipes':
            continue
        module, _, cls = name.rpartition('.')
        found = getattr(importlib.import_module(module), cls)
        keys = {row[0].strip('`') for row in reference.rows_of(found)}
        assert keys == reference.keys_of(found), name


def test_a_docstring_becomes_a_row(reference):
    class Hook:
        """Do something.

        Args:
            interval (int, optional): How often, see :class:`Hook`; ``None`` for
                never & ever.
        """

        def __init__(self, interval=5):
            pass

    assert list(reference.rows_of(Hook)) == [
        ('``interval``', 'int or None', '``5``', 'How often, see :class:`Hook`; ``None`` for '
         'never & ever.')
    ]  # fmt: skip
    html = reference.table(('a', 'b', 'c', 'd'), reference.rows_of(Hook))
    assert '<code>Hook</code>; <code>None</code> for never &amp; ever.</td>' in html


def test_every_package_is_in_the_api_reference():
    pages = ''.join(path.read_text() for path in (ROOT / 'docs' / 'api').glob('*.md'))
    for folder in (ROOT / 'mmqnet').iterdir():
        if (folder / '__init__.py').exists():
            assert f'automodule:: mmqnet.{folder.name}' in pages, folder.name


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page_reads_well_as_text(page):
    lines = page.read_text(encoding='utf-8').splitlines()
    long = [number for number, line in enumerate(lines, 1) if len(line) > 100]
    assert not long, 'lines above 100 characters'
    for target in LINK.findall('\n'.join(lines)):
        if not re.match(r'https?:|#|mailto:', target):
            assert (page.parent / target.split('#')[0]).exists(), target
