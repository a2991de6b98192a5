"""Packs what a bare machine with one GPU and no network needs beside this repository, into one folder that Git ignores.

python benchmarks/gpu/pack.py --pictures PICTURES.tar --teacher CHECKPOINT [--output .gpu]

The pictures go compressed, without loss: the JPEG files are the same bytes after unpacking. Wheels of the packages that
such a machine lacks are fetched with pip. Prints how many bytes each part takes; exit 1 if it is more than can be
brought at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from benchmarks.gpu import packed, packing  # noqa: E402
from benchmarks.gpu.splitting import MIB, digest  # noqa: E402

# Neither PyTorch's usual companions nor pytest; cffi and pycparser are cryptography's.
LACKING = ("pyautoattack", "platformdirs", "cryptography", "cffi", "pycparser")


def main() -> int:
    """Fill the folder and say what it takes."""
    arguments = _arguments()
    folder: Path = arguments.output
    for path in (arguments.pictures, arguments.teacher):
        if path is not None and not path.is_file():
            print(f"There is no file {path}.", file=sys.stderr)
            return 2
    for part in (packed.TEACHERS, packed.WHEELS):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    source = None
    if arguments.pictures is not None:
        source = digest(arguments.pictures)
        packing.pack_pictures(arguments.pictures, folder / packed.PICTURES)
    if arguments.teacher is not None:
        shutil.copyfile(arguments.teacher, folder / packed.TEACHERS / arguments.teacher.name)
    if arguments.wheels:
        packing.fetch_wheels(arguments.wheels, folder / packed.WHEELS, python=arguments.python)
    (folder / packed.CONTENTS).unlink(missing_ok=True)
    files = packing.sizes(folder)
    contents = {"files": files, "pictures_sha256": source, "python": arguments.python}
    (folder / packed.CONTENTS).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    text, fits = packing.account(packing.sizes(folder), packing.tree_bytes(ROOT), arguments.limit_mib * MIB)
    print(text)
    return 0 if fits else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="tar file with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--teacher", type=Path, help="checkpoint of the real run's teacher")
    parser.add_argument("--output", type=Path, default=ROOT / ".gpu", help="folder to fill (default: .gpu)")
    parser.add_argument(
        "--wheels", nargs="*", default=list(LACKING), metavar="NAME", help="packages to fetch; none for no wheels"
    )
    parser.add_argument("--python", default="3.12", help="Python version of the machine (default: 3.12)")
    parser.add_argument(
        "--limit-mib", type=int, default=packing.LIMIT // MIB, help="MiB that can be brought at a time (default: 64)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
