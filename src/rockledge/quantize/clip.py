"""Row scales: how much of a row's largest weights to clip so that the rest is rounded more finely.

Symmetric, one scale a row. Before rounding the scale is searched: candidates are tried by the error that
remains after later columns have made up for what they can, which weighs input k by 1 / U[k, k]^2 (U from
`gptq.feedback_factor`; the conditional variance of that input given those behind it). After rounding it has
a closed form under the full moments.
"""

from collections.abc import Callable, Sequence

import torch

from rockledge.quantize.moments import weighed

# Rows looked at together: bounds the temporaries of an embedding.
_CHUNK = 4096


def search_scale(
    weights: torch.Tensor,
    base: torch.Tensor,
    shrinks: Sequence[float],
    importance: torch.Tensor,
    decoded: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The best of `base * shrink` for every row of `weights` fp32 [N, K]: fp32 [N].

    `decoded` maps weights in units of their scale, fp32 [n, K], to their rounded values; `importance` fp32
    [K] weighs squared errors.
    """
    best = torch.empty_like(base)
    for first in range(0, len(weights), _CHUNK):
        part = slice(first, first + _CHUNK)
        w = weights[part]
        lowest = torch.full_like(base[part], torch.inf)
        for shrink in shrinks:
            scale = base[part] * shrink
            error = (decoded(w / scale[:, None]) * scale[:, None] - w).square() @ importance
            better = error < lowest
            lowest = torch.where(better, error, lowest)
            best[part] = torch.where(better, scale, best[part])
    return best


def refit_scale(
    weights: torch.Tensor, w8: torch.Tensor, moments: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """The row scales fp32 [N] that minimise (w - s q) H (w - s q)^T for the rounded rows q = `w8` fp32 [N,
    K].

    `moments` is H fp32 [K, K] or its diagonal [K]. Where the minimum is not positive (a row of zeros) the
    old `scale` stays.
    """
    fitted = scale.clone()
    for first in range(0, len(weights), _CHUNK):
        part = slice(first, first + _CHUNK)
        qh = weighed(w8[part], moments)
        best = (qh * weights[part]).sum(dim=1) / (qh * w8[part]).sum(dim=1)
        fitted[part] = torch.where(torch.isfinite(best) & (best > 0), best, scale[part])
    return fitted
