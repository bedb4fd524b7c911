"""An embedding out of the states that a model has after the tokens of a text."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

# What shorter states are divided by, as in torch.nn.functional.normalize.
_LEAST_LENGTH = np.float32(1e-12)


def unit_embedding(state: Sequence[float] | Float32, dimensions: int | None = None) -> Float32:
    """The first `dimensions` numbers of a state (None: all of them), brought to length 1; fp32."""
    kept: Float32 = np.asarray(state, np.float32)[:dimensions]
    return kept / max(np.linalg.norm(kept), _LEAST_LENGTH)


class MeanState:
    """The mean of states that come in steps. They are added one after the other in double precision, so that
    its bits do not depend on the steps."""

    def __init__(self, hidden: int) -> None:
        self._sum = np.zeros(hidden, np.float64)
        self._count = 0

    def clear(self) -> None:
        """Nothing has come."""
        self._sum[:] = 0.0
        self._count = 0

    def add(self, states: Float32) -> None:
        """The states fp32 [tokens, hidden] after the next tokens."""
        for state in states:
            self._sum += state
        self._count += len(states)

    @property
    def value(self) -> Float32:
        """The mean of all that have come, fp32 [hidden]."""
        return (self._sum / self._count).astype(np.float32)
