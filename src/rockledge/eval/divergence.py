"""Divergence of a compressed model from its float original, token by token on the same text.

KL(float || ours) in nats, the share of positions with the same most likely token, and both perplexities with
the standard error of the logarithm of their ratio. Differences between perplexities alone drown in the spread
of the text; KL does not, because both models see the same positions. Every mean has two errors: `..._se`
takes scored tokens as independent, as llama.cpp's tool does; `..._ci95` resamples windows (see `intervals`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import RockledgeError, UsageError
from rockledge.eval.intervals import Interval, mean_interval
from rockledge.eval.perplexity import negative_log_likelihood, standard_error, summarise_losses
from rockledge.eval.windows import (
    DEFAULT_WINDOW,
    Logits,
    Progress,
    cut_windows,
    log_softmax,
    row_chunks,
    scored_logits,
)

POSITION_BUCKET = 64


@dataclass(frozen=True)
class PositionDivergence:
    """Divergence at context positions position_first .. position_last of the windows."""

    position_first: int
    position_last: int
    kl_mean_nats: float
    kl_mean_ci95_nats: Interval
    top1_agreement: float
    top1_agreement_ci95: Interval
    scored_tokens: int


@dataclass(frozen=True)
class DivergenceReport:
    """One model against its reference. `ln_perplexity_ratio` = ln(ours / reference), paired by token.

    A flip is a position where the most likely token is another one; `flips_lost` are those where only the
    reference's was the token that follows, `flips_won` those where only ours was.
    """

    kl_mean_nats: float
    kl_mean_se_nats: float
    kl_mean_ci95_nats: Interval
    kl_p50_nats: float
    kl_p99_nats: float
    kl_max_nats: float
    top1_agreement: float
    top1_agreement_ci95: Interval
    flips: int
    flips_lost: int
    flips_won: int
    perplexity: float
    perplexity_se: float
    perplexity_ci95: Interval
    reference_perplexity: float
    reference_perplexity_se: float
    reference_perplexity_ci95: Interval
    ln_perplexity_ratio: float
    ln_perplexity_ratio_se: float
    ln_perplexity_ratio_ci95: Interval
    scored_tokens: int
    windows: int
    window_tokens: int
    by_position: tuple[PositionDivergence, ...]


@dataclass
class _Series:
    """What is kept of every scored position of one model: a few numbers, whatever the vocabulary."""

    kl: list[NDArray[np.float64]] = field(default_factory=list)
    same: list[NDArray[np.bool_]] = field(default_factory=list)
    lost: int = 0
    won: int = 0
    loss: list[NDArray[np.float64]] = field(default_factory=list)


def divergences(
    reference: Logits,
    models: Mapping[str, Logits],
    tokens: Sequence[int],
    *,
    window: int = DEFAULT_WINDOW,
    score_from: int | None = None,
    limit: int | None = None,
    bos: int | None = None,
    progress: Progress | None = None,
) -> dict[str, DivergenceReport]:
    """Compares every model of `models` with `reference` on the first `limit` windows of `tokens` (see
    `windows.cut_windows`, also for `bos`).

    The reference runs once per window, however many models there are; memory is one window of logits per
    model in turn. `score_from` (default window // 2) is the first scored position: 0 together with a longer
    window shows how divergence depends on context. RockledgeError when vocabularies differ.
    """
    windows = cut_windows(tokens, window, limit, bos)
    first = window // 2 if score_from is None else score_from
    if not 0 <= first < window - 1:
        raise UsageError(f"scoring from position {first} of a window of {window} scores nothing")
    series = {name: _Series() for name in models}
    reference_loss = []
    for done, piece in enumerate(windows, 1):
        targets = np.asarray(piece[first + 1 :])
        expected = scored_logits(reference, piece, first)
        chunks = row_chunks(*expected.shape)
        for chunk in chunks:
            reference_loss.append(negative_log_likelihood(log_softmax(expected[chunk]), targets[chunk]))
        for name, model in models.items():
            found = scored_logits(model, piece, first)
            if found.shape != expected.shape:
                raise RockledgeError(
                    f"{name} has a vocabulary of {found.shape[1]} tokens, its reference one of "
                    f"{expected.shape[1]}; compare a model with the checkpoint it was made from"
                )
            for chunk in chunks:
                p, q = log_softmax(expected[chunk]), log_softmax(found[chunk])
                _compare(series[name], p, q, targets[chunk])
        if progress is not None:
            progress(done, len(windows))
    losses = np.concatenate(reference_loss)
    return {name: _summarise(one, losses, len(windows), window, first) for name, one in series.items()}


def divergence(
    reference: Logits,
    model: Logits,
    tokens: Sequence[int],
    *,
    window: int = DEFAULT_WINDOW,
    score_from: int | None = None,
    limit: int | None = None,
    bos: int | None = None,
    progress: Progress | None = None,
) -> DivergenceReport:
    """`divergences` of one model."""
    reports = divergences(
        reference,
        {"model": model},
        tokens,
        window=window,
        score_from=score_from,
        limit=limit,
        bos=bos,
        progress=progress,
    )
    return reports["model"]


def _compare(
    series: _Series, p: NDArray[np.float64], q: NDArray[np.float64], targets: NDArray[np.int64]
) -> None:
    series.kl.append((np.exp(p) * (p - q)).sum(axis=1))
    expected, found = p.argmax(axis=1), q.argmax(axis=1)
    series.same.append(expected == found)
    series.lost += int(((expected != found) & (expected == targets)).sum())
    series.won += int(((expected != found) & (found == targets)).sum())
    series.loss.append(negative_log_likelihood(q, targets))


def _summarise(
    series: _Series, reference_loss: NDArray[np.float64], windows: int, window: int, first: int
) -> DivergenceReport:
    kl = np.concatenate(series.kl)
    same = np.concatenate(series.same)
    loss = np.concatenate(series.loss)
    ours = summarise_losses(loss, windows)
    theirs = summarise_losses(reference_loss, windows)
    ratio = loss - reference_loss
    return DivergenceReport(
        kl_mean_nats=float(kl.mean()),
        kl_mean_se_nats=standard_error(kl),
        kl_mean_ci95_nats=mean_interval(kl.reshape(windows, -1)),
        kl_p50_nats=float(np.percentile(kl, 50)),
        kl_p99_nats=float(np.percentile(kl, 99)),
        kl_max_nats=float(kl.max()),
        top1_agreement=float(same.mean()),
        top1_agreement_ci95=mean_interval(same.reshape(windows, -1).astype(np.float64)),
        flips=int((~same).sum()),
        flips_lost=series.lost,
        flips_won=series.won,
        perplexity=ours.perplexity,
        perplexity_se=ours.perplexity_se,
        perplexity_ci95=ours.perplexity_ci95,
        reference_perplexity=theirs.perplexity,
        reference_perplexity_se=theirs.perplexity_se,
        reference_perplexity_ci95=theirs.perplexity_ci95,
        ln_perplexity_ratio=float(ratio.mean()),
        ln_perplexity_ratio_se=standard_error(ratio),
        ln_perplexity_ratio_ci95=mean_interval(ratio.reshape(windows, -1)),
        scored_tokens=kl.size,
        windows=windows,
        window_tokens=window,
        by_position=_by_position(kl, same, windows, first, window),
    )


def _by_position(
    kl: NDArray[np.float64], same: NDArray[np.bool_], windows: int, first: int, window: int
) -> tuple[PositionDivergence, ...]:
    kl_table = kl.reshape(windows, window - 1 - first)
    same_table = same.reshape(kl_table.shape)
    result = []
    for start in range(0, kl_table.shape[1], POSITION_BUCKET):
        piece = kl_table[:, start : start + POSITION_BUCKET]
        same_piece = same_table[:, start : start + POSITION_BUCKET].astype(np.float64)
        result.append(
            PositionDivergence(
                position_first=first + start,
                position_last=first + start + piece.shape[1] - 1,
                kl_mean_nats=float(piece.mean()),
                kl_mean_ci95_nats=mean_interval(piece),
                top1_agreement=float(same_piece.mean()),
                top1_agreement_ci95=mean_interval(same_piece),
                scored_tokens=piece.size,
            )
        )
    return tuple(result)
