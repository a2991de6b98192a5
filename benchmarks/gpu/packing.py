"""Makes the folder that travels: pictures, teacher and wheels, with their sizes and a limit for all of it."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.splitting import MIB

LIMIT = 64 * MIB

# Weights and data that a wheel ships for its examples; nothing imports them.
_BALLAST = (".pt", ".pth", ".h5", ".npz")


def pack_pictures(source: Path, target: Path) -> None:
    """Compress a tar file of JPEG pictures, byte for byte: unpacked, every picture is the file that it was.

    The JPEG headers, nearly the same in each small picture, and the archive's own padding are most of the tar file.
    """
    with source.open("rb") as plain, lzma.open(target, "wb", preset=6) as compressed:
        shutil.copyfileobj(plain, compressed, MIB)


def fetch_wheels(names: Sequence[str], folder: Path, *, python: str) -> None:
    """Download wheels for Linux on x86-64 with pip, without what they depend on, and leave their ballast out.

    Raises:
        subprocess.CalledProcessError: pip found no such wheel.
    """
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + ["manylinux2014_x86_64"]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--python-version", python, "--implementation", "cp",
        *(word for platform in platforms for word in ("--platform", platform)), "--dest", str(folder), *names,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    for wheel in folder.glob("*.whl"):
        slim_wheel(wheel)


def slim_wheel(wheel: Path) -> None:
    """Rewrite a wheel without weights and data, which can be most of it."""
    slim = wheel.with_suffix(".slim")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(slim, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for member in source.infolist():
            if not member.filename.endswith(_BALLAST):
                target.writestr(member, source.read(member), zipfile.ZIP_DEFLATED)
    slim.replace(wheel)


def tree_bytes(root: Path) -> int:
    """Bytes of the work tree's files that Git tracks or would track: they travel too."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True,
    ).stdout.decode().split("\0")  # fmt: skip
    return sum((root / name).stat().st_size for name in names if name and (root / name).is_file())


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below the folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def account(files: dict[str, int], tree: int, limit: int) -> tuple[str, bool]:
    """What each part takes, in lines of text, and whether all of it fits the limit."""
    total = sum(files.values()) + tree
    rows = [*files.items(), ("the repository's own files", tree), ("together", total), ("limit", limit)]
    lines = [f"{size:>14,}  {name}" for name, size in rows]
    fits = total <= limit
    lines.append("It fits." if fits else f"It does not fit: {total - limit:,} bytes too many.")
    return "\n".join(lines), fits
