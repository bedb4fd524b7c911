"""Row scales: how much of a row's largest weights to clip so that the rest is rounded more finely.

Symmetric, one scale a row. Integers are searched before rounding: candidates are tried by the error that
remains after later columns have made up for what they can (`gptq.Feedback.importance`). With tables the
error hardly depends on the scale, but which way the errors of a row fall does: rows are rounded at several
scales, and the one with the best outputs stays. After rounding the scale has a closed form under the full
moments.
"""

from collections.abc import Callable, Sequence

import torch

from rockledge.quantization.rounding.gptq import Rounded
from rockledge.quantization.rounding.moments import weighed

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
) -> tuple[torch.Tensor, torch.Tensor]:
    """The row scales s fp32 [N] that minimise (w - s q) H (w - s q)^T for the rounded rows q = `w8` fp32 [N,
    K], and by how much that is below w H w^T, fp64 [N].

    `moments` is H fp32 [K, K] or its diagonal [K]. Where the minimum is not positive (a row of zeros) the
    old `scale` stays.
    """
    fitted = scale.clone()
    explained = torch.empty(len(scale), dtype=torch.float64, device=scale.device)
    for first in range(0, len(weights), _CHUNK):
        part = slice(first, first + _CHUNK)
        qh = weighed(w8[part], moments)
        with_weights, with_itself = (
            (qh * other).sum(dim=1, dtype=torch.float64) for other in (weights[part], w8[part])
        )
        best = (with_weights / with_itself).float()
        fitted[part] = torch.where(torch.isfinite(best) & (best > 0), best, scale[part])
        taken = fitted[part].double()
        explained[part] = taken * (2 * with_weights - taken * with_itself)
    return fitted, explained


def best_of_scales(
    weights: torch.Tensor,
    scale: torch.Tensor,
    shares: Sequence[float],
    moments: torch.Tensor,
    rounding: Callable[[torch.Tensor, torch.Tensor], Rounded],
) -> tuple[Rounded, torch.Tensor]:
    """Every row of `weights` fp32 [N, K] rounded at `scale * share` for each share, and of these the one with
    the least error of its outputs: that and its fitted scales fp32 [N].

    `rounding` takes weights and scales; it is called once, with all the rows that are tried. `moments` as in
    `refit_scale`.
    """
    tried = weights.repeat(len(shares), 1)
    start = torch.cat([scale * share for share in shares])
    rounded = rounding(tried, start)
    fitted, explained = refit_scale(tried, rounded.w8, moments, start)
    if len(shares) == 1:
        return rounded, fitted
    kept = explained.view(len(shares), -1).argmax(dim=0) * len(scale) + torch.arange(
        len(scale), device=scale.device
    )
    return rounded.rows(kept), fitted[kept]
