"""Tables as text."""

import io

from rich.console import Console
from rich.table import Table


def as_text(table: Table) -> str:
    """Return a table as text, as wide as its longest names need."""
    out = io.StringIO()
    # rich cuts what does not fit, and in a notebook it would show the table instead of writing it
    Console(file=out, width=1000, color_system=None, force_jupyter=False).print(table)
    return out.getvalue()
