"""One request in the hands of its caller: the engine stepped until it is done, its pieces as they come."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from rockledge.errors import NativeError, UsageError
from rockledge.runtime.piece import Piece, RequestStats
from rockledge.runtime.request import Output
from rockledge.runtime.sequence import Sequence


class Steps(Protocol):
    """The engine, as far as it matters here."""

    def step_unless(self, arrived: Callable[[], bool]) -> None: ...
    def cancel(self, request: str) -> None: ...


class Stepper:
    """Steps an engine until one request is done; others that run are taken along."""

    def __init__(self, engine: Steps, sequence: Sequence, inbox: deque[Output]) -> None:
        """`inbox`: where the outputs of the request go."""
        self._engine = engine
        self._sequence = sequence
        self._inbox = inbox

    @property
    def stats(self) -> RequestStats:
        """The work so far."""
        return self._sequence.stats

    def outputs(self) -> Iterator[Output]:
        """What has come since the last call."""
        while self._inbox:
            yield self._inbox.popleft()

    def step(self) -> None:
        """One step, unless another thread has made it meanwhile."""
        self._engine.step_unless(lambda: bool(self._inbox))

    def close(self) -> None:
        """Ends the request, if it has not ended."""
        self._engine.cancel(self._sequence.request.id)


def last_output(stepper: Stepper) -> Output:
    """The end of a request that gives no pieces."""
    try:
        while True:
            for output in stepper.outputs():
                if output.last:
                    return output
            stepper.step()
    finally:
        stepper.close()


class Generation(Iterator[Piece]):
    """Pieces as they become certain, each step made when the next one is asked for; `stats` is the work so
    far. The request begins with the first piece and ends with the last, or when this is closed or dropped."""

    def __init__(self, begin: Callable[[], Stepper], cancelled: Callable[[], bool]) -> None:
        self._begun: list[Stepper] = []
        self._pieces = _pieces(begin, self._begun, cancelled)

    @property
    def stats(self) -> RequestStats:
        """The work so far."""
        return self._begun[0].stats if self._begun else RequestStats()

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Ends the request where it is."""
        self._pieces.close()


# A function, so that nothing refers to the generation itself: one that is dropped ends its request at once.
def _pieces(
    begin: Callable[[], Stepper], begun: list[Stepper], cancelled: Callable[[], bool]
) -> Generator[Piece, None, None]:
    stepper = begin()
    begun.append(stepper)
    try:
        while True:
            for output in stepper.outputs():
                if output.piece is not None:
                    yield output.piece
                if output.failure is not None:
                    kind = UsageError if output.failure.kind == "usage" else NativeError
                    raise kind(output.failure.message)
                if output.last:
                    return
            if cancelled():
                return
            stepper.step()
    finally:
        stepper.close()
