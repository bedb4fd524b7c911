"""Where a linear may be cut into bands: the runs of rows whose width is chosen independently."""

from rockledge.formats.bands import STRIP
from rockledge.model.block import Linear

# Blocks of feed-forward channels, or of tokens (the frequent ones have low numbers): narrow enough to
# follow the prices, wide enough for a kernel call to pay.
_LEAST_BLOCK = 128
_MOST_BLOCKS = 16


def cut(linear: Linear, head_dim: int) -> tuple[tuple[int, int], ...]:
    """(start row, rows) of every band of a linear, in order, as the decoder declares; heads have `head_dim`
    rows."""
    if linear.banding == "head":
        step = head_dim
    elif linear.banding == "block":
        step = max(_LEAST_BLOCK, -(-linear.rows // (_MOST_BLOCKS * STRIP)) * STRIP)
    else:
        step = linear.rows
    return tuple((start, min(step, linear.rows - start)) for start in range(0, linear.rows, step))
