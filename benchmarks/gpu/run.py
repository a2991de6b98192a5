"""Everything that is to be learned of a GPU in a few minutes: tests, speed and one real run.

python benchmarks/gpu/run.py --packed .gpu --output RESULTS      on the machine with the GPU
python benchmarks/gpu/run.py --smoke --output RESULTS            tiny, on any machine, nothing needed
python benchmarks/gpu/run.py --packed .gpu --plan                what would run, and what is absent

Each part runs in a process of its own under a budget of its own, and writes results.jsonl and summary.md as it goes.
A part that fails or hangs stops no other. See benchmarks/gpu/README.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from benchmarks.gpu import machine, packed  # noqa: E402
from benchmarks.gpu.clock import Clock, allot, parse_budgets  # noqa: E402
from benchmarks.gpu.results import Results, check_folder  # noqa: E402
from benchmarks.gpu.settings import Settings  # noqa: E402
from benchmarks.gpu.worker import PARTS  # noqa: E402

BUDGETS = {"tests": 75.0, "speed": 165.0, "real": 560.0}
LEAST = 10.0
# Seconds that a part may overrun, to end a measurement it has begun; then it is killed.
GRACE = {"tests": 25.0, "speed": 20.0, "real": 10.0}


def main() -> int:
    """Run the parts, or tell what would run; exit 1 if a part failed, 2 if it cannot start."""
    arguments = _arguments()
    # A limit from outside ends the part's process too, and what it has written stays.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        budgets = parse_budgets(arguments.budget, BUDGETS)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    clock = Clock(arguments.total)
    parts = [part for part in PARTS if part not in arguments.skip and (not arguments.only or part in arguments.only)]
    work: Path = arguments.work or Path(tempfile.gettempdir()) / "gpu-benchmark"
    work.mkdir(parents=True, exist_ok=True)
    if arguments.packed is not None and (arguments.packed / packed.WHEELS).is_dir():
        site = packed.unpack_wheels(arguments.packed, work)
        sys.path.append(str(site))  # last: what the machine has goes first
    found = machine.describe(work)
    device = arguments.device or ("cpu" if arguments.smoke else "cuda")
    problems = _problems(arguments, found, parts, device)
    _tell_plan(parts, budgets, arguments.total, found, problems, device)
    if arguments.plan:
        return 0
    if arguments.output is None:
        print("Name a folder for the results by --output.", file=sys.stderr)
        return 2
    if problems:
        return 2
    results = Results(arguments.output.resolve())
    results.add("run", "machine", **found, command=" ".join(sys.argv[1:]), device=device)
    failed = False
    with (results.folder / "log.txt").open("ab") as log:
        for part in parts:
            seconds = allot(part, budgets, clock.left - (0 if arguments.smoke else GRACE[part]), least=LEAST)
            if not seconds:
                results.add(part, "skipped", why=f"{clock.left:.0f} s of the total were left")
                continue
            settings = Settings(
                output=results.folder, work=work.resolve(), packed=arguments.packed and arguments.packed.resolve(),
                device=device, seconds=seconds, smoke=arguments.smoke, compiled=arguments.compiled,
                profile=arguments.profile, train_seconds=arguments.train_seconds,
                student=arguments.student, train_images=arguments.train_images, test_images=arguments.test_images,
                test_workers=arguments.test_workers,
            )  # fmt: skip
            failed |= _run_part(part, settings, results, log) != 0
    print(results.summary.read_text(encoding="utf-8"), flush=True)
    for problem in check_folder(results.folder):
        print(f"These results cannot be brought back as they are: {problem}")
    return int(failed)


def _run_part(part: str, settings: Settings, results: Results, log: IO[bytes]) -> int:
    """Start the part's process, show and keep what it prints, and end it if it overruns its grace."""
    print(f"{part}: at most {settings.seconds:.0f} s", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.worker", part, settings.to_json()],
        cwd=ROOT, env=_environment(settings.work), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    reader = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
    reader.start()
    try:
        code = process.wait(timeout=settings.seconds + GRACE[part])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        results.add(part, "stopped", why=f"it was killed {GRACE[part]:.0f} s after its budget's end")
    except BaseException:  # an interruption of this process must not leave the part behind
        os.killpg(process.pid, signal.SIGKILL)
        raise
    reader.join(timeout=5)
    if code not in (0, 1) and code != -signal.SIGKILL:
        results.add(part, "failure", error=f"its process ended with {code}; see log.txt")
    seconds = time.monotonic() - started
    results.add("run", "part", name=part, seconds=seconds, budget=settings.seconds, exit_code=code)
    return code


def _copy(source: IO[bytes], log: IO[bytes]) -> None:
    for line in source:
        log.write(line)
        log.flush()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _environment(work: Path) -> dict[str, str]:
    """This repository and the unpacked wheels on the path, caches and temporary files below ``work``."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")]), str(packed.site(work))]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "COMPRESS_CACHE_DIR": str(work / "cache"),
    }


def _problems(arguments: argparse.Namespace, found: dict[str, Any], parts: list[str], device: str) -> list[str]:
    """What keeps the parts from running: one sentence for each."""
    problems = []
    if found["absent"]:
        problems.append(f"Python packages are absent: {', '.join(found['absent'])}. Pack them with pack.py --wheels.")
    if device == "cuda" and found["gpu"] is None:
        problems.append("PyTorch sees no GPU. Use --smoke to try everything on the CPU.")
    if "real" in parts and not arguments.smoke:
        if arguments.packed is None:
            problems.append("The real run needs --packed FOLDER, filled by benchmarks/gpu/pack.py. Or use --skip real.")
        else:
            try:
                problems += packed.what_is_absent(arguments.packed)
                packed.teacher(arguments.packed)
                if not (arguments.packed / packed.PICTURES).is_file():
                    problems.append(f"{arguments.packed} has no {packed.PICTURES}.")
            except FileNotFoundError as error:
                problems.append(str(error))
    return problems


def _tell_plan(
    parts: list[str], budgets: dict[str, float], total: float, found: dict[str, Any], problems: list[str], device: str
) -> None:
    print(f"Parts: {', '.join(f'{part} at most {budgets[part]:.0f} s' for part in parts)}; {total:.0f} s in all.")
    print(f"Device: {device}. GPU: {found['gpu'] or 'none'}.")
    print(f"Python {found['python']}, {found['cores']} cores, {found['free_disk_bytes'] / 1e9:.0f} GB of disk free.")
    print("Packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    for problem in problems:
        print(f"Cannot run: {problem}")
    if not problems:
        print("Nothing is absent.")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--packed", type=Path, help="folder that pack.py filled")
    parser.add_argument("--work", type=Path, help="folder for pictures, caches and runs (default: a temporary one)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], help="run these parts alone")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], help="leave these parts out")
    parser.add_argument("--budget", nargs="+", default=[], metavar="PART=SECONDS", help="seconds of a part")
    parser.add_argument("--total", type=float, default=570.0, help="seconds of all parts together (default: 570)")
    parser.add_argument(
        "--train-seconds", type=float, default=360.0, help="seconds of the real training (default: 360)"
    )
    parser.add_argument("--student", default="resnet18", help="model of the real run (default: resnet18)")
    parser.add_argument("--train-images", type=int, default=0, help="images of the real run (default: all)")
    parser.add_argument("--test-images", type=int, default=1000, help="test images to attack (default: 1000)")
    parser.add_argument("--test-workers", type=int, default=4, help="processes that run tests; 0 for none (default: 4)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, random pictures, on the CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda, and cpu with --smoke")
    parser.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, default=None, help="time torch.compile too (default: yes)"
    )
    parser.add_argument("--profile", action="store_true", help="write a table of the most expensive kernels")
    parser.add_argument("--plan", action="store_true", help="say what would run and what is absent, and stop")
    arguments = parser.parse_args()
    if arguments.compiled is None:
        arguments.compiled = not arguments.smoke
    if arguments.smoke:
        arguments.test_images = min(arguments.test_images, 8)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
