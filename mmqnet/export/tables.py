"""Tables that end an export."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def render(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """Return a table as text, with notes below."""
    table = Table(title=title, title_justify='left')
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    # as wide as the longest names need: rich cuts what does not fit
    # in a notebook rich would show the table instead of writing it
    Console(file=out, width=1000, color_system=None, force_jupyter=False).print(table)
    return '\n'.join([out.getvalue().rstrip(), *notes])
