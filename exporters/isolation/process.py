"""A fresh interpreter that is told one thing and answers in lines; however its caller leaves, it is gone by then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, Queue
from types import TracebackType
from typing import IO

from exporters.isolation.messages import LONGEST, Message, decode, encode

# The child imports from where its parent did. Without -P a file `json.py` in the working folder, which may have come
# with the model, would be run.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from exporters.isolation.child import main; main()"
_QUEUED = 256
_TAIL = 200  # lines of stderr, each of at most as many characters
_PATIENCE_SECONDS = 10.0


class Child:
    """The process, as a context.

    Args:
        request: what it is told.
        echo: show what it prints, as it prints it.
    """

    def __init__(self, request: Message, *, echo: bool = False) -> None:
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._lines: Queue[bytes] = Queue(_QUEUED)
        self._echo = echo
        command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._readers = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in ((self._read, self._process.stdout), (self._listen, self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self._tell(encode("request", {**request, "parent": os.getpid()}))

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(Empty):
            while self._lines.get(timeout=_PATIENCE_SECONDS):  # the reader may be waiting for room
                pass
        for reader in self._readers:
            reader.join(_PATIENCE_SECONDS)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close(stream)

    @property
    def printed(self) -> str:
        """The last that it printed to stderr; libraries that give up say why."""
        return "".join(self._tail)

    def receive(self, timeout: float) -> Message | None:
        """The next message; None where there is no more to come.

        Raises:
            queue.Empty: nothing came in ``timeout`` seconds. MalformedMessageError: what came is no message.
        """
        line = self._lines.get(timeout=timeout)
        if not line:
            self._lines.put(b"")  # for the next call, and for the end
            return None
        return decode(line)

    def ending(self) -> str:
        """How it ended after its last message, as a clause: by which signal, or with which exit code."""
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its pipe without an answer"
        for reader in self._readers:
            reader.join(_PATIENCE_SECONDS)
        if code < 0:
            return f"was ended by {_name(-code)}"
        return f"ended with exit code {code} and without an answer"

    def _tell(self, line: bytes) -> None:
        stream = self._process.stdin
        assert stream is not None
        with suppress(OSError):  # where it is gone already, its own pipe says so in a moment
            stream.write(line)
            stream.flush()

    def _read(self, stream: IO[bytes]) -> None:
        while line := stream.readline(LONGEST):
            self._lines.put(line)
        self._lines.put(b"")

    def _listen(self, stream: IO[bytes]) -> None:
        while line := stream.readline(_TAIL):
            text = line.decode("utf-8", errors="replace")
            self._tail.append(text)
            if self._echo:
                sys.stderr.write(text)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _close(stream: IO[bytes] | None) -> None:
    with suppress(OSError):  # what could not be written any more
        if stream is not None:
            stream.close()
