"""What a choice costs in divergence: nats a token of KL to the float model, to second order.

Replacing w_n by w_n + d_n in one linear moves output n by d_n x. With H the second moment of the inputs x
and f_n the mean square of the gradient of the log-likelihood at output n (labels drawn from the model
itself, so that this is the Fisher information, the Hessian of the KL), the expected divergence is 1/2 sum_n
f_n d_n H d_n^T.
"""

from collections.abc import Sequence

import torch

from rockledge.quantization.rounding.moments import weighed

# Rounding to a step s, evenly spread, has variance s^2 / 12.
_UNIFORM_VARIANCE = 1.0 / 12.0
# Rows whose errors are multiplied at a time: bounds the temporaries of an embedding.
_CHUNK = 16384


def row_errors(delta: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """d_n H d_n^T for every row of `delta` fp32 [N, K], with `moments` fp32 [K, K] or their
    diagonal [K]: fp32 [N]."""
    parts = [(weighed(part, moments) * part).sum(dim=1) for part in delta.split(_CHUNK)]
    return torch.cat(parts).clamp_min(0.0)


def band_prices(row_prices: torch.Tensor, bands: Sequence[tuple[int, int]]) -> list[float]:
    """Sums of per-row prices [N] over bands of (start, rows)."""
    return [float(row_prices[start : start + rows].double().sum()) for start, rows in bands]


def activation_price(rounding: float) -> float:
    """Divergence caused by rounding the inputs of one place to int8.

    A token's rounding errors e are independent and have variance step^2 / 12 each; moving its input by e
    costs 1/2 (g e)^2, with g the gradient there, through all linears that read it. `rounding` is the mean
    over tokens of step^2 |g|^2.
    """
    return 0.5 * _UNIFORM_VARIANCE * rounding
