"""The check that weights are numbers."""

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError


def require_finite(name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`values` unchanged; CheckpointError naming the tensor when one of them is NaN or infinite."""
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise CheckpointError(
            f"{name} holds {count} values that are NaN or infinite; the checkpoint is damaged, fetch it again"
        )
    return values
