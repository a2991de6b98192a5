"""Markdown as GitHub reads it, as far as tests of the pages need: prose, code, headings, links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)(.*)$")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*$")
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_LINK = re.compile(
    r"!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\(\s*<?(?P<target>[^()\s>]*(?:\([^()\s]*\)[^()\s>]*)*)>?[^)]*\)"
)
_DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s.*)?$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']*)[\"']", re.IGNORECASE)
_ANCHOR = re.compile(r"<[a-z]+\b[^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)


def split_code(text: str) -> tuple[str, list[tuple[str, str]]]:
    """A page without its code blocks, and the blocks: each with the word behind its fence ("" where it is indented)."""
    prose: list[str] = []
    blocks: list[tuple[str, str]] = []
    fence, language, body = "", "", []
    after_blank, indented = True, False
    for line in text.splitlines():
        match = _FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                blocks.append((language, "\n".join(body)))
                fence, body = "", []
            else:
                body.append(line)
            continue
        if match:
            fence, language = match[1], match[2].strip()
            prose.append("")
            continue
        if line.startswith("    ") and line.strip() and (after_blank or indented):
            if not indented:
                blocks.append(("", line[4:]))
            else:
                blocks[-1] = ("", f"{blocks[-1][1]}\n{line[4:]}")
            indented = True
            prose.append("")
            continue
        if line.strip():
            indented = False
        after_blank = not line.strip()
        prose.append(line)
    assert not fence, "a code block that does not end"
    return "\n".join(prose), blocks


def code_spans(text: str) -> Iterator[str]:
    """What stands between backticks outside code blocks."""
    prose, _ = split_code(text)
    for match in _SPAN.finditer(prose):
        yield " ".join(match[2].split())


def links(text: str) -> Iterator[str]:
    """The target of each link and image outside code."""
    prose = _SPAN.sub(lambda match: "x" * len(match[0]), split_code(text)[0])
    for match in _LINK.finditer(prose):
        yield match["target"]
    yield from _DEFINITION.findall(prose)
    yield from _ATTRIBUTE.findall(prose)


def anchors(text: str) -> set[str]:
    """The fragments that lead to a place on a page: a slug for each heading as GitHub makes it, and explicit ids."""
    prose, _ = split_code(text)
    found: set[str] = set(_ANCHOR.findall(prose))
    seen: Counter[str] = Counter()
    for line in prose.splitlines():
        if match := _HEADING.match(line):
            slug = slug_of(match[1])
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def slug_of(heading: str) -> str:
    """GitHub's fragment for a heading: its text in lower case, without punctuation, spaces as hyphens."""
    text = _LINK.sub(lambda match: match["text"], heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
