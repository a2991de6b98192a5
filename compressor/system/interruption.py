"""SIGINT and SIGTERM as a request: the work in hand is finished and saved, then the process ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compressor.core.errors import Interrupted


class StopRequest:
    """Whether a signal has asked us to stop, and which."""

    def __init__(self) -> None:
        self.signum: int | None = None

    @property
    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    def raise_if_set(self) -> None:
        """Raise ``Interrupted`` if a signal has come; call it where the state is saved."""
        if self.signum is not None:
            raise Interrupted(self.signum)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one takes its usual, immediate effect."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may install handlers
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def remember(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        restore()
        # Not print: a handler may run in the middle of one.
        os.write(2, b"\nStopping after the current batch. Press Ctrl-C again to stop now.\n")

    for number in previous:
        signal.signal(number, remember)
    try:
        yield request
    finally:
        restore()
