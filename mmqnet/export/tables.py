"""Tables that end an export."""

from collections.abc import Sequence

from rich.table import Table

from mmqnet.tables import as_text


def render(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """Return a table as text, with notes below."""
    table = Table(title=title, title_justify='left')
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    return '\n'.join([as_text(table).rstrip(), *notes])
