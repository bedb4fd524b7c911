"""Where a linear may be cut into bands: the runs of rows whose width is chosen independently."""

from rockledge.formats.bands import STRIP
from rockledge.model.config import ModelConfig
from rockledge.model.family import Linear, size

# Blocks of feed-forward channels, or of tokens (the frequent ones have low numbers): narrow enough to
# follow the prices, wide enough for a kernel call to pay.
_LEAST_BLOCK = 128
_MOST_BLOCKS = 16


def cut(linear: Linear, config: ModelConfig) -> tuple[tuple[int, int], ...]:
    """(start row, rows) of every band of a linear, in order, as its family declares."""
    rows = size(config, linear.rows)
    if linear.banding == "head":
        step = config.head_dim
    elif linear.banding == "block":
        step = max(_LEAST_BLOCK, -(-rows // (_MOST_BLOCKS * STRIP)) * STRIP)
    else:
        step = rows
    return tuple((start, min(step, rows - start)) for start in range(0, rows, step))
