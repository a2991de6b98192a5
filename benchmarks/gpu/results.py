"""The folder of results: JSON lines that are written as they come, and a Markdown summary made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.gpu.splitting import MIB
from benchmarks.gpu.summary import summarise

MOST_FILES, MOST_BYTES, MOST_DEPTH = 8, 16 * MIB, 2
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Results:
    """Appends records to ``results.jsonl``, and rewrites ``summary.md`` after each.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lines = folder / "results.jsonl"
        self.summary = folder / "summary.md"

    def add(self, part: str, kind: str, **values: Any) -> None:
        """Write one record at once, so that nothing that comes after can lose it."""
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, "kind": kind, **values}, default=str) + "\n")
        self.summary.write_text(summarise(self.read()), encoding="utf-8")

    def read(self) -> list[dict[str, Any]]:
        """All records so far. A last line that was cut off, by a kill or a full disk, is left out."""
        if not self.lines.exists():
            return []
        records = []
        for line in self.lines.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records


def check_folder(folder: Path) -> list[str]:
    """What would keep the folder from being brought back from a machine that lends little space.

    Returns:
        One sentence for each limit that is broken; none where all hold.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    problems = []
    if len(files) > MOST_FILES:
        problems.append(f"{len(files)} files, and {MOST_FILES} can be brought back.")
    for path in files:
        shown = path.relative_to(folder)
        if path.stat().st_size > MOST_BYTES:
            problems.append(f"{shown} has {path.stat().st_size:,} bytes, above {MOST_BYTES:,}.")
        if len(shown.parts) > MOST_DEPTH + 1:
            problems.append(f"{shown} lies more than {MOST_DEPTH} folders down.")
        if not all(_NAME.fullmatch(part) for part in shown.parts):
            problems.append(f"{shown} has a name with other characters than A-Z, a-z, 0-9, '.', '_' and '-'.")
    return problems
