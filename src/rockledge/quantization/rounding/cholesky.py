"""The Cholesky factor in the memory of the matrix itself: at 14,336 inputs a copy in doubles is 1.6 GB."""

import torch

# Columns factored at a time. Temporaries are this wide; up to here it is one call of the library.
_PANEL = 2048


def cholesky_(h: torch.Tensor) -> bool:
    """Replaces the lower triangle of a symmetric `h` [K, K] by its Cholesky factor L, H = L L^T.

    What is above the diagonal afterwards is meaningless. False if `h` is not positive definite; its contents
    are lost then.
    """
    size = len(h)
    for start in range(0, size, _PANEL):
        end = min(start + _PANEL, size)
        corner, failed = torch.linalg.cholesky_ex(h[start:end, start:end])
        if failed:
            return False
        h[start:end, start:end] = corner
        below = torch.linalg.solve_triangular(corner.T, h[end:, start:end], upper=True, left=False)
        h[end:, start:end] = below
        for first in range(end, size, _PANEL):
            part = below[first - end : first - end + _PANEL]
            h[first:, first : first + _PANEL].addmm_(below[first - end :], part.T, alpha=-1.0)
    return True
