"""The folder of a report: new, or an earlier report's; written whole or not at all."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping
from pathlib import Path

from compressor.attack_report.figures import figures
from compressor.attack_report.findings import SCHEMA, ReportFindings
from compressor.attack_report.page import page
from compressor.attack_report.tables import tables
from compressor.core.errors import UsageError, WriteError
from compressor.system.files import canonical_json, read_object, write_bytes

FILES = (
    "report.md",
    "report.json",
    "attacks.csv",
    "classes.csv",
    "confusion.csv",
    "confusion.png",
    "curve.csv",
    "curve.png",
    "gallery.png",
    "norms.csv",
    "norms.png",
    "targeted.csv",
)

_LARGEST_BYTES = 1 << 26
# The folder is a mount point or a working folder, or its parent is another file system or not ours to write in.
_FOLDER_IS_FIXED = (errno.EBUSY, errno.EINVAL, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)


def refuse_foreign_report(folder: Path) -> None:
    """Refuse a path where something would be overwritten that is no earlier report.

    Raises:
        UsageError: it is a file, or a folder that holds anything else; the hint is to choose another.
    """
    hint = "Name a folder that does not exist yet, or an earlier report's."
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder.", hint)
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not held:
        return
    if not _is_report(folder / "report.json"):
        raise UsageError(f"the folder {folder} is not empty, and no report of attacks.", hint)
    foreign = [name for name in held if name not in FILES]
    if foreign:
        raise UsageError(f"the folder {folder} holds {foreign[0]}, which is no part of a report.", hint)


def report_files(findings: ReportFindings) -> dict[str, bytes]:
    """Every file of a report, by name: the same findings give the same bytes."""
    data = canonical_json(findings.to_json()) + "\n"
    texts = {**tables(findings), "report.json": data}
    files = {**figures(findings), **{name: text.encode() for name, text in texts.items()}}
    return {"report.md": page(findings, files).encode(), **files}


def write_folder(folder: Path, findings: ReportFindings) -> None:
    """Write a report; an earlier one in the same place is replaced as a whole.

    Where the folder itself cannot be renamed, as one that a container mounts, its files are replaced one by one.

    Raises:
        UsageError: see ``refuse_foreign_report``.
        WriteError: disk full or no permission.
        MissingPackageError: matplotlib is not installed.
    """
    refuse_foreign_report(folder)
    files = report_files(findings)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _replace_whole(folder, files)
    except OSError as error:
        if not (folder.is_dir() and error.errno in _FOLDER_IS_FIXED):
            raise WriteError(
                f"cannot write {folder}: {error.strerror or error}.", "Free some space or choose another folder."
            ) from error
        _replace_each(folder, files)


def _replace_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:80]}.", dir=folder.parent) as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        new.mkdir()
        for name, data in files.items():
            (new / name).write_bytes(data)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def _replace_each(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_bytes(folder / name, data)
    for name in set(FILES) - set(files):
        (folder / name).unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    document = read_object(path, _LARGEST_BYTES)
    return document is not None and document.get("schema") == SCHEMA
