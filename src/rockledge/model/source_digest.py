"""Which checkpoint this is, without reading all of it: for knowing later what an artifact was made from.

Names and shapes of all tensors, all vectors (the norms), and three matrices as float32. Two fine-tunes of one
model differ in those; the same weights in another container do not.
"""

from hashlib import sha256

import numpy as np

from rockledge.model.checkpoint import Checkpoint

_ENDS = ("embed", "head")  # the largest matrices, and often left alone by fine-tuning


def source_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 in hexadecimal. Raises CheckpointError as reading a tensor does."""
    digest = sha256()
    shapes = {name: checkpoint.shape(name) for name in sorted(checkpoint.names())}
    digest.update(repr(sorted(shapes.items())).encode())
    matrices = [name for name, shape in shapes.items() if len(shape) > 1 and name not in _ENDS]
    picked = dict.fromkeys(matrices[place] for place in (0, len(matrices) // 2, -1)) if matrices else {}
    for name in [*(name for name, shape in shapes.items() if len(shape) == 1), *picked]:
        digest.update(np.ascontiguousarray(checkpoint.tensor(name), "<f4").tobytes())
    return digest.hexdigest()
