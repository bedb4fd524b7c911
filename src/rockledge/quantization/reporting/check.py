"""Are the prices true? What single bands really cost, compared with their prices.

One band at a time is rounded in a model that is otherwise float. Changed from the float model, and not from
the chosen allocation, because there the divergence is the quadratic form that prices predict: positive at
every token, so that a few hundred tokens suffice to measure it. On top of other errors the same band adds a
cross term of either sign and many times its size, which only averages out over very many tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.float_model.logits import changed as changed_logits
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.rounding.candidates import dequantized_rows
from rockledge.quantization.transforming.order import arranged, stored_order
from rockledge.quantization.transforming.rotate import RotatedModel
from rockledge.quantization.work.store import BandPrices, Prices, WorkDirectory

CHECKED_BANDS = 40
CHECKED_TOKENS = 512
# All bands are checked at one width (or the next that was made): among different widths even wrong prices
# rank well.
_BITS = 3
# Tokens whose logits exist at a time.
_LOGIT_TOKENS = 128


@dataclass(frozen=True)
class CheckedBand:
    """Rows of a linear at one width: what they were priced at and what they cost, nats a token."""

    linear: str
    start: int
    rows: int
    bits: int
    priced: float
    measured: float


@dataclass(frozen=True)
class PriceCheck:
    """The checked bands, and on how many tokens they were measured."""

    bands: tuple[CheckedBand, ...]
    tokens: int

    @property
    def rank_correlation(self) -> float:
        """Spearman's coefficient between prices and measurements."""
        priced, measured = ([getattr(b, side) for b in self.bands] for side in ("priced", "measured"))
        return float(spearmanr(priced, measured).statistic)

    @property
    def measured_over_priced(self) -> dict[str, float]:
        """By role, a geometric mean over its bands."""
        logs: dict[str, list[float]] = defaultdict(list)
        for band in self.bands:
            if band.priced > 0 and band.measured > 0:
                logs[role_of(band.linear)].append(float(np.log(band.measured / band.priced)))
        return {role: float(np.exp(np.mean(values))) for role, values in logs.items()}


def role_of(linear: str) -> str:
    """ "ffn.up" of "layers.3.ffn.up"; "embed" and "head" are their own."""
    return linear.split(".", 2)[-1]


def sample_bands(bands: Sequence[BandPrices], count: int, seed: int) -> list[BandPrices]:
    """Random bands, `count` or all there are: drawn from the roles in turn, so that each has its share
    although some are cut into many bands and some into one."""
    generator = np.random.default_rng(seed)
    by_role: dict[str, list[BandPrices]] = defaultdict(list)
    for i in generator.permutation(len(bands)):
        by_role[role_of(bands[i].linear)].append(bands[i])
    turns = chain.from_iterable(zip_longest(*by_role.values()))
    return [band for band in turns if band is not None][:count]


@torch.no_grad()
def price_check(
    model: RotatedModel,
    prices: Prices,
    work: WorkDirectory,
    windows: npt.NDArray[np.int64],
    seed: int,
    progress: Callable[[int, int], None],
) -> PriceCheck:
    """Measures random bands on the beginnings of `windows` int64 [S, T], about 512 tokens in all.

    All changed models go through the blocks side by side, each from the block in which it changes on, so
    every block's weights are made once; memory holds the hidden states of all of them.
    """
    chosen = [_Change(model, work, band) for band in sample_bands(prices.bands, CHECKED_BANDS, seed)]
    length = min(windows.shape[1], max(1, CHECKED_TOKENS // len(windows)))
    tokens = torch.from_numpy(windows[:, :length])
    states = _embedded(model, chosen, tokens)
    for layer in range(model.config.layers):
        states = _advanced(model, work, layer, [c for c in chosen if c.layer == layer], states)
        progress(layer + 1, model.config.layers)
    costs = _divergences(model, chosen, states)
    return PriceCheck(
        tuple(
            CheckedBand(c.band.linear, c.band.start, c.band.rows, c.bits, c.band.prices[c.bits], cost)
            for c, cost in zip(chosen, costs, strict=True)
        ),
        tokens.numel(),
    )


class _Change:
    """One band that is rounded while all else stays float."""

    def __init__(self, model: RotatedModel, work: WorkDirectory, band: BandPrices) -> None:
        self.band = band
        self.bits = min(bits for bits in band.prices if bits >= _BITS)
        self.layer = int(band.linear.split(".")[1]) if band.linear.startswith("layers.") else None
        self.rows = slice(band.start, band.start + band.rows)
        self._work = work
        self._device = model.device

    def rounded(self) -> torch.Tensor:
        """The band's rows fp32 [rows, K] as an artifact would hold them."""
        candidate = self._work.candidate(self.band.linear, self.bits)
        return dequantized_rows(candidate, self.rows, self._device)


_States = dict[_Change | None, torch.Tensor]
"""Hidden states fp32 [S, T, hidden] with one band changed; under None those of the float model."""


def _embedded(model: RotatedModel, chosen: Sequence[_Change], tokens: torch.Tensor) -> _States:
    table, embed = model.embedding(), model.tree.embed.role
    tokens = tokens.to(table.device)
    states: _States = {None: model.stream(table[tokens])}
    for change in chosen:
        if change.band.linear == embed:
            changed = table[tokens]
            touched = (tokens >= change.rows.start) & (tokens < change.rows.stop)
            changed[touched] = change.rounded()[tokens[touched] - change.rows.start]
            states[change] = model.stream(changed)
    return states


def _advanced(
    model: RotatedModel, work: WorkDirectory, layer: int, changes: Sequence[_Change], states: _States
) -> _States:
    """All states after block `layer`, and those that begin there."""
    tree, tap = model.tree, model.taps()
    gated, order = tree.layers[layer].gated, stored_order(work.path, layer)
    block = model.online.get(gated.groups[1].place, 0)
    weights = arranged(model.block_weights(layer, online=False), gated, order, block)
    passed = {key: block_forward(weights, x, tree, layer, tap) for key, x in states.items()}
    for change in changes:
        role = role_of(change.band.linear)
        matrix = weights[role].clone()
        matrix[change.rows] = change.rounded()
        passed[change] = block_forward({**weights, role: matrix}, states[None], tree, layer, tap)
    return passed


def _divergences(model: RotatedModel, chosen: Sequence[_Change], states: _States) -> list[float]:
    """KL of every change to the float model, nats a token.

    With d the change of the logits, less its mean under p, KL = log(1 + sum p (e^d - 1 - d)): taken from d
    itself, because of two nearly equal logarithms float32 would leave nothing.
    """
    head, tree = model.head(), model.tree
    matrix = tree.head.role
    errors = {c: c.rounded() - head[c.rows] for c in chosen if c.band.linear == matrix}
    totals = [0.0] * len(chosen)
    count = 0
    flat = {key: x.reshape(-1, x.shape[-1]) for key, x in states.items()}
    for first in range(0, len(flat[None]), _LOGIT_TOKENS):
        part = slice(first, first + _LOGIT_TOKENS)
        h = model.head_input(flat[None][part])
        logits = finished(h @ head.T, tree)
        p = torch.softmax(logits, dim=-1)
        count += len(h)
        for i, change in enumerate(chosen):
            # A head that is not tied changes nothing before itself.
            changed = model.head_input(flat[change][part]) if change in flat else h
            d = (changed - h) @ head.T
            if change in errors:
                d[:, change.rows] += changed @ errors[change].T
            d = changed_logits(logits, d, tree)
            d -= (p * d).sum(dim=-1, keepdim=True)
            totals[i] += float((p * (torch.expm1(d) - d)).sum(dim=-1).log1p().sum())
    return [total / count for total in totals]
