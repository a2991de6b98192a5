"""``compress cache``: what is kept between runs, whether it is sound, and how to be rid of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.options.declaring import option, switch
from cli.options.shared_options import OutputOptions
from cli.output.console import Output
from compressor.core.errors import DONE, FAILED, UsageError
from compressor.core.notebook import percent
from compressor.core.registry import unknown_name
from compressor.system.cache_folder import cache_folder
from compressor.system.sizes import format_size, parse_size

if TYPE_CHECKING:
    from compressor.training.teaching.caches import CacheEntry, Kind

_ACTIONS = ("list", "verify", "prune")
_KINDS = ("labels", "decoded")
_PRUNING = "Pruning"


def cache(
    printing: OutputOptions,
    action: Annotated[str, typer.Argument(metavar="ACTION", help=f"One of: {', '.join(_ACTIONS)}.")] = "list",
    kind: Annotated[
        str | None, option("KIND", "labels (teachers' logits) or decoded (pictures). Default: both.")
    ] = None,
    older_than: Annotated[
        int | None, option("DAYS", "Remove files that were not used for DAYS days.", _PRUNING, min=0)
    ] = None,
    to_size: Annotated[
        str | None, option("SIZE", "Remove the least recently used files until SIZE is left, such as 8GB.", _PRUNING)
    ] = None,
    everything: Annotated[bool, switch("--all", "Remove all files.", _PRUNING)] = False,
    dry_run: Annotated[bool, switch("--dry-run", "Show what would be removed, and remove nothing.", _PRUNING)] = False,
) -> int:
    """List, verify or prune what is kept between runs: teachers' answers and decoded pictures."""
    if action not in _ACTIONS:
        raise unknown_name("action on the cache", action, list(_ACTIONS))
    if kind is not None and kind not in _KINDS:
        raise unknown_name("kind of cache", kind, list(_KINDS))
    limit = None if to_size is None else parse_size(to_size)
    chosen_by = older_than is not None or limit is not None
    _check_criteria(action, chosen_by=chosen_by, everything=everything, dry_run=dry_run)

    from compressor.training.teaching import caches  # NumPy is not for --help

    with printing.open() as output:
        found = caches.list_entries(kind=cast("Kind | None", kind))
        if action == "verify":
            return _verify(found, output)
        if action == "list":
            _list(found, output)
            return DONE
        now = time.time()
        chosen = (
            found if everything else caches.choose_removals(found, now=now, older_than_days=older_than, to_size=limit)
        )
        if not dry_run:
            caches.remove_entries(chosen)
        _report_pruning(found, chosen, output, dry_run=dry_run)
    return DONE


def _check_criteria(action: str, *, chosen_by: bool, everything: bool, dry_run: bool) -> None:
    if action != "prune":
        if chosen_by or everything or dry_run:
            raise UsageError(
                f"`compress cache {action}` removes nothing.",
                "--older-than, --to-size, --all and --dry-run go with `compress cache prune`.",
            )
    elif everything and chosen_by:
        raise UsageError("--all leaves nothing to choose.", "Leave out --all, or --older-than and --to-size.")
    elif not (everything or chosen_by):
        raise UsageError(
            "nothing says what to remove.",
            "Add --older-than DAYS, --to-size SIZE or --all; --kind narrows each, --dry-run only shows.",
        )


def _list(found: Sequence[CacheEntry], output: Output) -> None:
    _table("Caches", found, output)
    files = f"{len(found)} file{'' if len(found) == 1 else 's'}"
    output.line(f"{files}, {format_size(_on_disk(found))} on disk, in {cache_folder()}")
    for entry in found:
        if entry.fault is not None:
            output.warn(f"{entry.path.name} cannot be used: {entry.fault}")
    fields = {"action": "list", "folder": str(cache_folder()), "items": [_item(entry) for entry in found]}
    output.json("compress.cache/1", {**fields, "disk_bytes": _on_disk(found)})


def _verify(found: Sequence[CacheEntry], output: Output) -> int:
    from compressor.training.teaching import caches

    output.phase(f"Checking {format_size(_on_disk(found))} in {cache_folder()}")
    rows, items, code = [], [], DONE
    for number, entry in enumerate(found, 1):
        damaged = caches.drop_damage(entry)
        status = "damaged" if damaged or entry.fault is not None else "ok"
        code = FAILED if status == "damaged" else code
        detail = f"{damaged:,} damaged records dropped" if damaged else _fault(entry)
        rows.append((entry.path.name, entry.kind, status, detail))
        items.append({**_item(entry), "status": status, "damaged_records": damaged})
        output.advance(number, len(found), entry.path.name)
    if rows:
        output.table("Caches", ["name", "kind", "status", "detail"], rows, figures=False)
    output.line("Something was damaged." if code else "All is sound.")
    output.json("compress.cache/1", {"action": "verify", "folder": str(cache_folder()), "items": items})
    return code


def _report_pruning(
    found: Sequence[CacheEntry], chosen: Sequence[CacheEntry], output: Output, *, dry_run: bool
) -> None:
    freed = _on_disk(chosen)
    left = _on_disk(found) - freed
    _table("Would be removed" if dry_run else "Removed", chosen, output)
    output.line(f"{format_size(freed)} {'would be ' if dry_run else ''}freed, {format_size(left)} left.")
    fields = {"action": "prune", "folder": str(cache_folder()), "items": [_item(entry) for entry in chosen]}
    output.json("compress.cache/1", {**fields, "dry_run": dry_run, "disk_bytes": freed, "left_disk_bytes": left})


def _table(title: str, found: Sequence[CacheEntry], output: Output) -> None:
    columns = ["kind", "holds", "filled", "on disk", "in all", "last used", "name"]
    rows = [
        (
            entry.kind,
            entry.holds,
            "" if entry.filled is None else percent(entry.filled),
            format_size(entry.disk_bytes),
            format_size(entry.size),
            time.strftime("%Y-%m-%d", time.localtime(entry.last_used)),
            entry.path.name,
        )
        for entry in found
    ]
    if rows:
        output.table(title, columns, rows, figures=False)


def _fault(entry: CacheEntry) -> str:
    return "" if entry.fault is None else f"{entry.fault}; the next run that needs it makes it anew"


def _on_disk(found: Sequence[CacheEntry]) -> int:
    return sum(entry.disk_bytes for entry in found)


def _item(entry: CacheEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.path.name,
        "holds": entry.holds,
        "filled": entry.filled,
        "bytes": entry.size,
        "disk_bytes": entry.disk_bytes,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.last_used)),
        "fault": entry.fault,
    }
