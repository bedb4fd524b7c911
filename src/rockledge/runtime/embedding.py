"""An embedding out of the state that a model ends a text with."""

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
