"""Text of unknown origin made harmless: names and messages may come from an untrusted file."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` with everything but printable characters and line feeds replaced by U+FFFD.

    That leaves only characters that XML 1.0 and UTF-8 can hold, and none that redraws a terminal or turns the reading
    direction.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def one_line(text: str) -> str:
    """:func:`plain` without line feeds, for attributes and table cells."""
    return " ".join(plain(text).split("\n"))
