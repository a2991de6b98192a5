"""The parent's side: what the child says becomes the verdict, and so does that it says nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty
from time import monotonic

from compressor.core.reporting import OnProgress
from compressor.system.memory import is_out_of_memory_message
from compressor.system.sizes import format_size
from exporters.isolation import messages
from exporters.isolation.memory_limit import default_limit, is_supported
from exporters.isolation.messages import MalformedMessageError, Message, require_field
from exporters.isolation.process import Child
from exporters.verification.request import Request, refuse_invalid_request
from exporters.verification.verdict import MORE_MEMORY, NOT_DECIDED, BrokenImage, Check, Verdict

ISOLATION, MEMORY = "isolation", "memory limit"
"""No steps of the protocol: what bounded them."""

SILENCE_SECONDS = 3600.0
"""A child that neither ran the file nor ended a step or a batch for so long is taken to hang."""

GRACE_SECONDS = 60.0
"""How long after its time limit a child may finish the batch in hand."""

_TICK_SECONDS = 0.1
_START = "start"
_INTERNAL = "This program failed on this file; add --debug to see where, and please report it."


@dataclass(frozen=True)
class Listener:
    """Who is told how it goes on; see :func:`verify_isolated`."""

    on_progress: OnProgress | None = None
    on_warning: Callable[[str], None] | None = None
    check_stop: Callable[[], None] | None = None


def verify_isolated(
    request: Request,
    *,
    listener: Listener | None = None,
    with_failures: bool = True,
    debug: bool = False,
) -> Verdict:
    """Do what :func:`exporters.verification.examine` does, in a process of its own that is bounded in memory and time.

    This process loads neither torch nor onnxruntime, and never looks into the file.

    Args:
        request: what is asked. Its memory limit is what the child may allocate beyond what its libraries take; without
            one, 16 GB or three quarters of what is free, whichever is less.
        listener: told how it goes on. Its ``check_stop`` is called a few times a second, and may raise to end it all.
        with_failures: bring the broken images back, too.
        debug: show what the child prints.

    Returns:
        The verdict; undecided where the child crashed, asked for too much memory, or hung.

    Raises:
        CompressError: as the verification in this process would.
    """
    refuse_invalid_request(request)
    limit, unlimited = _limit(request)
    with (
        messages.request_as_json(request) as plain,
        Child({"request": plain, "memory_limit": limit, "with_failures": with_failures}, echo=debug) as child,
    ):
        verdict = _Conversation(request, child, listener or Listener(), limit).verdict()
    if unlimited:
        verdict = replace(verdict, checks=(Check(MEMORY, "skipped", unlimited), *verdict.checks))
    return verdict


def _limit(request: Request) -> tuple[int | None, str]:
    """The limit in bytes, or None and why there is none."""
    if request.memory_limit == 0:
        return None, "none was set: none was wanted"
    if not is_supported():
        return None, "none was set: this system has none that holds"
    if request.provider != "cpu":
        return None, "none was set: CUDA reserves more memory than it uses"
    return request.memory_limit or default_limit(), ""


class _Conversation:
    """What one child has said so far, and what follows from it."""

    def __init__(self, request: Request, child: Child, listener: Listener, limit: int | None) -> None:
        self._request = request
        self._child = child
        self._listener = listener
        self._limit = limit
        self._step = _START
        self._so_far = _nothing_known(request)
        self._broken: list[BrokenImage] = []
        self._silent = 0.0
        self._hard_stop: float | None = None

    def verdict(self) -> Verdict:
        """Listen to the end."""
        while True:
            if self._listener.check_stop is not None:
                self._listener.check_stop()
            if self._hard_stop is not None and monotonic() > self._hard_stop:
                return self._cut_short(
                    f"it did not end within {GRACE_SECONDS:g} s of the time limit of {self._request.time_limit:g} s",
                    "A step or batch that was begun takes long: allow more with --time-limit.",
                )
            try:
                message = self._child.receive(_TICK_SECONDS)
                self._silent = 0.0
                ended = self._died() if message is None else self._heard(message)
            except Empty:
                # Counted, not measured: while everything is suspended, nobody is silent.
                self._silent += _TICK_SECONDS
                if self._silent < SILENCE_SECONDS:
                    continue
                return self._cut_short(
                    f"nothing was heard of it for {SILENCE_SECONDS:g} s", "The file takes too long to run, or for ever."
                )
            except MalformedMessageError as error:
                return self._cut_short(f"it sent what cannot be understood ({error})", _INTERNAL)
            if ended is not None:
                return ended

    def _heard(self, message: Message) -> Verdict | None:
        listener = self._listener
        match message["kind"]:
            case "ready":
                if self._request.time_limit is not None:
                    self._hard_stop = monotonic() + self._request.time_limit + GRACE_SECONDS
            case "progress" if listener.on_progress is not None:
                done, total = require_field(message, "done", int), require_field(message, "total", int)
                listener.on_progress(require_field(message, "name", str), done, total)
            case "warning" if listener.on_warning is not None:
                listener.on_warning(require_field(message, "text", str))
            case "step":
                self._step = require_field(message, "step", str)
                self._so_far = messages.verdict_from_json(require_field(message, "verdict", dict))
            case "broken":
                self._broken.append(messages.broken_from_json(message))
            case "verdict":
                return self._own(
                    messages.verdict_from_json(require_field(message, "verdict", dict), tuple(self._broken))
                )
            case "error":
                raise messages.error_from_json(message)
            case "missing":
                raise ModuleNotFoundError(
                    require_field(message, "message", str), name=require_field(message, "name", str)
                )
            case "crash":
                return self._crashed(require_field(message, "name", str), require_field(message, "message", str))
        return None

    def _own(self, verdict: Verdict) -> Verdict:
        """The verdict, with what this process knows better than any child."""
        return replace(verdict, seed=self._request.seed, command=self._request.command())

    def _died(self) -> Verdict:
        ending = self._child.ending()
        if is_out_of_memory_message(self._child.printed):
            return self._cut_short(f"it {ending}, out of memory{self._bound()}", MORE_MEMORY)
        cause = "The file made a library crash"
        if "SIGKILL" in ending:
            cause = "Most likely the system was out of memory and ended it: lower --memory-limit, or have more"
        elif self._limit is not None:
            cause += f", or the memory{self._bound()} was too little for it: allow more with --memory-limit"
        return self._cut_short(f"it {ending}", f"{cause}.")

    def _crashed(self, name: str, message: str) -> Verdict:
        if name == MemoryError.__name__ or is_out_of_memory_message(message):
            return self._cut_short(f"it was out of memory{self._bound()}", MORE_MEMORY)
        return self._cut_short(f"internal error: {name}: {message}", _INTERNAL)

    def _bound(self) -> str:
        return f" (limited to {format_size(self._limit)})" if self._limit is not None else ""

    def _cut_short(self, detail: str, cause: str) -> Verdict:
        """What was known when the last step began, and that this is all."""
        where = "at the start" if self._step == _START else f"in the step {self._step!r}"
        detail = f"the process that examines the file gave no answer {where}: {detail}"
        check = Check(ISOLATION, "undecided", detail, cause)
        known = self._so_far
        # Policies were held against figures that are not final.
        return self._own(
            replace(known, answer="undecided", summary=NOT_DECIDED, policy=(), checks=(*known.checks, check))
        )


def _nothing_known(request: Request) -> Verdict:
    return Verdict(
        answer="undecided",
        reached=("self-consistent",),
        summary=NOT_DECIDED,
        samples=0,
        clean=None,
        robust=None,
        broken=0,
        attacked=0,
        attacks={},
        alarms=(),
        checks=(),
        policy=(),
        claim=None,
        threat=request.threat,
        suite="",
        seed=request.seed,
        command=request.command(),
    )
