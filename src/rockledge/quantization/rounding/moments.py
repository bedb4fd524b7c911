"""Second moments of inputs as errors are weighed by them: whole, [K, K], or their diagonal alone, [K].

The diagonal says what independent errors cost. Those of nearest rounding nearly are; those of error feedback
are made not to be.
"""

import torch


def weighed(x: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """`x H` for rows `x` fp32 [N, K]."""
    return x * moments if moments.dim() == 1 else x @ moments


def importance(moments: torch.Tensor) -> torch.Tensor:
    """What a squared error in each input costs by itself, fp32 [K]; 1 where an input is always zero."""
    diagonal = moments if moments.dim() == 1 else moments.diagonal()
    return torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal))


def second_moments(rows: torch.Tensor, *, diagonal: bool) -> torch.Tensor:
    """The sum of x^T x over rows `rows` fp32 [T, K]: fp32 [K, K], or its diagonal [K]."""
    return rows.square().sum(dim=0) if diagonal else rows.T @ rows
