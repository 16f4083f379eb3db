"""What all tables share: pipe tables from cells that are already escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from harness.escape import cell
from harness.records import Scalar

NOTHING = "–"
LONG = 600
"""Characters of a reason that a cell shows."""
_BLANKS = re.compile(" {2,}")
_RULE_RUN = re.compile("-{4,}")


def pipe_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] | None = None
) -> str:
    """A pipe table whose columns are padded to their widest cell."""
    # Numbers must be printed as they were formatted here, so tabulate may not read them.
    return tabulate(
        rows,
        headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=align or ["left"] * len(headers),
    )


def compact(table: str) -> str:
    """The same table without the padding."""
    # Padding each row to the longest answer would make every line hundreds of columns wide.
    return _BLANKS.sub(" ", _RULE_RUN.sub("---", table))


def percent(share: float) -> str:
    """Return a share as a per cent figure, e.g. 0.909 → "90.9"."""
    return f"{100 * share:.1f}"


def probability(value: float) -> str:
    """Return a p-value with three decimals; below those, "<0.001"."""
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def provenance_table(sections: Sequence[tuple[str, Mapping[str, Scalar]]]) -> str:
    """Return one row per value, sorted within its section; empty if there are none."""
    rows = []
    for title, values in sections:
        for number, name in enumerate(sorted(values)):
            first = "" if number else cell(title)
            rows.append([first, cell(name), cell(_plain(values[name]), 200)])
    return compact(pipe_table(["of", "what", "value"], rows)) if rows else ""


def _plain(value: Scalar) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)
