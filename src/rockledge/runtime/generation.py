"""The pieces of one answer, as a caller with one request takes them."""

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from rockledge.runtime.piece import Piece, RequestStats
from rockledge.runtime.request import Output


class Stepper(Protocol):
    """What takes a request further."""

    @property
    def stats(self) -> RequestStats: ...
    def outputs(self) -> Iterator[Output]: ...
    def step(self) -> None: ...
    def close(self) -> None: ...


class Generation(Iterator[Piece]):
    """Pieces as they become certain, each step made when the next one is asked for; `stats` is the work so
    far. The request begins with the first piece and ends with the last, or with `close`."""

    def __init__(self, begin: Callable[[], Stepper], cancelled: Callable[[], bool]) -> None:
        self._begin = begin
        self._cancelled = cancelled
        self._stepper: Stepper | None = None
        self._pieces = self._run()

    @property
    def stats(self) -> RequestStats:
        """The work so far."""
        return RequestStats() if self._stepper is None else self._stepper.stats

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Ends the request where it is."""
        self._pieces.close()

    def _run(self) -> Generator[Piece, None, None]:
        self._stepper = stepper = self._begin()
        try:
            while True:
                for output in stepper.outputs():
                    if output.piece is not None:
                        yield output.piece
                    if output.last:
                        return
                if self._cancelled():
                    return
                stepper.step()
        finally:
            stepper.close()
