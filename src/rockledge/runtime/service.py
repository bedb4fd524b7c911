"""Runs an engine's steps in a thread of its own, reached by messages only."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from rockledge.board.levers import Setting
from rockledge.errors import ArtifactError, DiskError, RockledgeError
from rockledge.runtime.exchange import (
    Adjust,
    AskStats,
    Cancel,
    Drain,
    Ended,
    Failed,
    FromEngine,
    Stats,
    Submit,
    ToEngine,
)
from rockledge.runtime.request import EngineStats, Failure, Output, Request, failure_of

FAILED = "the engine failed while answering; its log says more"
SHUTTING_DOWN = "the server is shutting down; try again in a moment"
CUT_SHORT = (
    "the server is shutting down, and this answer took longer than it could wait; try again in a moment"
)

MOST_FAILURES = 3
"""Steps that fail in a row until the engine counts as broken."""

MOST_PAUSE_S = 2.0
"""Between two steps, however hot it is: clients should see that something comes."""

log = logging.getLogger(__name__)


class EngineLike(Protocol):
    """What the service needs of an engine. Only the service's thread calls it."""

    @property
    def idle(self) -> bool:
        """Whether no request is open."""

    def submit(self, request: Request) -> None:
        """Takes a request in; UsageError or ContextError for one that can never run."""

    def cancel(self, request: str) -> None:
        """Ends a request before the next step; one that is not there is left alone."""

    def step(self) -> Sequence[Output]:
        """One step of all requests that run, and what came of it."""

    def stats(self) -> EngineStats:
        """How it stands."""

    def waiting(self) -> Collection[str]:
        """Ids of the requests that no step has worked on yet."""

    def adjust(self, setting: Setting) -> None:
        """Threads, rows of prompts and sequences from the next step on."""


class Service:
    """Runs an engine's steps in a thread of its own. What goes in and out is plain data; nothing is shared.

    A step that raises costs the requests that were open: each gets one failure, and the service goes on. It
    ends with `Failed` when the weights are damaged, when requests cannot be taken out of the engine any more,
    or when `MOST_FAILURES` steps in a row have failed; steps for which the disk did not give the weights are
    not counted.
    """

    def __init__(self, engine: EngineLike, deliver: Callable[[FromEngine], None]) -> None:
        """`deliver` is called in the service's thread, which starts here."""
        self._engine = engine
        self._deliver = deliver
        self._inbox: SimpleQueue[ToEngine] = SimpleQueue()
        self._open: set[str] = set()
        self._failures = 0
        self._draining = False
        self._stopped = False
        self._grace_ends = 0.0
        self._rest = 0.0  # share of time between steps
        self._thread = threading.Thread(target=self._run, name="rockledge engine", daemon=True)
        self._thread.start()

    def send(self, message: ToEngine) -> None:
        """Hands a message over, from any thread; never blocks."""
        self._inbox.put(message)

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until the thread has ended, after `Stop` or `Drain`; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._take_messages()
                if self._draining and time.monotonic() >= self._grace_ends:
                    self._end_all(CUT_SHORT)
                if self._draining and not self._open:
                    break
                if not self._stopped and not self._engine.idle:
                    self._step()
                elif self._open:
                    self._end_all(FAILED)  # the engine has forgotten them; nobody should wait forever
        except _BrokenError as error:
            self._deliver(Failed(str(error)))
        except Exception:
            log.exception("the engine's thread failed")
            self._end_all(FAILED)
            self._deliver(Failed(FAILED))
        self._deliver(Ended())

    def _take_messages(self) -> None:
        """All that has come; waits for the first while there is nothing else to do."""
        wait = self._engine.idle and not self._draining and not self._open
        while not self._stopped:
            try:
                message = self._inbox.get(block=wait)
            except Empty:
                return
            wait = False
            self._take(message)

    def _take(self, message: ToEngine) -> None:
        if isinstance(message, Submit):
            self._submit(message.request)
        elif isinstance(message, Cancel):
            self._open.discard(message.request)
            self._engine.cancel(message.request)
        elif isinstance(message, AskStats):
            self._deliver(Stats(message.tag, self._engine.stats()))
        elif isinstance(message, Adjust):
            self._rest = message.setting.rest
            self._engine.adjust(message.setting)
        elif isinstance(message, Drain):
            self._draining = True
            self._grace_ends = time.monotonic() + message.grace_s
            self._end(self._open.intersection(self._engine.waiting()), SHUTTING_DOWN)
        else:
            self._end_all(SHUTTING_DOWN)
            self._stopped = True

    def _submit(self, request: Request) -> None:
        if self._draining:
            self._fail(request.id, Failure("failed", SHUTTING_DOWN))
            return
        if request.id in self._open:
            log.error("a request has the id of another, %s", request.id)
            return
        try:
            self._engine.submit(request)
        except Exception as error:
            self._fail(request.id, _failure(error))
        else:
            self._open.add(request.id)

    def _step(self) -> None:
        begun = time.monotonic()
        self._run_step()
        if self._rest > 0:
            self._pause((time.monotonic() - begun) * self._rest / (1 - self._rest))

    def _pause(self, seconds: float) -> None:
        """Lets the chip cool; messages are taken meanwhile, and whoever ends the service does not wait."""
        until = time.monotonic() + min(seconds, MOST_PAUSE_S)
        while not (self._stopped or self._draining) and (left := until - time.monotonic()) > 0:
            try:
                self._take(self._inbox.get(timeout=left))
            except Empty:
                return

    def _run_step(self) -> None:
        try:
            outputs = self._engine.step()
        except Exception as error:
            self._recover(error)
            return
        self._failures = 0
        for output in outputs:
            if output.request in self._open:
                if output.last:
                    self._open.discard(output.request)
                self._deliver(output)

    def _recover(self, error: Exception) -> None:
        """Ends all requests after a step that failed, so that the engine can begin anew."""
        failure = _failure(error)
        if not isinstance(error, DiskError):  # another step reads again, and may well get through
            self._failures += 1
        try:
            self._end_all(failure.message, failure)
        except Exception as another:
            _failure(another)
            raise _BrokenError(failure.message) from error
        if isinstance(error, ArtifactError) or self._failures >= MOST_FAILURES:
            raise _BrokenError(failure.message) from error

    def _end_all(self, message: str, failure: Failure | None = None) -> None:
        self._end(set(self._open), message, failure)

    def _end(self, requests: Collection[str], message: str, failure: Failure | None = None) -> None:
        """Tells every one of `requests` first, then takes them out of the engine."""
        for request in requests:
            self._open.discard(request)
            self._fail(request, failure or Failure("failed", message))
        for request in requests:
            self._engine.cancel(request)

    def _fail(self, request: str, failure: Failure) -> None:
        self._deliver(Output(request, failure=failure, last=True))


class _BrokenError(Exception):
    """The engine cannot go on."""


def _failure(error: Exception) -> Failure:
    """What a request is told of `error`; what was not foreseen goes into the log."""
    if isinstance(error, RockledgeError):
        return failure_of(error)
    log.error("the engine failed", exc_info=error)
    return Failure("failed", FAILED)
