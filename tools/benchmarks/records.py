"""Finished rows: kept in a json file from run to run, printed as tables."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measuring import Ratio, Row

from mmqnet import atomic


class Records:
    """Rows of all parts.

    Args:
        path: The json file. Rows that were measured under other conditions are dropped.
        conditions: What makes times comparable: machine, versions, settings.

    Raises:
        ValueError: If the file is no file of this tool, or was cut off.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self._path = path
        self._conditions = conditions
        self.rows: dict[str, dict[str, Row]] = {}
        if not path.exists():
            return
        try:
            self._read(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{str(path)!r} holds no results ({type(error).__name__}: {error}): '
                'delete it, or name another folder with --out-dir'
            ) from error

    def add(self, part: str, case: str, row: Row) -> None:
        """Add a row and write the file."""
        self.rows.setdefault(part, {})[case] = row
        content = dict(
            conditions=self._conditions,
            parts={p: {c: asdict(r) for c, r in rows.items()} for p, rows in self.rows.items()},
        )
        atomic.write_text(self._path, json.dumps(content, indent=1))

    def drop(self, part: str) -> None:
        """Remove a part."""
        self.rows.pop(part, None)

    def left_out(self) -> dict[str, str]:
        """Return the peers that are not installed, with the reasons."""
        reasons: dict[str, str] = {}
        for rows in self.rows.values():
            for row in rows.values():
                reasons.update(row.left_out)
        return reasons

    def _read(self, content: dict[str, Any]) -> None:
        if content['conditions'] != self._conditions:
            print(f'{self._path} was measured under other conditions: starting anew')
            return
        for part, rows in content['parts'].items():
            self.rows[part] = {
                case: Row(
                    {name: Ratio(**ratio) for name, ratio in row['ratios'].items()},
                    row['raw'],
                    row['left_out'],
                )
                for case, row in rows.items()
            }


def table(rows: dict[str, Row]) -> str:
    """Return a table of cases and ratios, with the targets."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row.ratios))
    lines = [['', *columns]]
    for case, row in rows.items():
        cells = (row.ratios.get(column, '') for column in columns)
        lines.append([case, *map(str, cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
