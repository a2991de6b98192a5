"""The process that opens the file. It reads one request, and tells the parent what it finds, line by line.

It ends with its parent: when the pipe that brought the request closes, and on Linux when the kernel says so.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
from time import monotonic
from typing import Any, BinaryIO, NoReturn

from compressor.core.errors import CompressError
from exporters.isolation import messages
from exporters.isolation.memory_limit import is_supported, leave_no_core, limit_memory

_PR_SET_PDEATHSIG = 1
_ALIVE_EVERY_SECONDS = 2.0


class _Warnings(logging.Handler):
    """Passes on what the program logs, such as a cache folder that cannot be written to."""

    def __init__(self, speaker: _Speaker) -> None:
        super().__init__(logging.WARNING)
        self._speaker = speaker

    def emit(self, record: logging.LogRecord) -> None:
        """Say it to the parent."""
        self._speaker.say("warning", {"text": record.getMessage()})


class _Speaker:
    """The way to the parent; what is not urgent is said no oftener than every other second."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = monotonic()

    def say(self, kind: str, body: dict[str, Any] | None = None) -> None:
        self._last = monotonic()
        try:
            self._stream.write(messages.encode(kind, body or {}))
            self._stream.flush()
        except OSError:
            os._exit(1)  # nobody listens

    def say_alive(self) -> None:
        if monotonic() - self._last > _ALIVE_EVERY_SECONDS:
            self.say("alive")


def main() -> NoReturn:
    """Answer the request on stdin, and end without ado: unloading libraries takes time, and can crash."""
    speaker = _Speaker(_private_stdout())
    # The parent decides what a signal means, also where a terminal or a container sends it to both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asked = messages.decode(sys.stdin.buffer.readline(messages.LONGEST))
    _end_with(asked["parent"])
    logging.getLogger().addHandler(_Warnings(speaker))
    try:
        _answer(asked, speaker)
    except CompressError as error:
        speaker.say("error", messages.error_to_json(error))
    except ModuleNotFoundError as error:
        speaker.say("missing", {"message": str(error), "name": error.name})
    except BaseException as error:
        traceback.print_exc()
        speaker.say("crash", {"name": type(error).__name__, "message": str(error)[:300]})
    sys.stderr.flush()
    os._exit(0)


def _answer(asked: messages.Message, speaker: _Speaker) -> None:
    from compressor.data.datasets import watch_decoding
    from compressor.system.devices import set_threads
    from exporters.verification.examination import examine
    from exporters.verification.request import Watcher
    from exporters.verification.verdict import Verdict

    request = messages.request_from_json(asked["request"])
    # What torch and the session get is the same; a verdict's command does not name it.
    set_threads(request.threads)
    limit = asked["memory_limit"]
    if limit is not None:
        limit_memory(limit)
    speaker.say("ready")

    def on_progress(name: str, done: int, total: int) -> None:
        speaker.say("progress", {"name": name, "done": done, "total": total})

    def on_step(step: str, verdict: Verdict) -> None:
        speaker.say("step", {"step": step, "verdict": messages.verdict_to_json(verdict)})

    with watch_decoding(lambda done, total: on_progress("pictures", done, total)):
        verdict = examine(request, Watcher(on_progress, on_step, speaker.say_alive))
    if asked["with_failures"]:
        for broken in verdict.failures:
            speaker.say("broken", messages.broken_to_json(broken))
    speaker.say("verdict", {"verdict": messages.verdict_to_json(verdict)})


def _private_stdout() -> BinaryIO:
    """The pipe to the parent, under a number that nothing else knows; what is printed goes to stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    return open(private, "wb", closefd=False)


def _end_with(parent: int) -> None:
    if is_supported():
        leave_no_core()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before we asked
    threading.Thread(target=_end_at_end_of_input, daemon=True).start()


def _end_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
