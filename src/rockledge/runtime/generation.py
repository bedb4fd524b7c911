"""The pieces of one answer, as a caller with one request takes them."""

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from rockledge.errors import NativeError
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
                    raise NativeError(output.failure.message)
                if output.last:
                    return
            if cancelled():
                return
            stepper.step()
    finally:
        stepper.close()
