"""Results as HTML tables, which a notebook shows; every text is escaped, since names come from files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    below = "".join(f"<p>{_text(note)}</p>" for note in notes)
    return f"<table><caption>{_text(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def percent(fraction: float) -> str:
    """Return ``0.4512`` as ``45.1 %``."""
    return f"{100 * fraction:.1f} %"


def _text(value: object) -> str:
    """``value`` as HTML text; a character that cannot be printed, which may turn the reading direction, is replaced."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value)))
