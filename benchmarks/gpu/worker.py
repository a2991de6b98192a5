"""One part in a process of its own: what breaks it, a lost GPU context among it, reaches no other part.

python -m benchmarks.gpu.worker PART SETTINGS
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback

from benchmarks.gpu.clock import Clock
from benchmarks.gpu.results import Results
from benchmarks.gpu.settings import Settings

PARTS = ("tests", "speed", "real")


def end_with(parent: int) -> None:
    """Kill this process and what it has started soon after its parent is gone: nobody else would.

    Args:
        parent: its process number.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)  # the script gives each part a group of its own

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def main(name: str, text: str) -> int:
    """Run the part; a failure becomes a record, and exit code 1."""
    settings = Settings.from_json(text)
    clock = Clock(settings.seconds)
    results = Results(settings.output)
    try:
        importlib.import_module(f"benchmarks.gpu.part_{name}").run(settings, results, clock)
    except BaseException as error:
        traceback.print_exc()
        results.add(name, "failure", error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()[-4000:])
        return 1
    return 0


if __name__ == "__main__":
    end_with(os.getppid())
    sys.exit(main(sys.argv[1], sys.argv[2]))
